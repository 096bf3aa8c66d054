"""Who may register what, and what a change does."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from plughub.api.servers import shown
from plughub.db.engine import Database
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.kit.caller import Caller
from plughub.kit.crypto import SealBroken, Sealer
from plughub.kit.errors import Forbidden, Invalid, NotPermitted, ServerNotFound
from plughub.kit.ids import new_id
from plughub.servers.schemas import Server, ServerCreate, checked
from plughub.servers.service import create_server, delete_server, get_server, list_servers, update_server
from plughub.servers.status import ServerState
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio

HTTP = {
    "name": "Web",
    "type": "STREAMABLE_HTTP",
    "config": {"url": "https://example.com/mcp?key=k", "headers": {"Authorization": "Bearer s3cret"}},
}
STDIO = {
    "name": "Local",
    "type": "STDIO",
    "config": {"command": "npx", "args": ["-y"], "env": {"TOKEN": "s3cret"}, "secret_args": ["s3cret"]},
}


class Desk:
    """Registers and changes servers, each in a unit of work of its own."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer

    async def create(self, caller: Caller, base: dict[str, Any] = HTTP, **fields: Any) -> Server:
        body = checked(ServerCreate, {**base, **fields})
        async with self.database.unit_of_work() as uow:
            return await create_server(uow, caller, body, self.sealer)

    async def update(self, caller: Caller, server: Server, **patch: Any) -> Server:
        async with self.database.unit_of_work() as uow:
            return await update_server(uow, caller, server.id, patch, self.sealer)

    async def delete(self, caller: Caller, server: Server) -> None:
        async with self.database.unit_of_work() as uow:
            await delete_server(uow, caller, server.id)

    async def get(self, caller: Caller, server: Server) -> Server:
        async with self.database.read() as connection:
            return await get_server(connection, caller, server.id, self.sealer)

    async def names(self, caller: Caller, limit: int = 1000, offset: int = 0) -> tuple[list[str], int]:
        async with self.database.read() as connection:
            page = await list_servers(connection, caller, self.sealer, limit=limit, offset=offset)
        return [server.name for server in page.items], page.total


@pytest.fixture
def desk(database: Database, sealer: Sealer) -> Desk:
    return Desk(database, sealer)


@pytest.mark.requirement("servers.create", "servers.secrets-at-rest")
async def test_registered_server_is_kept_sealed_and_read_back(desk: Desk, operator: Organization) -> None:
    caller = operator.founder()
    for base in (HTTP, STDIO):
        server = await desk.create(caller, base, description="d")
        assert await desk.get(caller, server) == server
        assert (server.revision, server.enabled, server.description) == (1, True, "d")
        assert server.profile_id == operator.live_profile_id
        assert "s3cret" not in repr(server)
        assert "s3cret" not in repr(shown(server, ServerState()))
    async with desk.database.read() as connection:
        kept = repr(
            (await connection.execute(text("SELECT * FROM server"))).all() + (await connection.execute(text("SELECT * FROM event"))).all()
        )
    assert "s3cret" not in kept


@pytest.mark.requirement("servers.secrets-at-rest")
async def test_sealed_configuration_copied_to_another_row_does_not_open(desk: Desk, operator: Organization) -> None:
    caller = operator.founder()
    one, two = await desk.create(caller), await desk.create(caller)
    async with desk.database.unit_of_work() as uow:
        await uow.execute(text("UPDATE server SET sealed_config = (SELECT sealed_config FROM server WHERE id = :one)"), {"one": one.id})
    assert await desk.get(caller, one) == one
    with pytest.raises(SealBroken):
        await desk.get(caller, two)


@pytest.mark.requirement("servers.stdio-is-the-operators")
async def test_stdio_is_for_the_operator_and_those_it_allows(desk: Desk, operator: Organization, tenant: Organization) -> None:
    await desk.create(operator.founder(), STDIO)
    await desk.create(replace(tenant.founder(), stdio_allowed=True), STDIO)
    with pytest.raises(Forbidden) as raised:
        await desk.create(tenant.founder(), STDIO)
    assert raised.value.details == {"reason": "stdio_not_allowed"}
    server = await desk.create(tenant.founder())
    with pytest.raises(Forbidden):
        await desk.update(tenant.founder(), server, type="STDIO", config={"command": "sh"})


