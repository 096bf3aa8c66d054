"""Who sees which projects and profiles, and what a change does. On both databases."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import RESTRICTING
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.kit.errors import Conflict, Forbidden, Invalid, NotFound, ProfileNotFound, ProjectNotFound, ServerNotFound
from plughub.kit.ids import new_id
from plughub.servers.service import delete_server
from tests.profiles.conftest import Desk

pytestmark = pytest.mark.anyio


async def happened(desk: Desk, space_id: str) -> list[Event]:
    async with desk.database.read() as connection:
        return [event for event in await list_since(connection, space_id, 0) if event.name.startswith(("project.", "profile."))]


@pytest.mark.requirement("projects.crud", "projects.slug")
async def test_a_project_begins_with_a_default_profile_that_has_its_name(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    made = await desk.project(caller, "Résearch  & more", description="d")
    assert await desk.get_project(caller, made.id) == made
    (first,) = made.profiles
    assert (first.id, first.name, first.slug, first.is_default) == (made.default_profile_id, "Résearch  & more", "research-more", True)
    assert await desk.project_names(caller) == ["Default", "Résearch  & more"]
    assert await desk.project_names(tenant.founder("test")) == ["Default"]
    changed = await desk.change_project(caller, made.id, name="Other", description=None)
    assert (changed.name, changed.description, changed.profiles) == ("Other", "", made.profiles)
    await desk.remove_project(caller, made.id)
    for again in (desk.get_project(caller, made.id), desk.get(caller, first.id), desk.remove_project(caller, made.id)):
        with pytest.raises(NotFound):
            await again


@pytest.mark.requirement("projects.profiles", "projects.slug")
async def test_slugs_of_profiles_are_unique_in_the_space_and_survive_a_rename(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    slugs = [(await desk.profile(caller, name)).slug for name in ("Default", "x" * 30, "x" * 40, "日本")]
    assert slugs == ["default-2", "x" * 24, "x" * 22 + "-2", "profile"]
    assert (await desk.profile(tenant.founder("test"), "日本")).slug == "profile"
    made = await desk.profile(caller, "First")
    desk.database.clock.advance(5)  # type: ignore[attr-defined]
    changed = await desk.change(caller, made.id, name="Second")
    assert (changed.slug, changed.name) == ("first", "Second")
    assert changed.updated_at == made.updated_at + 5
    assert await desk.change(caller, made.id, name="Second") == changed
    together = await asyncio.gather(*(desk.profile(caller, "Same") for _ in range(4)))
    assert {found.slug for found in together} == {"same", "same-2", "same-3", "same-4"}


@pytest.mark.requirement("projects.profiles")
async def test_profiles_are_listed_by_project_and_move_to_another_one(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    project = await desk.project(caller, "P")
    made = await desk.profile(caller, "A", project_uuid=project.id)
    assert await desk.names(caller) == ["Default", "P", "A"]
    assert await desk.names(caller, project_uuid=project.id) == ["P", "A"]
    assert await desk.names(caller, limit=1, offset=1) == ["P"]
    default = await desk.get(caller, tenant.live_profile_id)
    assert (await desk.change(caller, made.id, project_uuid=default.project_id)).project_id == default.project_id
    assert await desk.names(caller, project_uuid=project.id) == ["P"]
    with pytest.raises(Conflict):
        await desk.change(caller, project.default_profile_id, project_uuid=default.project_id)
    for unknown in ("nope", new_id(), (await desk.get(tenant.founder("test"), tenant.test_profile_id)).project_id):
        for refused in (
            desk.change(caller, made.id, project_uuid=unknown),
            desk.profile(caller, project_uuid=unknown),
            desk.names(caller, project_uuid=unknown),
        ):
            with pytest.raises(Invalid) as raised:
                await refused
            assert raised.value.details == {"field": "project_uuid", "value": unknown}


@pytest.mark.requirement("projects.crud", "projects.profiles")
async def test_defaults_stay(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    project = await desk.project(caller)
    default = await desk.get(caller, tenant.live_profile_id)
    for refused in (
        desk.remove(caller, default.id),
        desk.remove(caller, default.id, "move"),
        desk.remove(caller, project.default_profile_id, "delete"),
        desk.remove_project(caller, default.project_id, "delete"),
    ):
        with pytest.raises(Conflict):
            await refused


@pytest.mark.requirement("projects.homes")
async def test_a_profile_with_servers_at_home_is_removed_only_when_told_what_becomes_of_them(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    project = await desk.project(caller, "P")
    profile = await desk.profile(caller, "A", project_uuid=project.id)
    one, two = [await desk.server(caller, name, profile_uuid=profile.id) for name in ("one", "two")]
    guest = await desk.server(caller, "guest")
    await desk.put(caller, profile.id, guest.id)
    with pytest.raises(Conflict) as raised:
        await desk.remove(caller, profile.id)
    assert raised.value.text == "2 servers are at home in this profile"
    assert [told["slug"] for told in raised.value.details["servers"]] == ["one", "two"]
    with pytest.raises(Conflict) as raised:
        await desk.remove_project(caller, project.id)
    assert raised.value.text == "2 servers are at home in this project"
    await desk.remove(caller, profile.id, "move")
    assert {await desk.home_of(caller, server) for server in (one, two)} == {project.default_profile_id}
    assert await desk.home_of(caller, guest) == tenant.live_profile_id
    await desk.remove_project(caller, project.id, "move")
    assert {await desk.home_of(caller, server) for server in (one, two)} == {tenant.live_profile_id}
    other = await desk.project(caller, "Q")
    three = await desk.server(caller, "three", project_uuid=other.id)
    await desk.put(caller, other.default_profile_id, one.id)
    await desk.remove_project(caller, other.id, "delete")
    with pytest.raises(ServerNotFound):
        await desk.home_of(caller, three)
    assert await desk.home_of(caller, one) == tenant.live_profile_id


@pytest.mark.requirement("projects.references")
async def test_a_profile_includes_servers_by_reference_wherever_they_are_at_home(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    one, two = await desk.profile(caller, "one"), await desk.profile(caller, "two")
    server = await desk.server(caller, "s", profile_uuid=one.id)

    async def where() -> list[bool | None]:
        found = [(await desk.get(caller, id_)).members.get(server.id) for id_ in (one.id, two.id, tenant.live_profile_id)]
        return [None if member is None else member.home for member in found]

    assert await where() == [True, None, None]
    member = await desk.put(caller, two.id, server.id)
    assert (member.home, member.enabled, member.slug, member.name) == (False, True, "s", "s")
    assert await desk.put(caller, two.id, server.id) == member
    assert await where() == [True, False, None]
    await desk.put(caller, one.id, server.id, enabled=False)
    await desk.move(caller, server, two)
    assert await where() == [None, True, None], "what was said of it at home is no reference"
    with pytest.raises(Conflict):
        await desk.take_out(caller, two.id, server.id)
    await desk.move(caller, server, await desk.get(caller, tenant.live_profile_id))
    assert await where() == [None, False, True], "a reference outlives a stay at home"
    await desk.take_out(caller, two.id, server.id)
    assert await where() == [None, None, True]
    for missing in (desk.take_out(caller, two.id, server.id), desk.take_out(caller, two.id, new_id())):
        with pytest.raises(ServerNotFound):
            await missing
    await desk.put(caller, two.id, server.id)
    await desk.work(lambda uow: delete_server(uow, caller, server.id))
    assert await where() == [None, None, None]


@pytest.mark.requirement("projects.tool-settings")
async def test_settings_are_merged_and_null_takes_a_word_back(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    profile, server = await desk.profile(caller), await desk.server(caller)

    async def put(**given: Any) -> tuple[bool, dict[str, Any]]:
        member = await desk.put(caller, profile.id, server.id, **given)
        assert (await desk.get(caller, profile.id)).members[server.id] == member
        return member.enabled, member.overrides.shown()

    tools: dict[str, Any] = {"a": {"name": "say", "description": "d"}, "b": {"enabled": False}}
    assert await put(enabled=False, tools=tools) == (False, tools)
    assert await put(tools={"a": {"name": None}, "c": {"enabled": True}}) == (False, {"a": {"description": "d"}, "b": {"enabled": False}})
    assert await put(enabled=True, tools={"b": None}) == (True, {"a": {"description": "d"}})
    assert await put(enabled=None, tools=None) == (True, {})
    assert await put(tools={"a": {"name": "say"}}) == (True, {"a": {"name": "say"}})
    with pytest.raises(Invalid):
        await put(tools={"b": {"name": "say"}})
    with pytest.raises(Invalid):
        await put(names=("a", "c"), tools={"b": {"name": "c"}})


@pytest.mark.requirement("routes.foreign-is-missing", "keys.environments-apart", "projects.references")
async def test_what_is_foreign_looks_missing(desk: Desk, tenant: Organization, operator: Organization) -> None:
    caller = tenant.founder()
    profile, server, project = await desk.profile(caller), await desk.server(caller), await desk.project(caller)
    for foreign in (operator.founder(), tenant.founder("test")):
        own, own_server = await desk.profile(foreign), await desk.server(foreign)
        for refused, missing in (
            (desk.get(foreign, profile.id), ProfileNotFound),
            (desk.change(foreign, profile.id, name="x"), ProfileNotFound),
            (desk.remove(foreign, profile.id, "delete"), ProfileNotFound),
            (desk.put(foreign, profile.id, own_server.id), ProfileNotFound),
            (desk.put(foreign, own.id, server.id), ServerNotFound),
            (desk.take_out(foreign, own.id, server.id), ServerNotFound),
            (desk.get_project(foreign, project.id), ProjectNotFound),
            (desk.change_project(foreign, project.id, name="x"), ProjectNotFound),
            (desk.remove_project(foreign, project.id, "delete"), ProjectNotFound),
        ):
            with pytest.raises(missing):
                await refused
    assert list((await desk.get(caller, profile.id)).members) == []


@pytest.mark.requirement("projects.grant", "keys.empty-grant-is-nothing")
async def test_a_key_with_a_server_list_sees_where_its_servers_are_and_changes_nothing(desk: Desk, tenant: Organization) -> None:
    owner = tenant.founder()
    project = await desk.project(owner, "P")
    with_both, with_other = await desk.profile(owner, "both", project_uuid=project.id), await desk.profile(owner, "other")
    mine, other = await desk.server(owner, "mine", profile_uuid=with_both.id), await desk.server(owner, "other")
    for profile in (with_both, with_other):
        await desk.put(owner, profile.id, other.id)
    caller = replace(owner, servers=frozenset({mine.id}))
    assert await desk.names(caller) == ["both"]
    assert await desk.project_names(caller) == ["P"]
    assert [found.name for found in (await desk.get_project(caller, project.id)).profiles] == ["both"]
    assert list((await desk.get(caller, with_both.id)).members) == [mine.id]
    assert list((await desk.get(owner, with_both.id)).members) == [mine.id, other.id]
    for unseen in (desk.get(caller, with_other.id), desk.get_project(caller, (await desk.get(owner, with_other.id)).project_id)):
        with pytest.raises(NotFound):
            await unseen
    with pytest.raises(Invalid):
        await desk.names(caller, project_uuid=(await desk.get(owner, with_other.id)).project_id)
    assert await desk.names(replace(owner, servers=frozenset())) == []
    assert await desk.names(replace(owner, servers=frozenset({other.id}))) == ["Default", "both", "other"]
    for refused in (
        desk.project(caller),
        desk.change_project(caller, project.id, name="x"),
        desk.remove_project(caller, project.id, "delete"),
        desk.profile(caller),
        desk.change(caller, with_both.id, name="x"),
        desk.remove(caller, with_both.id, "delete"),
        desk.put(caller, with_both.id, mine.id, enabled=False),
        desk.take_out(caller, with_both.id, mine.id),
    ):
        with pytest.raises(Forbidden) as raised:
            await refused
        assert raised.value.details == {"reason": "server_list"}


@pytest.mark.requirement("projects.events")
async def test_every_change_is_an_event_and_no_change_is_none(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    project = await desk.project(caller, "P")
    profile = await desk.profile(caller, "A", project_uuid=project.id)
    server = await desk.server(caller)
    for _ in range(2):
        await desk.change_project(caller, project.id, name="Q")
        await desk.change(caller, profile.id, description="d", name="B")
        await desk.put(caller, profile.id, server.id, tools={"a": {"enabled": False}})
        await desk.put(caller, tenant.live_profile_id, server.id, enabled=True, tools={"a": {"name": "a"}})
    await desk.take_out(caller, profile.id, server.id)
    await desk.remove_project(caller, project.id)
    events = await happened(desk, caller.space_id)
    assert [(event.name, event.data.get("changed")) for event in events] == [
        ("project.created", None),
        ("profile.created", None),
        ("profile.created", None),
        ("project.updated", ["name"]),
        ("profile.updated", ["name", "description"]),
        ("profile.updated", ["servers"]),
        ("profile.updated", ["servers"]),
        ("profile.deleted", None),
        ("profile.deleted", None),
        ("project.deleted", None),
    ]
    told = {"profile_uuid": profile.id, "project_uuid": project.id, "name": "B", "slug": "a"}
    assert events[5].data == {**told, "changed": ["servers"], "server_uuid": server.id}
    assert events[5].server_id == server.id
    assert events[-1].data == {"project_uuid": project.id, "name": "Q"}
    assert {"profile.updated", "profile.deleted"} <= RESTRICTING


@pytest.mark.requirement("projects.homes")
async def test_removals_moves_and_settings_at_the_same_time_leave_every_server_a_home(desk: Desk, tenant: Organization) -> None:
    caller = tenant.founder()
    for _ in range(3):
        profile = await desk.profile(caller, "busy")
        servers = [await desk.server(caller, "s", profile_uuid=profile.id) for _ in range(3)]
        outside, guest = await desk.server(caller, "outside"), await desk.server(caller, "guest")
        await desk.put(caller, profile.id, guest.id)
        done = await asyncio.gather(
            desk.remove(caller, profile.id, "move"),
            *(desk.put(caller, profile.id, server.id, enabled=False) for server in servers),
            desk.put(caller, profile.id, outside.id),
            desk.work(partial(delete_server, caller=caller, server_id=guest.id)),
            desk.move(caller, outside, profile),
            desk.server(caller, "late", profile_uuid=profile.id),
            return_exceptions=True,
        )
        assert [fault for fault in done if isinstance(fault, Exception) and not isinstance(fault, NotFound | Invalid)] == []
        assert done[0] is None
        for server in (*servers, outside):
            assert await desk.home_of(caller, server) == tenant.live_profile_id
