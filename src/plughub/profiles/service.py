"""Rules of profiles: who sees which, and what a change does.

Every change holds the lock of its space, and before that the servers that it is about: whoever changes a server takes both in this
order too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.tables import profile
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import PROFILE_CREATED, PROFILE_DELETED, PROFILE_UPDATED, ProfileChanged
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, Forbidden, Invalid, ProfileNotFound
from plughub.kit.ids import new_id, parse_uuid
from plughub.kit.pagination import Page
from plughub.profiles import store
from plughub.profiles.overrides import overrides_of
from plughub.profiles.schemas import Member, Profile, ProfileCreate, ProfileUpdate
from plughub.servers.config import slugify
from plughub.servers.service import delete_server, move_server

Homeless = Literal["move", "delete"]
_COLUMNS = frozenset(Profile.__slots__) - {"members"}
_NAMED = 20


def require_all_servers(caller: Caller) -> None:
    """Raise Forbidden for a key with a server list: what it would change belongs to others too, and holds what it may not see."""
    if caller.servers is not None:
        raise Forbidden("A key with a server list cannot change projects and profiles", reason="server_list")


async def create_profile(uow: UnitOfWork, caller: Caller, body: ProfileCreate) -> Profile:
    """A profile without servers. Raises Forbidden (a key with a server list), Invalid."""
    require_all_servers(caller)
    await store.lock_space(uow, caller.space_id)
    project_id = await _project(uow.connection, caller, body.project_uuid)
    return await add_profile(uow, caller, project_id, body.name, body.description or "", is_default=False)


async def add_profile(uow: UnitOfWork, caller: Caller, project_id: str, name: str, description: str, *, is_default: bool) -> Profile:
    """A profile in a project of the caller's space, whose lock is held."""
    now = uow.clock.time()
    made = Profile(
        id=new_id(),
        space_id=caller.space_id,
        project_id=project_id,
        slug=slugify(name, await store.list_slugs(uow.connection, caller.space_id), "profile"),
        name=name,
        description=description,
        is_default=is_default,
        created_at=now,
        updated_at=now,
    )
    await store.insert_row(uow, profile, {column: getattr(made, column) for column in _COLUMNS})
    emit(uow, PROFILE_CREATED, made)
    uow.audit(deed(PROFILE_CREATED, made, {}, _audited(made)))
    return made


async def list_profiles(
    connection: AsyncConnection, caller: Caller, *, project_uuid: str | None = None, limit: int, offset: int
) -> Page[Profile]:
    """The profiles that the caller may see, oldest first; with a server list those that hold one of its servers. Raises Invalid."""
    project_id = None if project_uuid is None else await _project(connection, caller, project_uuid)
    rows, total = await store.list_profiles(connection, caller.space_id, project_id, caller.servers, limit, offset)
    return Page([seen for found in await with_members(connection, rows) if (seen := found.seen_by(caller))], total, limit, offset)


async def get_profile(connection: AsyncConnection, caller: Caller, profile_id: str) -> Profile:
    """The profile with the servers that the caller may use. Raises ProfileNotFound: missing, foreign and unseen look alike."""
    found = await with_members(connection, [await _row(connection, caller, profile_id)])
    seen = found[0].seen_by(caller)
    if seen is None:
        raise ProfileNotFound
    return seen


async def update_profile(uow: UnitOfWork, caller: Caller, profile_id: str, body: ProfileUpdate) -> Profile:
    """Change what is given. Raises ProfileNotFound, Forbidden, Invalid, Conflict (the default profile of a project stays in it)."""
    require_all_servers(caller)
    await store.lock_space(uow, caller.space_id)
    before = await get_profile(uow.connection, caller, profile_id)
    given: dict[str, Any] = {}
    if body.name is not None:
        given["name"] = body.name
    if "description" in body.model_fields_set:
        given["description"] = body.description or ""
    if body.project_uuid is not None:
        given["project_id"] = await _project(uow.connection, caller, body.project_uuid)
    changes = {column: value for column, value in given.items() if value != getattr(before, column)}
    if not changes:
        return before
    if "project_id" in changes and before.is_default:
        raise Conflict("The default profile of a project cannot leave it", hint="Make another profile in the other project")
    changes["updated_at"] = uow.clock.time()
    after = replace(before, **changes)
    await store.update_row(uow, profile, profile_id, changes)
    emit(uow, PROFILE_UPDATED, after, ["project_uuid" if name == "project_id" else name for name in changes if name != "updated_at"])
    uow.audit(deed(PROFILE_UPDATED, after, _audited(before), _audited(after)))
    return after


