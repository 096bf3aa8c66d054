"""Rules of projects. A project begins with a profile of its own, its default one, and takes its profiles along when it goes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.tables import project
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import PROJECT_CREATED, PROJECT_DELETED, PROJECT_UPDATED, ProjectChanged
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, ProjectNotFound
from plughub.kit.ids import new_id
from plughub.kit.pagination import Page
from plughub.profiles import store
from plughub.profiles.schemas import Project, ProjectCreate, ProjectUpdate
from plughub.profiles.service import Homeless, add_profile, profile_of, remove_profiles, require_all_servers

_COLUMNS = frozenset(Project.__slots__) - {"profiles"}


async def create_project(uow: UnitOfWork, caller: Caller, body: ProjectCreate) -> Project:
    """A project with its default profile, which has the project's name. Raises Forbidden (a key with a server list)."""
    require_all_servers(caller)
    await store.lock_space(uow, caller.space_id)
    now = uow.clock.time()
    values: dict[str, Any] = {
        "id": new_id(),
        "name": body.name,
        "description": body.description or "",
        "is_default": False,
        "created_at": now,
        "updated_at": now,
    }
    await store.insert_row(uow, project, {**values, "organization_id": caller.organization_id, "space_id": caller.space_id})
    _emit(uow, PROJECT_CREATED, caller, values["id"], body.name)
    first = await add_profile(uow, caller, values["id"], body.name, "", is_default=True)
    made = Project(**values, default_profile_id=first.id, profiles=(first,))
    uow.audit(_deed(PROJECT_CREATED, caller, None, made))
    return made


async def list_projects(connection: AsyncConnection, caller: Caller, *, limit: int, offset: int) -> Page[Project]:
    """The projects that the caller may see, oldest first; with a server list those that hold one of its servers."""
    rows, total = await store.list_projects(connection, caller.space_id, caller.servers, limit, offset)
    return Page(await _with_profiles(connection, caller, rows), total, limit, offset)


async def get_project(connection: AsyncConnection, caller: Caller, project_id: str) -> Project:
    """Raises ProjectNotFound: missing, foreign and unseen look alike."""
    row = await store.find_project(connection, caller.space_id, project_id, caller.servers)
    if row is None:
        raise ProjectNotFound
    return (await _with_profiles(connection, caller, [row]))[0]


async def update_project(uow: UnitOfWork, caller: Caller, project_id: str, body: ProjectUpdate) -> Project:
    """Change what is given. Raises ProjectNotFound, Forbidden (a key with a server list)."""
    require_all_servers(caller)
    await store.lock_space(uow, caller.space_id)
    before = await get_project(uow.connection, caller, project_id)
    given: dict[str, Any] = {}
    if body.name is not None:
        given["name"] = body.name
    if "description" in body.model_fields_set:
        given["description"] = body.description or ""
    changes = {column: value for column, value in given.items() if value != getattr(before, column)}
    if not changes:
        return before
    after = replace(before, **changes, updated_at=uow.clock.time())
    await store.update_row(uow, project, project_id, {**changes, "updated_at": after.updated_at})
    _emit(uow, PROJECT_UPDATED, caller, project_id, after.name, list(changes))
    uow.audit(_deed(PROJECT_UPDATED, caller, before, after))
    return after


async def delete_project(uow: UnitOfWork, caller: Caller, project_id: str, servers: Homeless | None = None) -> None:
    """Remove a project with its profiles. `servers`: what becomes of those at home in them: to the default profile of the default
    project, or removed too.

    Raises ProjectNotFound, Forbidden, Conflict (the default project; or servers at home and nothing said of them).
    """
    require_all_servers(caller)
    first = await get_project(uow.connection, caller, project_id)
    await store.lock_servers(uow, [found.id for found in first.profiles])
    await store.lock_space(uow, caller.space_id)
    found = await get_project(uow.connection, caller, project_id)
    if found.is_default:
        raise Conflict("The default project cannot be removed", hint="Change its name instead")
    rows = await store.list_profiles_of(uow.connection, [project_id], None)
    await remove_profiles(uow, caller, rows, servers, "project", await store.default_profile_id(uow.connection, caller.space_id))
    await store.delete_rows(uow, project, [project_id])
    _emit(uow, PROJECT_DELETED, caller, project_id, found.name)
    uow.audit(_deed(PROJECT_DELETED, caller, found, None))


async def _with_profiles(connection: AsyncConnection, caller: Caller, rows: Sequence[RowMapping]) -> list[Project]:
    projects = {row["id"]: Project(**{column: row[column] for column in _COLUMNS}) for row in rows}
    for row in await store.list_profiles_of(connection, list(projects), caller.servers):
        found = projects[row["project_id"]]
        projects[found.id] = replace(found, profiles=(*found.profiles, profile_of(row)))
    return list(projects.values())


def _deed(action: str, caller: Caller, before: Project | None, after: Project | None) -> Deed:
    sides = [{"name": side.name, "description": side.description} if side is not None else {} for side in (before, after)]
    about = after or before
    return Deed(
        action,
        "project",
        about.id if about is not None else None,
        about.name if about is not None else None,
        caller.space_id,
        before=sides[0],
        after=sides[1],
    )


def _emit(uow: UnitOfWork, event: str, caller: Caller, project_id: str, name: str, changed: list[str] | None = None) -> None:
    data: ProjectChanged = {"project_uuid": project_id, "name": name}
    if changed:
        data["changed"] = changed
    uow.emit(event, space_id=caller.space_id, data=data)
