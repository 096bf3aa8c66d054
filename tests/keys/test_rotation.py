"""Secrets that follow each other, and those that were found in public."""

import asyncio

import pytest
from sqlalchemy import func, select

from plughub.db.engine import Database
from plughub.db.tables import retired_secret
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import KEY_REVOKED, KEY_ROTATED, KEY_UPDATED
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.keys.directory import KeyDirectory, KeyEntry
from plughub.keys.rotation import end_leaked, rotate_key
from plughub.keys.schemas import Key, KeyCreate, KeyUpdate
from plughub.keys.secret import generate
from plughub.keys.service import Peppers, create_key, get_key, revoke_key, update_key
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Conflict, Forbidden, KeyNotFound
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio
DAY = 86_400


class Desk:
    """Makes and rotates keys, each in a unit of work of its own."""

    def __init__(self, database: Database, peppers: Peppers, settings: Settings) -> None:
        self.database = database
        self.peppers = peppers
        self.directory = KeyDirectory(database, peppers, settings)

    async def make(self, maker: Caller, **fields: object) -> tuple[Key, str]:
        async with self.database.unit_of_work() as uow:
            return await create_key(uow, maker, KeyCreate.model_validate({"name": "k", **fields}), self.peppers)

    async def rotate(self, caller: Caller, key: Key, overlap_s: int = DAY) -> tuple[Key, str]:
        async with self.database.unit_of_work() as uow:
            return await rotate_key(uow, caller, key.id, overlap_s, self.peppers)

    async def report(self, *secrets: str, url: str | None = None) -> frozenset[str]:
        async with self.database.unit_of_work() as uow:
            return await end_leaked(uow, dict.fromkeys(secrets, url), self.peppers)

    async def entry(self, secret: str) -> KeyEntry:
        found = self.directory.find(secret) or await self.directory.resolve(secret)
        assert found is not None
        return found

    async def works(self, secret: str) -> bool:
        found = await self.entry(secret)
        until = found.caller.until
        return found.status == "active" and (until is None or until > self.database.clock.time())

    async def events(self, organization: Organization) -> list[Event]:
        async with self.database.read() as connection:
            return await list_since(connection, organization.live_space_id, 0)


@pytest.fixture
def desk(database: Database, peppers: Peppers, settings: Settings) -> Desk:
    return Desk(database, peppers, settings)


