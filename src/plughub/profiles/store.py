"""SQL of projects, profiles and the servers in them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Table, delete, exists, func, insert, literal, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import profile, profile_server, project, server, space
from plughub.db.unit_of_work import UnitOfWork

Grant = Collection[str] | None


async def lock_space(uow: UnitOfWork, space_id: str) -> None:
    """Projects and profiles of a space change one after the other; on SQLite the transaction itself is the lock."""
    await uow.execute(select(space.c.id).where(space.c.id == space_id).with_for_update(key_share=True))


async def lock_servers(uow: UnitOfWork, profile_ids: Sequence[str]) -> None:
    """Hold the servers of the profiles, before the space: whoever changes a server takes both in this order."""
    spoken_of = select(profile_server.c.server_id).where(profile_server.c.profile_id.in_(profile_ids))
    of_them = or_(server.c.profile_id.in_(profile_ids), server.c.id.in_(spoken_of))
    await uow.execute(select(server.c.id).where(of_them).order_by(server.c.id).with_for_update())


async def lock_server(uow: UnitOfWork, server_id: str, space_id: str) -> RowMapping | None:
    """A server of the space, `slug, name, profile_id`; it stays as it is until the commit."""
    query = select(server.c.slug, server.c.name, server.c.profile_id).where(server.c.id == server_id, server.c.space_id == space_id)
    found: RowMapping | None = (await uow.execute(query.with_for_update(read=True))).mappings().first()
    return found


async def insert_row(uow: UnitOfWork, table: Table, values: Mapping[str, Any]) -> None:
    """One row."""
    await uow.execute(insert(table).values(**values))


async def update_row(uow: UnitOfWork, table: Table, id_: str, values: Mapping[str, Any]) -> None:
    """Change columns of one project or profile."""
    await uow.execute(update(table).where(table.c.id == id_).values(**values))


async def delete_rows(uow: UnitOfWork, table: Table, ids: Sequence[str]) -> None:
    """Remove projects, or profiles with what they say of servers."""
    await uow.execute(delete(table).where(table.c.id.in_(ids)))


async def list_slugs(connection: AsyncConnection, space_id: str) -> set[str]:
    """Every slug of a profile of the space."""
    return set((await connection.execute(select(profile.c.slug).where(profile.c.space_id == space_id))).scalars())


async def find_project(connection: AsyncConnection, space_id: str, project_id: str | None, granted: Grant) -> RowMapping | None:
    """A project of the space, or its default one, with `default_profile_id`; one in which the grant includes nothing is not found."""
    chosen = project.c.is_default if project_id is None else project.c.id == project_id
    query = _projects().where(chosen, *_project_conditions(space_id, granted))
    found: RowMapping | None = (await connection.execute(query)).mappings().first()
    return found


async def list_projects(
    connection: AsyncConnection, space_id: str, granted: Grant, limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """The projects of the space in the order they were made, and how many there are."""
    conditions = _project_conditions(space_id, granted)
    total = (await connection.execute(select(func.count()).select_from(project).where(*conditions))).scalar_one()
    query = _projects().where(*conditions).order_by(project.c.created_at, project.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


async def find_profile(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> RowMapping | None:
    """One profile."""
    return (await connection.execute(select(profile).where(*conditions))).mappings().first()


async def default_profile_id(connection: AsyncConnection, space_id: str, project_id: str | None = None) -> str:
    """The default profile of a project, or of the space's default one."""
    chosen = project.c.is_default if project_id is None else project.c.id == project_id
    query = select(profile.c.id).join(project, project.c.id == profile.c.project_id)
    found: str = (await connection.execute(query.where(project.c.space_id == space_id, chosen, profile.c.is_default))).scalar_one()
    return found


async def list_profiles(
    connection: AsyncConnection, space_id: str, project_id: str | None, granted: Grant, limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """The profiles of the space, or of one project, in the order they were made, and how many there are."""
    conditions = [profile.c.space_id == space_id, *_holding(granted)]
    if project_id is not None:
        conditions.append(profile.c.project_id == project_id)
    total = (await connection.execute(select(func.count()).select_from(profile).where(*conditions))).scalar_one()
    query = select(profile).where(*conditions).order_by(profile.c.created_at, profile.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


async def list_profiles_of(connection: AsyncConnection, project_ids: Sequence[str], granted: Grant) -> Sequence[RowMapping]:
    """The profiles of the projects in the order they were made."""
    if not project_ids:
        return ()
    query = select(profile).where(profile.c.project_id.in_(project_ids), *_holding(granted)).order_by(profile.c.created_at, profile.c.id)
    return (await connection.execute(query)).mappings().all()


async def list_homes(connection: AsyncConnection, profile_ids: Sequence[str]) -> Sequence[RowMapping]:
    """Id, slug and name of the servers at home in the profiles, by slug."""
    query = select(server.c.id, server.c.slug, server.c.name).where(server.c.profile_id.in_(profile_ids)).order_by(server.c.slug)
    return (await connection.execute(query)).mappings().all()


async def list_members(connection: AsyncConnection, profile_ids: Sequence[str]) -> Sequence[RowMapping]:
    """The servers of the profiles by slug: `profile_id, id, slug, name, home, enabled, tools`; the last two are null unless set."""
    if not profile_ids:
        return ()
    own = profile_server.c
    at_home = (
        select(server.c.profile_id, server.c.id, server.c.slug, server.c.name, literal(True).label("home"), own.enabled, own.tools)
        .outerjoin(profile_server, (own.profile_id == server.c.profile_id) & (own.server_id == server.c.id))
        .where(server.c.profile_id.in_(profile_ids))
    )
    included = (
        select(own.profile_id, server.c.id, server.c.slug, server.c.name, literal(False).label("home"), own.enabled, own.tools)
        .join(server, server.c.id == own.server_id)
        .where(own.profile_id.in_(profile_ids), own.included, server.c.profile_id != own.profile_id)
    )
    return (await connection.execute(union_all(at_home, included).order_by("slug"))).mappings().all()


async def find_settings(connection: AsyncConnection, profile_id: str, server_id: str) -> RowMapping | None:
    """What the profile says of the server, in force or not."""
    query = select(profile_server).where(profile_server.c.profile_id == profile_id, profile_server.c.server_id == server_id)
    return (await connection.execute(query)).mappings().first()


async def replace_settings(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """What the profile says of the server from now on."""
    await delete_settings(uow, values["profile_id"], values["server_id"])
    await uow.execute(insert(profile_server).values(**values))


async def delete_settings(uow: UnitOfWork, profile_id: str, server_id: str) -> None:
    """The profile says nothing of the server any more."""
    await uow.execute(delete(profile_server).where(profile_server.c.profile_id == profile_id, profile_server.c.server_id == server_id))


def _projects() -> Select[Any]:
    default = (profile.c.project_id == project.c.id) & profile.c.is_default
    return select(project, profile.c.id.label("default_profile_id")).join(profile, default)


def _project_conditions(space_id: str, granted: Grant) -> list[ColumnElement[bool]]:
    conditions = [project.c.space_id == space_id]
    if granted is not None:
        own = profile.alias()
        conditions.append(exists().where(own.c.project_id == project.c.id, *_holding(granted, own)))
    return conditions


def _holding(granted: Grant, table: Any = profile) -> list[ColumnElement[bool]]:
    """That a profile holds a server of the grant; None = any profile will do."""
    if granted is None:
        return []
    own = profile_server.c
    return [
        or_(
            exists().where(server.c.profile_id == table.c.id, server.c.id.in_(granted)),
            exists().where(own.profile_id == table.c.id, own.included, own.server_id.in_(granted)),
        )
    ]
