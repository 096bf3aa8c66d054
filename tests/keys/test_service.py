"""Who may make, see and change which keys."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from plughub.api.keys import shown as shown_on_api
from plughub.db.engine import Database
from plughub.db.tables import api_key
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.keys.directory import KeyDirectory
from plughub.keys.schemas import Key, KeyCreate, KeyUpdate
from plughub.keys.service import Peppers, create_key, get_key, list_keys, permitted_scopes, revoke_key, update_key
from plughub.kit.caller import DEFAULT_SCOPES, SCOPES, TIERS, Caller, expand_scopes
from plughub.kit.clock import rfc3339
from plughub.kit.crypto import Sealer, keyed_digest
from plughub.kit.errors import Conflict, Forbidden, Invalid, KeyRevoked, NotFound
from plughub.kit.ids import public_id
from plughub.servers.schemas import ServerCreate
from plughub.servers.service import create_server, delete_server
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


class Desk:
    """Makes and changes keys, each in a unit of work of its own."""

    def __init__(self, database: Database, peppers: Peppers, sealer: Sealer, settings: Settings) -> None:
        self.database = database
        self.peppers = peppers
        self.sealer = sealer
        self.directory = KeyDirectory(database, peppers, settings)

    async def make(self, maker: Caller, **fields: object) -> tuple[Key, str]:
        async with self.database.unit_of_work() as uow:
            return await create_key(uow, maker, KeyCreate.model_validate({"name": "k", **fields}), self.peppers)

    async def change(self, caller: Caller, key: Key, **fields: object) -> Key:
        async with self.database.unit_of_work() as uow:
            return await update_key(uow, caller, key.id, KeyUpdate.model_validate(fields))

    async def revoke(self, caller: Caller, key: Key) -> Key:
        async with self.database.unit_of_work() as uow:
            return await revoke_key(uow, caller, key.id)

    async def get(self, caller: Caller, key: Key) -> Key:
        async with self.database.read() as connection:
            return await get_key(connection, caller, key.id)

    async def caller(self, secret: str) -> Caller:
        entry = await self.directory.resolve(secret)
        assert entry is not None
        return entry.caller

    async def made(self, maker: Caller, **fields: object) -> Caller:
        return await self.caller((await self.make(maker, **fields))[1])

    async def server(self, owner: Caller) -> str:
        body = ServerCreate(name="s", type="STREAMABLE_HTTP", config={"url": "http://h"})
        async with self.database.unit_of_work() as uow:
            return (await create_server(uow, owner, body, self.sealer)).id


@pytest.fixture
def desk(database: Database, peppers: Peppers, sealer: Sealer, settings: Settings) -> Desk:
    return Desk(database, peppers, sealer, settings)


@pytest.mark.requirement("keys.stored-as-hmac", "keys.shown-once", "keys.format")
async def test_secret_is_stored_as_keyed_digest_and_nowhere_in_the_clear(desk: Desk, tenant: Organization) -> None:
    key, secret = await desk.make(tenant.founder())
    assert (key.prefix, key.last4) == (secret[:15], secret[-4:])
    async with desk.database.read() as connection:
        row = (await connection.execute(select(api_key))).one()
        events = (await connection.execute(text("SELECT data FROM event"))).scalars().all()
    assert row.digest == keyed_digest(b"p" * 32, secret)
    assert row.pepper_version == 1
    shown = [repr(row), repr(events), repr(shown_on_api(key, 0.0)), repr(key)]
    assert [place for place in shown if secret[15:-4] in place] == []


@pytest.mark.requirement("keys.scopes-default")
async def test_key_without_scopes_has_the_default_ones_of_its_maker(desk: Desk, tenant: Organization) -> None:
    key, _ = await desk.make(tenant.founder())
    assert set(key.scopes) == DEFAULT_SCOPES
    assert (key.servers, key.expires_at, key.kind, key.environment, key.status) == (None, None, "public", "live", "active")
    narrow = await desk.made(tenant.founder(), scopes=["read:servers", "write:keys"])
    key, _ = await desk.make(narrow)
    assert key.scopes == ("read:servers",)


@pytest.mark.requirement("keys.never-wider-than-its-maker")
async def test_wider_scopes_are_forbidden_and_unknown_ones_invalid(desk: Desk, tenant: Organization) -> None:
    narrow = await desk.made(tenant.founder(), scopes=["read:servers", "write:keys"])
    with pytest.raises(Forbidden) as raised:
        await desk.make(narrow, scopes=["read:servers", "execute:tools"])
    assert raised.value.details == {"required_scope": "execute:tools", "reason": "wider_than_maker"}
    with pytest.raises(Forbidden):
        await desk.make(narrow, scopes=["admin"])
    with pytest.raises(Invalid):
        await desk.make(narrow, scopes=["fly"])


@pytest.mark.requirement("keys.never-wider-than-its-maker", "keys.empty-grant-is-nothing")
async def test_server_list_is_inherited_and_never_widened(desk: Desk, tenant: Organization) -> None:
    root = tenant.founder()
    servers = sorted([await desk.server(root) for _ in range(3)])
    listed = await desk.made(root, servers=servers[:2], scopes=["write:keys", "execute:tools"])
    assert listed.servers == frozenset(servers[:2])
    key, _ = await desk.make(listed)
    assert key.servers == tuple(servers[:2])
    key, _ = await desk.make(listed, servers=[public_id("mcp", servers[0])])
    assert key.servers == (servers[0],)
    key, secret = await desk.make(listed, servers=[])
    assert key.servers == ()
    assert (await desk.caller(secret)).servers == frozenset()
    for wider in ("*", servers, [servers[2]]):
        with pytest.raises(Forbidden):
            await desk.make(listed, servers=wider)


async def test_servers_of_another_space_and_missing_ones_are_equally_unknown(
    desk: Desk, tenant: Organization, operator: Organization
) -> None:
    foreign, other_environment = await desk.server(operator.founder()), await desk.server(tenant.founder("test"))
    for wrong in (foreign, other_environment, "01900000-0000-7000-8000-000000000000", "x", "mcp_" + "z" * 22):
        with pytest.raises(Invalid) as raised:
            await desk.make(tenant.founder(), servers=[wrong])
        assert (raised.value.details["field"], str(raised.value)) == ("servers", f"Server '{wrong}' not found")


async def test_deleted_server_leaves_every_grant(desk: Desk, tenant: Organization) -> None:
    root = tenant.founder()
    server_id = await desk.server(root)
    key, _ = await desk.make(root, servers=[server_id])
    async with desk.database.unit_of_work() as uow:
        await delete_server(uow, root, server_id)
    assert (await desk.get(root, key)).servers == ()


@pytest.mark.requirement("keys.never-wider-than-its-maker", "keys.past-expiry-is-400")
async def test_expiry_is_inherited_never_later_than_the_makers_and_not_in_the_past(
    desk: Desk, tenant: Organization, clock: FakeClock
) -> None:
    now = clock.time()
    day = await desk.made(tenant.founder(), expires_at=rfc3339(now + 86_400), scopes=["write:keys"])
    assert (await desk.make(day))[0].expires_at == now + 86_400
    assert (await desk.make(day, expires_at=rfc3339(now + 60)))[0].expires_at == now + 60
    for later in (rfc3339(now + 86_401), None):
        with pytest.raises(Forbidden):
            await desk.make(day, expires_at=later)
    for wrong in (rfc3339(now), "2020-01-01T00:00:00Z", "tomorrow", "2099-01-01T00:00:00", "2099-13-01T00:00:00Z"):
        with pytest.raises(Invalid) as raised:
            await desk.make(tenant.founder(), expires_at=wrong)
        assert raised.value.details["field"] == "expires_at"


@pytest.mark.requirement("keys.never-wider-than-its-maker")
async def test_maker_that_was_revoked_meanwhile_makes_nothing(desk: Desk, tenant: Organization) -> None:
    key, secret = await desk.make(tenant.founder(), scopes=["admin"])
    admitted = await desk.caller(secret)
    await desk.revoke(tenant.founder(), key)
    with pytest.raises(KeyRevoked):
        await desk.make(admitted)


@pytest.mark.requirement("keys.environments-apart")
async def test_live_key_may_make_test_keys_and_a_test_key_no_live_ones(desk: Desk, tenant: Organization) -> None:
    key, secret = await desk.make(tenant.founder(), environment="test", scopes=["admin"])
    assert (key.environment, key.space_id, key.prefix[:8]) == ("test", tenant.test_space_id, "pk_test_")
    with pytest.raises(Forbidden):
        await desk.make(await desk.caller(secret), environment="live")
    listed = await desk.made(tenant.founder(), servers=[], scopes=["admin"])
    with pytest.raises(Forbidden):
        await desk.make(listed, environment="test")


@pytest.mark.requirement("keys.environments-apart", "routes.foreign-is-missing")
async def test_keys_of_another_organisation_or_environment_are_missing(desk: Desk, tenant: Organization, operator: Organization) -> None:
    key, _ = await desk.make(tenant.founder())
    for stranger in (operator.founder(), tenant.founder("test")):
        with pytest.raises(NotFound):
            await desk.get(stranger, key)
        with pytest.raises(NotFound):
            await desk.change(stranger, key, name="mine")
        with pytest.raises(NotFound):
            await desk.revoke(stranger, key)
        async with desk.database.read() as connection:
            assert (await list_keys(connection, stranger, limit=10, offset=0)).total == 0


@pytest.mark.requirement("keys.patch")
async def test_update_changes_what_is_given_and_nothing_else(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    root = tenant.founder()
    server_id = await desk.server(root)
    key, _ = await desk.make(root, description="d", labels={"a": "1"})
    changed = await desk.change(root, key, name="new", scopes=["execute:tools"], servers=[server_id], expires_at=rfc3339(clock.time() + 5))
    assert changed == replace(key, name="new", scopes=("execute:tools",), servers=(server_id,), expires_at=clock.time() + 5)
    assert await desk.get(root, key) == changed
    changed = await desk.change(root, key, description=None, labels=None, servers="*", expires_at=None, status="suspended")
    assert changed == replace(key, name="new", description="", labels={}, scopes=("execute:tools",), status="suspended")
    assert await desk.get(root, key) == changed


@pytest.mark.requirement("keys.never-wider-than-its-maker")
async def test_nobody_widens_or_manages_a_key_beyond_their_own(desk: Desk, tenant: Organization) -> None:
    root = tenant.founder()
    servers = [await desk.server(root), await desk.server(root)]
    wide, _ = await desk.make(root, scopes=["admin"])
    own, secret = await desk.make(root, scopes=["write:keys", "execute:tools"], servers=servers[:1])
    caller = await desk.caller(secret)
    for fields in ({"name": "x"}, {"status": "suspended"}):
        with pytest.raises(Forbidden):
            await desk.change(caller, wide, **fields)
    with pytest.raises(Forbidden):
        await desk.revoke(caller, wide)
    for wider in ({"scopes": ["admin"]}, {"servers": "*"}, {"servers": servers}):
        with pytest.raises(Forbidden):
            await desk.change(caller, own, **wider)
    assert (await desk.change(caller, own, name="mine")).name == "mine"
    child, _ = await desk.make(caller)
    assert (await desk.revoke(caller, child)).status == "revoked"


@pytest.mark.requirement("keys.revoke-keeps-the-row")
async def test_revoking_keeps_the_row_and_twice_is_no_error_and_no_change(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    root = tenant.founder()
    key, _ = await desk.make(root)
    revoked = await desk.revoke(root, key)
    clock.advance(10)
    assert await desk.revoke(root, key) == revoked == await desk.get(root, key)
    assert (revoked.status, revoked.revoked_at) == ("revoked", clock.time() - 10)
    with pytest.raises(Conflict):
        await desk.change(root, key, status="active")


async def test_every_change_is_told_once_with_its_names(desk: Desk, tenant: Organization) -> None:
    root = tenant.founder()
    key, _ = await desk.make(root)
    await desk.change(root, key, name="k")  # as it was
    await desk.change(root, key, name="n", status="suspended")
    await desk.change(root, key, status="active")
    await desk.revoke(root, key)
    await desk.revoke(root, key)
    async with desk.database.read() as connection:
        told = [(event.name, event.key_id, event.data.get("changed")) for event in await list_since(connection, tenant.live_space_id, 0)]
    names = [("created", None), ("suspended", None), ("updated", ["name"]), ("updated", ["status"]), ("revoked", None)]
    assert told == [(f"key.{name}", key.id, changed) for name, changed in names]


@pytest.mark.requirement("keys.list-and-get")
async def test_list_is_paged_filtered_by_state_and_without_secrets(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    root = tenant.founder()
    keys = []
    for number in range(5):
        clock.advance(1)
        keys.append((await desk.make(root, name=f"k{number}", servers=[] if number == 0 else "*"))[0])
    await desk.change(root, keys[1], status="suspended")
    await desk.change(root, keys[2], expires_at=rfc3339(clock.time() + 5))
    await desk.revoke(root, keys[3])
    clock.advance(10)

    async def names(status: str | None = None, limit: int = 10, offset: int = 0) -> tuple[list[str], int]:
        async with desk.database.read() as connection:
            page = await list_keys(connection, root, limit=limit, offset=offset, status=status, now=clock.time())  # type: ignore[arg-type]
        return [key.name for key in page.items], page.total

    assert await names() == (["k0", "k1", "k2", "k3", "k4"], 5)
    assert await names(limit=2, offset=3) == (["k3", "k4"], 5)
    found = {status: await names(status) for status in ("active", "suspended", "revoked", "expired")}
    assert found == {"active": (["k0", "k4"], 2), "suspended": (["k1"], 1), "revoked": (["k3"], 1), "expired": (["k2"], 1)}
    async with desk.database.read() as connection:
        page = await list_keys(connection, root, limit=1, offset=0)
    assert page.items[0].servers == ()


subsets = st.sets(st.sampled_from(sorted(SCOPES)), min_size=1)


@pytest.mark.requirement("keys.never-wider-than-its-maker")
@given(subsets, subsets)
def test_whatever_is_asked_of_whatever_maker_stays_within_its_rights(has: set[str], wanted: set[str]) -> None:
    maker = Caller("o", "s", "live", "k", "public", expand_scopes(frozenset(has)), None, TIERS["free"], False, False)
    try:
        made = permitted_scopes(maker, sorted(wanted))
    except Forbidden:
        assert not wanted <= maker.scopes
    else:
        assert expand_scopes(made) <= maker.scopes