@pytest.mark.requirement("keys.listed-grant-cannot-create-servers")
async def test_key_with_a_server_list_cannot_create(desk: Desk, operator: Organization) -> None:
    with pytest.raises(Forbidden) as raised:
        await desk.create(replace(operator.founder(), servers=frozenset()))
    assert raised.value.details == {"reason": "server_list"}


@pytest.mark.requirement("routes.foreign-is-missing", "keys.environments-apart", "keys.grant-excludes-answers-403")
async def test_foreign_servers_look_missing_and_ungranted_ones_forbidden(desk: Desk, operator: Organization, tenant: Organization) -> None:
    server = await desk.create(tenant.founder())
    ungranted = replace(tenant.founder(), servers=frozenset({new_id()}))
    missing = replace(server, id=new_id())
    cases: list[tuple[Caller, Server, type[Exception]]] = [
        (operator.founder(), server, ServerNotFound),
        (tenant.founder("test"), server, ServerNotFound),
        (tenant.founder(), missing, ServerNotFound),
        (ungranted, server, NotPermitted),
        (ungranted, missing, ServerNotFound),
    ]
    for caller, target, error in cases:
        for act in (desk.get(caller, target), desk.update(caller, target, name="x"), desk.delete(caller, target)):
            with pytest.raises(error) as raised:
                await act
            assert type(raised.value) is error
        assert (await desk.names(caller))[1] == (1 if caller == tenant.founder() else 0)
    assert await desk.get(tenant.founder(), server) == server


