"""The directory of profiles: what a call at a profile's endpoint is told."""

from dataclasses import replace

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy.engine import Connection

from plughub.identity.service import Organization
from plughub.kit.errors import ProfileNotFound
from plughub.profiles.directory import ProfileDirectory
from plughub.servers.service import delete_server, update_server
from plughub.settings import Settings
from tests.profiles.conftest import Desk

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(desk: Desk, settings: Settings) -> ProfileDirectory:
    return ProfileDirectory(desk.database, settings)


@pytest.mark.requirement("projects.directory")
async def test_what_is_in_a_profile_comes_from_memory_once_it_was_asked(
    desk: Desk, tenant: Organization, directory: ProfileDirectory
) -> None:
    caller = tenant.founder()
    server = await desk.server(caller, "s")
    profile = await desk.profile(caller, "Mine")
    await desk.put(caller, profile.id, server.id, tools={"echo": {"name": "say"}})
    assert directory.find(caller, "mine") is None
    found = await directory.resolve(caller, "mine")
    assert found == await desk.get(caller, profile.id)
    assert found.members[server.id].overrides.own_name("say") == "echo"
    statements: list[str] = []

    def note(_c: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sql_event.listen(desk.database.read().engine.sync_engine, "before_cursor_execute", note)
    assert directory.find(caller, "mine") is found
    assert await directory.resolve(caller, "mine") is found
    for _ in range(2):
        with pytest.raises(ProfileNotFound):
            await directory.resolve(caller, "unknown")
    assert len(statements) == 1, "what is not there is remembered too"


@pytest.mark.requirement("projects.directory", "routes.foreign-is-missing", "projects.grant")
async def test_foreign_profiles_look_missing_and_a_server_list_is_kept_in_memory_or_not(
    desk: Desk, tenant: Organization, operator: Organization, directory: ProfileDirectory
) -> None:
    caller = tenant.founder()
    mine, other = await desk.server(caller, "mine"), await desk.server(caller, "other")
    profile = await desk.profile(caller, "P")
    for server in (mine, other):
        await desk.put(caller, profile.id, server.id)
    listed = replace(caller, servers=frozenset({mine.id}))
    for _ in range(2):
        for foreign in (operator.founder(), tenant.founder("test"), replace(caller, servers=frozenset())):
            assert directory.find(foreign, "p") is None
            with pytest.raises(ProfileNotFound) as raised:
                await directory.resolve(foreign, "p")
            assert raised.value.details == {}
        assert list((await directory.resolve(listed, "p")).members) == [mine.id]
        assert list((await directory.resolve(caller, "p")).members) == [mine.id, other.id]
    found = directory.find(listed, "p")
    assert found is not None and list(found.members) == [mine.id]


@pytest.mark.requirement("projects.directory", "data.caches-follow-the-log")
async def test_every_change_is_seen_when_its_unit_of_work_has_ended(desk: Desk, tenant: Organization, directory: ProfileDirectory) -> None:
    caller = tenant.founder()

    async def seen(slug: str) -> list[tuple[str, bool, bool, dict[str, object]]]:
        found = await directory.resolve(caller, slug)
        return [(member.name, member.home, member.enabled, dict(member.overrides.shown())) for member in found.members.values()]

    with pytest.raises(ProfileNotFound):
        await directory.resolve(caller, "p")
    profile = await desk.profile(caller, "P")
    assert (await seen("p"), await seen("default")) == ([], [])
    server = await desk.server(caller, "s")
    assert await seen("default") == [("s", True, True, {})]
    await desk.put(caller, profile.id, server.id, tools={"a": {"enabled": False}})
    assert await seen("p") == [("s", False, True, {"a": {"enabled": False}})]
    await desk.put(caller, tenant.live_profile_id, server.id, enabled=False)
    assert await seen("default") == [("s", True, False, {})]
    await desk.work(lambda uow: update_server(uow, caller, server.id, {"name": "new"}, desk.sealer))
    assert (await seen("p"))[0][0] == "new"
    await desk.move(caller, server, profile)
    assert (await seen("default"), (await seen("p"))[0][:2]) == ([], ("new", True))
    await desk.change(caller, profile.id, name="Renamed")
    assert (await directory.resolve(caller, "p")).name == "Renamed"
    guest = await desk.server(caller, "guest")
    await desk.put(caller, profile.id, guest.id)
    await desk.take_out(caller, profile.id, guest.id)
    assert len(await seen("p")) == 1
    await desk.work(lambda uow: delete_server(uow, caller, server.id))
    assert await seen("p") == []
    await desk.remove(caller, profile.id)
    with pytest.raises(ProfileNotFound):
        await directory.resolve(caller, "p")


@pytest.mark.requirement("projects.directory", "data.caches-never-stale")
async def test_while_memory_cannot_be_trusted_the_database_is_asked(desk: Desk, tenant: Organization, settings: Settings) -> None:
    trusted = True
    directory = ProfileDirectory(desk.database, settings, trusted=lambda: trusted)
    caller = tenant.founder()
    first = await directory.resolve(caller, "default")
    trusted = False
    assert directory.find(caller, "default") is None
    again = await directory.resolve(caller, "default")
    assert again == first and again is not first
