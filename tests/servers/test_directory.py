"""The directory of servers: what a call is told about its target."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from plughub.db.engine import Database
from plughub.identity.service import Organization, update_organization
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import NotFound, NotPermitted
from plughub.kit.ids import new_id
from plughub.servers.directory import ServerDirectory
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.service import create_server, delete_server, update_server
from plughub.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(database: Database, sealer: Sealer, settings: Settings) -> ServerDirectory:
    return ServerDirectory(database, sealer, settings)


async def create(database: Database, sealer: Sealer, caller: Caller, name: str = "s", **config: object) -> Server:
    kind = "STDIO" if "command" in config else "STREAMABLE_HTTP"
    body = ServerCreate(name=name, type=kind, config=config or {"url": "http://h"})  # type: ignore[arg-type]
    async with database.unit_of_work() as uow:
        return await create_server(uow, caller, body, sealer)


async def test_target_holds_all_that_is_needed_to_reach_the_server(
    database: Database, sealer: Sealer, operator: Organization, directory: ServerDirectory
) -> None:
    caller = operator.founder()
    server = await create(database, sealer, caller, command="npx", args=["-y"], env={"A": "b"}, secret_args=["s"])
    assert directory.find(caller, server.id) is None
    target = await directory.visible(caller, server.id)
    assert directory.find(caller, server.id) is target
    assert (target.server_id, target.space_id, target.organization_id, target.slug) == (server.id, caller.space_id, operator.id, "s")
    assert (target.transport, target.command, target.args, target.secret_args) == ("STDIO", "npx", ("-y",), ("s",))
    assert (target.env, target.revision) == ({"A": "b"}, 1)
    assert target.call_timeout_s is target.start_timeout_s is None
    web = await create(database, sealer, caller, url="http://h", headers={"K": "v"}, call_timeout_ms=1500, startTimeoutMs=250)
    target = await directory.visible(caller, web.id)
    assert (target.call_timeout_s, target.start_timeout_s) == (1.5, 0.25)
    assert (target.url, target.headers, target.command) == ("http://h", {"K": "v"}, "")


@pytest.mark.requirement("routes.foreign-is-missing", "keys.grant-excludes-answers-403")
async def test_foreign_server_looks_missing_and_an_ungranted_one_forbidden_in_memory_or_not(
    database: Database, sealer: Sealer, operator: Organization, tenant: Organization, directory: ServerDirectory
) -> None:
    server = await create(database, sealer, tenant.founder())
    ungranted = replace(tenant.founder(), servers=frozenset())
    for _ in range(2):
        texts = []
        for caller, id_ in ((operator.founder(), server.id), (tenant.founder("test"), server.id), (tenant.founder(), new_id())):
            assert directory.find(caller, id_) is None
            with pytest.raises(NotFound) as raised:
                await directory.visible(caller, id_)
            texts.append((str(raised.value), raised.value.details))
        assert texts == [texts[0]] * 3
        assert directory.find(ungranted, server.id) is None
        with pytest.raises(NotPermitted):
            await directory.visible(ungranted, server.id)
        await directory.visible(tenant.founder(), server.id)


@pytest.mark.requirement("servers.private-addresses")
async def test_private_addresses_are_the_operators_and_for_others_those_of_the_settings(
    database: Database, sealer: Sealer, operator: Organization, tenant: Organization, settings: Settings
) -> None:
    networks = (ip_network("10.1.0.0/16"),)
    directory = ServerDirectory(database, sealer, settings.model_copy(update={"allow_private_addresses": networks}))
    for organization, expected in ((operator, None), (tenant, networks)):
        server = await create(database, sealer, organization.founder())
        assert (await directory.visible(organization.founder(), server.id)).private_networks == expected


@pytest.mark.requirement("data.caches-follow-the-log")
async def test_every_change_is_seen_when_its_unit_of_work_has_ended(
    database: Database, sealer: Sealer, tenant: Organization, directory: ServerDirectory
) -> None:
    caller = tenant.founder()

    async def slugs() -> list[str]:
        return [target.slug for target in await directory.list_visible(caller)]

    assert await slugs() == []
    one = await create(database, sealer, caller, "zeta")
    two = await create(database, sealer, caller, "alpha")
    assert await slugs() == ["alpha", "zeta"]
    await directory.visible(caller, one.id)
    async with database.unit_of_work() as uow:
        await update_server(uow, caller, one.id, {"config": {"url": "http://new"}, "enabled": False}, sealer)
    target = await directory.visible(caller, one.id)
    assert (target.url, target.revision, target.enabled) == ("http://new", 2, False)
    assert await slugs() == ["alpha", "zeta"]
    async with database.unit_of_work() as uow:
        await delete_server(uow, caller, one.id)
    assert directory.find(caller, one.id) is None
    with pytest.raises(NotFound):
        await directory.visible(caller, one.id)
    assert await slugs() == ["alpha"]
    async with database.unit_of_work() as uow:
        await update_organization(uow, tenant.id, tier="pro")
    assert await slugs() == ["alpha"]
    assert (await directory.find_slug(caller, "alpha")) == await directory.visible(caller, two.id)
    assert await directory.find_slug(caller, "zeta") is None
    assert await directory.find_slug(replace(caller, servers=frozenset()), "alpha") is None
    assert [target.server_id for target in await directory.list_visible(replace(caller, servers=frozenset({two.id})))] == [two.id]
    assert await directory.list_visible(replace(caller, servers=frozenset())) == []