@pytest.mark.requirement("servers.slug")
async def test_names_repeat_and_slugs_do_not_and_a_rename_keeps_the_slug(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    servers = await asyncio.gather(*(desk.create(caller, name="My Server") for _ in range(5)))
    assert sorted(server.slug for server in servers) == ["my-server", "my-server-2", "my-server-3", "my-server-4", "my-server-5"]
    assert (await desk.create(tenant.founder("test"), name="My Server")).slug == "my-server"
    renamed = await desk.update(caller, servers[0], name="Another")
    assert (renamed.name, renamed.slug, renamed.revision) == ("Another", servers[0].slug, 1)


@pytest.mark.requirement("servers.merge-patch", "servers.masked-value-keeps-the-secret")
async def test_update_merges_and_a_new_configuration_is_a_new_revision(desk: Desk, operator: Organization, clock: FakeClock) -> None:
    caller = operator.founder()
    server = await desk.create(caller, STDIO)
    clock.advance(5)
    after = await desk.update(caller, server, config={"env": {"TOKEN": "***", "NEW": "1"}, "args": ["-q"]})
    expected = {"command": "npx", "args": ["-q"], "env": {"TOKEN": "s3cret", "NEW": "1"}, "secret_args": ["s3cret"]}
    assert after == replace(server, config=expected, revision=2, updated_at=clock.time())
    assert await desk.get(caller, server) == after
    after = await desk.update(caller, server, config={"env": {"TOKEN": None}, "secret_args": None}, description="new", enabled=False)
    assert (after.config["env"], after.config["secret_args"], after.revision, after.enabled) == ({"NEW": "1"}, [], 3, False)
    clock.advance(5)
    assert await desk.update(caller, server, name=after.name, config={"command": "npx"}) == after


@pytest.mark.requirement("servers.own-times")
async def test_times_of_a_server_are_kept_and_their_change_is_no_new_revision(desk: Desk, operator: Organization) -> None:
    caller = operator.founder()
    for base in (HTTP, STDIO):
        server = await desk.create(caller, base)
        assert "call_timeout_ms" not in server.config
        slower = await desk.update(caller, server, config={"callTimeoutMs": 300_000, "start_timeout_ms": 1})
        assert slower.config == {**server.config, "call_timeout_ms": 300_000, "start_timeout_ms": 1}
        assert slower.revision == 1
        assert (await desk.get(caller, server)).config == slower.config
        assert (await desk.update(caller, slower, config={"call_timeout_ms": None, "startTimeoutMs": None})).config == server.config


async def test_another_type_begins_with_an_empty_configuration(desk: Desk, operator: Organization) -> None:
    caller = operator.founder()
    server = await desk.create(caller, STDIO)
    after = await desk.update(caller, server, type="SSE", config={"url": "http://h/sse"})
    assert (after.transport, after.config, after.revision) == ("SSE", {"url": "http://h/sse", "headers": {}}, 2)
    with pytest.raises(Invalid):
        await desk.update(caller, after, type="STDIO")


@pytest.mark.requirement("servers.secrets-stay-with-their-address")
async def test_stored_secrets_are_not_sent_to_an_address_that_a_change_chooses(desk: Desk, operator: Organization) -> None:
    caller = operator.founder()
    web, local = await desk.create(caller), await desk.create(caller, STDIO)
    refused: list[tuple[Server, dict[str, Any], str]] = [
        (web, {"config": {"url": "https://evil/mcp"}}, "config.headers"),
        (web, {"type": "SSE", "config": {"url": "https://evil/mcp", "headers": {"Authorization": "***"}}}, "config.headers"),
        (web, {"type": "SSE", "config": {"url": "https://evil/mcp?key=***"}}, "config.url"),
        (local, {"config": {"command": "curl", "secret_args": ["x"]}}, "config.env"),
        (local, {"config": {"command": "curl", "env": {"TOKEN": None}}}, "config.secret_args"),
    ]
    for server, patch, field in refused:
        with pytest.raises(Invalid) as raised:
            await desk.update(caller, server, **patch)
        assert raised.value.details["field"] == field
        assert "changes" in raised.value.text and "s3cret" not in str(raised.value.errors)
        assert await desk.get(caller, server) == server
    moved = await desk.update(caller, web, config={"url": "https://new/mcp", "headers": {"Authorization": "Bearer new"}})
    assert moved.config == {"url": "https://new/mcp", "headers": {"Authorization": "Bearer new"}}
    cleared = await desk.update(caller, local, config={"command": "curl", "env": None, "secretArgs": None})
    assert cleared.config == {"command": "curl", "args": ["-y"], "env": {}, "secret_args": []}


@pytest.mark.requirement("json.camel-and-snake-case")
async def test_a_change_is_read_in_both_spellings(desk: Desk, tenant: Organization, operator: Organization) -> None:
    local = await desk.create(operator.founder(), STDIO)
    changed = await desk.update(operator.founder(), local, profileUuid=operator.live_profile_id, config={"secretArgs": ["new"]})
    assert changed.config["secret_args"] == ["new"]
    with pytest.raises(Invalid) as raised:
        await desk.update(operator.founder(), local, profileUuid=tenant.live_profile_id)
    assert raised.value.details["field"] == "profile_uuid"
    with pytest.raises(Invalid):
        await desk.update(operator.founder(), local, config={"secretArgs": ["a"], "secret_args": ["b"]})


@pytest.mark.parametrize(
    ("base", "fields", "wrong"),
    [
        (HTTP, {"config": {}}, "config.url"),
        (HTTP, {"config": {"url": "ftp://h"}}, "config.url"),
        (HTTP, {"config": {"url": "http://"}}, "config.url"),
        (HTTP, {"config": {"url": "http://h:99999"}}, "config.url"),
        (HTTP, {"config": {"url": "http://h/ x"}}, "config.url"),
        (HTTP, {"config": {"url": "http://h/\r\nA: b"}}, "config.url"),
        (HTTP, {"config": {"url": "http://h", "command": "x"}}, "config.command"),
        (HTTP, {"config": {"url": "http://h", "headers": {"A b": "c"}}}, "config.headers"),
        (HTTP, {"config": {"url": "http://h", "headers": {"A": "b\r\nC: d"}}}, "config.headers"),
        (HTTP, {"config": {"url": "http://h", "headers": {"Host": "x"}}}, "config.headers"),
        (HTTP, {"config": {"url": "http://h", "headers": {"a": "1", "A": "2"}}}, "config.headers"),
        (HTTP, {"config": {"url": "http://h", "headers": {"a": "***"}}}, "config.headers.a"),
        (STDIO, {"config": {"command": ""}}, "config.command"),
        (STDIO, {"config": {"command": "x\0"}}, "config.command"),
        (STDIO, {"config": {"command": "x", "args": [1]}}, "config.args.0"),
        (STDIO, {"config": {"command": "x", "env": {"A=B": "c"}}}, "config.env"),
        (STDIO, {"config": {"command": "x", "env": {"A": 1}}}, "config.env.A"),
        (STDIO, {"config": "npx"}, "config"),
        (HTTP, {"config": {"url": "http://h", "call_timeout_ms": 0}}, "config.call_timeout_ms"),
        (HTTP, {"config": {"url": "http://h", "call_timeout_ms": True}}, "config.call_timeout_ms"),
        (HTTP, {"config": {"url": "http://h", "callTimeoutMs": 300_001}}, "config.callTimeoutMs"),
        (STDIO, {"config": {"command": "x", "start_timeout_ms": "5"}}, "config.start_timeout_ms"),
        (STDIO, {"config": {"command": "x", "start_timeout_ms": 1.5}}, "config.start_timeout_ms"),
        (HTTP, {"name": "  "}, "name"),
        (HTTP, {"type": "stdio"}, "type"),
        (HTTP, {"colour": "red"}, "colour"),
        (HTTP, {"profile_uuid": "x"}, "profile_uuid"),
        (HTTP, {"project_uuid": "01900000-0000-7000-8000-000000000000"}, "project_uuid"),
    ],
)
@pytest.mark.requirement("errors.invalid-field-is-named", "errors.unknown-field-is-400")
async def test_wrong_field_is_named_and_no_secret_repeated(
    desk: Desk, operator: Organization, base: dict[str, Any], fields: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(Invalid) as raised:
        await desk.create(operator.founder(), base, **fields)
    assert raised.value.details["field"] == wrong
    assert (await desk.names(operator.founder()))[1] == 0


async def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(Invalid) as raised:
        checked(ServerCreate, {"type": "SSE", "x": 1})
    assert {error["field"] for error in raised.value.errors} == {"name", "config", "x"}
    assert raised.value.errors[0]["message"] == "The 'name' field is required"


async def test_profile_of_another_space_is_unknown_and_both_spellings_are_taken(
    desk: Desk, operator: Organization, tenant: Organization
) -> None:
    server = await desk.create(tenant.founder(), profileUuid=tenant.live_profile_id)
    assert server.profile_id == tenant.live_profile_id
    for foreign in (operator.live_profile_id, tenant.test_profile_id):
        with pytest.raises(Invalid):
            await desk.create(tenant.founder(), profile_uuid=foreign)
        with pytest.raises(Invalid):
            await desk.update(tenant.founder(), server, profile_uuid=foreign)


@pytest.mark.requirement("servers.list-all-without-limit")
async def test_list_is_within_the_grant_in_the_order_of_registration(desk: Desk, tenant: Organization, clock: FakeClock) -> None:
    caller, servers = tenant.founder(), []
    for number in range(4):
        clock.advance(1)
        servers.append(await desk.create(caller, name=f"s{number}"))
    assert await desk.names(caller) == (["s0", "s1", "s2", "s3"], 4)
    assert await desk.names(caller, limit=2, offset=1) == (["s1", "s2"], 4)
    granted = replace(caller, servers=frozenset({servers[3].id, servers[0].id, new_id()}))
    assert await desk.names(granted) == (["s0", "s3"], 2)
    assert await desk.names(replace(caller, servers=frozenset())) == ([], 0)


async def test_every_change_is_told_with_its_names(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    server = await desk.create(caller)
    await desk.update(caller, server, name="Web")
    await desk.update(caller, server, name="New", config={"headers": {"A": "b"}})
    await desk.update(caller, server, name="Newer", config={"call_timeout_ms": 5})
    await desk.delete(caller, server)
    async with desk.database.read() as connection:
        told = await list_since(connection, tenant.live_space_id, 0)
    assert [(event.name, event.data.get("changed")) for event in told] == [
        ("server.created", None),
        ("server.updated", ["name", "config"]),
        ("server.updated", ["name", "call_timeout_ms"]),
        ("server.deleted", None),
    ]
    assert {event.server_id for event in told} == {server.id}
    assert told[3].data == {"server_uuid": server.id, "name": "Newer", "slug": "web", "type": "STREAMABLE_HTTP"}


def test_disabled_server_is_shown_as_disabled_whatever_it_was() -> None:
    server = Server("i", "s", "p", "slug", "n", "", "SSE", False, 1, 0.0, 0.0, {"url": "http://h", "headers": {}})
    assert shown(server, ServerState(status="connected", tools_count=3))["status"] == "disabled"
    assert shown(replace(server, enabled=True), ServerState(status="error", last_error="e"))["last_error"] == "e"