@pytest.mark.requirement("keys.rotation")
async def test_both_secrets_work_for_the_overlap_and_then_the_new_one_alone(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    key, old = await desk.make(tenant.founder(), scopes=["read:servers"], servers=[], labels={"a": "b"}, allowed_ips=["10.0.0.0/8"])
    assert await desk.works(old)
    rotated, new = await desk.rotate(tenant.founder(), key, 100)
    kept = ("id", "name", "scopes", "servers", "allowed_ips", "labels", "kind", "environment", "expires_at", "created_at", "status")
    assert {name: getattr(rotated, name) for name in kept} == {name: getattr(key, name) for name in kept}
    assert (rotated.prefix, rotated.last4, rotated.rotated_at, rotated.generation) == (new[:15], new[-4:], clock.time(), 1)
    assert rotated.previous is not None
    assert (rotated.previous.prefix, rotated.previous.valid_until) == (old[:15], clock.time() + 100)
    one, two = await desk.entry(old), await desk.entry(new)
    assert (one.caller.generation, two.caller.generation) == (0, 1)
    assert (one.caller.until, one.caller.superseded, two.caller.until) == (clock.time() + 100, True, None)
    assert (one.caller.scopes, one.caller.servers, one.key_id) == (two.caller.scopes, two.caller.servers, two.key_id)
    clock.advance(99)
    assert await desk.works(old) and await desk.works(new)
    clock.advance(1)
    assert not await desk.works(old) and await desk.works(new)
    fresh = KeyDirectory(desk.database, desk.peppers, Settings())
    assert (entry := await fresh.resolve(old)) is not None and entry.valid_until == clock.time()


@pytest.mark.requirement("keys.rotation")
async def test_earlier_secrets_keep_their_end_but_none_outlasts_the_newest_overlap(
    desk: Desk, tenant: Organization, clock: FakeClock
) -> None:
    key, first = await desk.make(tenant.founder())
    key, second = await desk.rotate(tenant.founder(), key, 10)
    key, third = await desk.rotate(tenant.founder(), key, 100)
    assert [await desk.works(secret) for secret in (first, second, third)] == [True, True, True]
    clock.advance(10)
    assert [await desk.works(secret) for secret in (first, second, third)] == [False, True, True]
    key, fourth = await desk.rotate(tenant.founder(), key, 0)
    assert [await desk.works(secret) for secret in (first, second, third, fourth)] == [False, False, False, True]
    told = [event for event in await desk.events(tenant) if event.name == KEY_ROTATED]
    assert [event.data["earlier_secrets"] for event in told] == [
        {"before": 1, "until": clock.time()},
        {"before": 2, "until": clock.time() + 90},
        {"before": 3, "until": clock.time()},
    ]
    assert not [secret for secret in (first, second, third, fourth) if secret[15:-4] in repr(told)]


@pytest.mark.requirement("keys.rotation", "keys.revoked-answers-410")
async def test_revoking_and_expiry_end_every_secret(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    key, old = await desk.make(tenant.founder(), expires_at=rfc3339(clock.time() + 50))
    key, new = await desk.rotate(tenant.founder(), key)
    entry = await desk.entry(old)
    assert (entry.caller.until, entry.caller.superseded) == (clock.time() + 50, False)
    async with desk.database.unit_of_work() as uow:
        await revoke_key(uow, tenant.founder(), key.id)
    assert [(await desk.entry(secret)).status for secret in (old, new)] == ["revoked", "revoked"]
    with pytest.raises(Conflict):
        await desk.rotate(tenant.founder(), key)


@pytest.mark.requirement("keys.rotation-not-by-narrower")
async def test_a_narrower_key_rotates_no_wider_one(desk: Desk, tenant: Organization, operator: Organization) -> None:
    wide, _ = await desk.make(tenant.founder())
    for narrow in ({"scopes": ["write:keys"]}, {"scopes": ["admin"], "servers": []}, {"scopes": ["admin"], "allowed_ips": ["10.0.0.0/8"]}):
        _, secret = await desk.make(tenant.founder(), **narrow)
        caller = (await desk.entry(secret)).caller
        with pytest.raises(Forbidden):
            await desk.rotate(caller, wide)
    for stranger in (operator.founder(), tenant.founder("test")):
        with pytest.raises(KeyNotFound):
            await desk.rotate(stranger, wide)
    own, secret = await desk.make(tenant.founder(), scopes=["write:keys"])
    rotated, _ = await desk.rotate((await desk.entry(secret)).caller, own)
    assert rotated.generation == 1


@pytest.mark.requirement("keys.allowed-addresses", "keys.never-wider-than-its-maker")
async def test_addresses_are_inherited_and_never_widened(desk: Desk, tenant: Organization) -> None:
    _, secret = await desk.make(tenant.founder(), scopes=["write:keys"], allowed_ips=["10.0.0.0/8", "2001:db8::/32"])
    office = (await desk.entry(secret)).caller
    made, _ = await desk.make(office)
    assert made.allowed_ips == ("10.0.0.0/8", "2001:db8::/32")
    made, _ = await desk.make(office, allowed_ips=["10.1.0.0/16"])
    assert made.allowed_ips == ("10.1.0.0/16",)
    for wider in (None, ["0.0.0.0/0"], ["10.1.0.0/16", "192.0.2.1"]):
        with pytest.raises(Forbidden):
            await desk.make(office, allowed_ips=wider)
        with pytest.raises(Forbidden):
            async with desk.database.unit_of_work() as uow:
                await update_key(uow, office, made.id, KeyUpdate.model_validate({"allowed_ips": wider}))
    free, _ = await desk.make(tenant.founder(), scopes=["write:keys"])
    with pytest.raises(Forbidden):
        async with desk.database.unit_of_work() as uow:
            await revoke_key(uow, office, free.id)
    async with desk.database.unit_of_work() as uow:
        lifted = await update_key(uow, tenant.founder(), made.id, KeyUpdate.model_validate({"allowed_ips": None}))
    assert lifted.allowed_ips is None


@pytest.mark.requirement("keys.leaked")
async def test_a_leaked_key_is_revoked_at_once_and_reporting_again_changes_nothing(
    desk: Desk, tenant: Organization, clock: FakeClock
) -> None:
    key, secret = await desk.make(tenant.founder())
    _, other = await desk.make(tenant.founder())
    unknown, wrong = generate("public", "live"), secret[:-1] + ("a" if secret[-1] != "a" else "b")
    url = "https://example.com/commit?token=" + secret
    assert await desk.report(secret, unknown, wrong, "nonsense", url=url) == {secret}
    assert not await desk.works(secret) and await desk.works(other)
    async with desk.database.read() as connection:
        shown = await get_key(connection, tenant.founder(), key.id)
    assert (shown.status, shown.revoked_at) == ("revoked", clock.time())
    before = await desk.events(tenant)
    assert await desk.report(secret) == {secret}
    assert await desk.events(tenant) == before
    assert (before[-1].name, before[-1].data["reason"], before[-1].data["url"]) == (KEY_REVOKED, "leaked", "https://example.com/commit")


@pytest.mark.requirement("keys.leaked", "keys.rotation")
async def test_a_leaked_secret_that_was_replaced_ends_and_its_key_lives_on(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    key, first = await desk.make(tenant.founder())
    key, second = await desk.rotate(tenant.founder(), key)
    key, third = await desk.rotate(tenant.founder(), key)
    key, fourth = await desk.rotate(tenant.founder(), key)
    assert await desk.works(second)
    assert await desk.report(second) == {second}
    assert [await desk.works(secret) for secret in (first, second, third, fourth)] == [False, False, True, True]
    last = (await desk.events(tenant))[-1]
    assert (last.name, last.data["reason"], last.data["earlier_secrets"]) == (KEY_UPDATED, "leaked", {"before": 2, "until": clock.time()})
    assert await desk.report(second) == {second}
    assert (await desk.events(tenant))[-1] == last


@pytest.mark.requirement("keys.rotation")
async def test_of_two_rotations_at_once_each_replaces_the_secret_that_it_saw(desk: Desk, tenant: Organization) -> None:
    key, secret = await desk.make(tenant.founder())
    done = await asyncio.gather(*(desk.rotate(tenant.founder(), key) for _ in range(4)), return_exceptions=True)
    made = [each for each in done if not isinstance(each, BaseException)]
    assert made and all(isinstance(each, Conflict) for each in done if isinstance(each, BaseException))
    async with desk.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(retired_secret))).scalar_one() == len(made)
    assert all([await desk.works(each) for each in (secret, *(new for _, new in made))])