async def delete_profile(uow: UnitOfWork, caller: Caller, profile_id: str, servers: Homeless | None = None) -> None:
    """Remove a profile. `servers`: what becomes of those at home in it: to the default profile of its project, or removed too.

    Raises ProfileNotFound, Forbidden, Conflict (a default profile; or servers at home and nothing said of them).
    """
    require_all_servers(caller)
    await _row(uow.connection, caller, profile_id)
    await store.lock_servers(uow, [profile_id])
    await store.lock_space(uow, caller.space_id)
    row = await _row(uow.connection, caller, profile_id)
    if row["is_default"]:
        raise Conflict("The default profile of a project cannot be removed", hint="Remove the project, or change the profile")
    new_home_id = await store.default_profile_id(uow.connection, caller.space_id, row["project_id"])
    await remove_profiles(uow, caller, [row], servers, "profile", new_home_id)


async def remove_profiles(
    uow: UnitOfWork, caller: Caller, rows: Sequence[RowMapping], servers: Homeless | None, what: str, new_home_id: str
) -> None:
    """Remove profiles whose servers and space are locked; `what` is the word for what the caller removes. Raises Conflict."""
    ids = [row["id"] for row in rows]
    homes = await store.list_homes(uow.connection, ids)
    if homes and servers is None:
        raise Conflict(
            f"{len(homes)} server{'s are' if len(homes) > 1 else ' is'} at home in this {what}",
            servers=[{"uuid": home["id"], "slug": home["slug"], "name": home["name"]} for home in homes[:_NAMED]],
            hint="Add ?servers=move to move them to the default profile, or ?servers=delete to remove them too",
        )
    for home in homes:
        if servers == "move":
            await move_server(uow, caller, home["id"], new_home_id)
        else:
            await delete_server(uow, caller, home["id"])
    await store.delete_rows(uow, profile, ids)
    for removed in map(profile_of, rows):
        emit(uow, PROFILE_DELETED, removed)
        uow.audit(deed(PROFILE_DELETED, removed, _audited(removed), {}))


async def with_members(connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[Profile]:
    """The profiles of the rows with all their servers, whoever asks."""
    members: dict[str, dict[str, Member]] = {row["id"]: {} for row in rows}
    for found in await store.list_members(connection, list(members)):
        members[found["profile_id"]][found["id"]] = Member(
            server_id=found["id"],
            slug=found["slug"],
            name=found["name"],
            home=found["home"],
            enabled=found["enabled"] is not False,
            overrides=overrides_of(found["tools"] or {}),
        )
    return [replace(profile_of(row), members=members[row["id"]]) for row in rows]


def profile_of(row: RowMapping) -> Profile:
    """The profile of a row, without its servers."""
    return Profile(**{column: row[column] for column in _COLUMNS})


def emit(uow: UnitOfWork, name: str, about: Profile, changed: list[str] | None = None, server_id: str | None = None) -> None:
    """Say what happens to the profile; `server_id` when it is about a server in it."""
    data: ProfileChanged = {"profile_uuid": about.id, "project_uuid": about.project_id, "name": about.name, "slug": about.slug}
    if changed:
        data["changed"] = changed
    if server_id is not None:
        data["server_uuid"] = server_id
    uow.emit(name, space_id=about.space_id, server_id=server_id, data=data)


def deed(action: str, about: Profile, before: Mapping[str, Any], after: Mapping[str, Any]) -> Deed:
    """What is done to the profile, for the audit: its fields before and after."""
    return Deed(action, "profile", about.id, about.name, about.space_id, before=before, after=after)


def _audited(found: Profile) -> dict[str, Any]:
    return {"name": found.name, "slug": found.slug, "description": found.description, "project_uuid": found.project_id}


async def _row(connection: AsyncConnection, caller: Caller, profile_id: str) -> RowMapping:
    row = await store.find_profile(connection, profile.c.id == profile_id, profile.c.space_id == caller.space_id)
    if row is None:
        raise ProfileNotFound
    return row


async def _project(connection: AsyncConnection, caller: Caller, project_uuid: str | None) -> str:
    """The id of the project named, or of the default one."""
    project_id = None if project_uuid is None else parse_uuid(project_uuid)
    row = None
    if project_id is not None or project_uuid is None:
        row = await store.find_project(connection, caller.space_id, project_id, caller.servers)
    if row is None:
        raise Invalid("project_uuid", "The 'project_uuid' field is not a known id", project_uuid)
    found: str = row["id"]
    return found
