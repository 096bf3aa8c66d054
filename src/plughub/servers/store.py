"""SQL of servers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.registry_tables import registry_install
from plughub.db.tables import organization, profile, project, server, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.watch_tables import server_state


async def lock_space(uow: UnitOfWork, space_id: str) -> None:
    """One at a time gives out slugs in a space; on SQLite the transaction itself is the lock."""
    await uow.execute(select(space.c.id).where(space.c.id == space_id).with_for_update(key_share=True))


async def list_slugs(connection: AsyncConnection, space_id: str) -> set[str]:
    """Every slug of the space."""
    return set((await connection.execute(select(server.c.slug).where(server.c.space_id == space_id))).scalars())


async def list_names(connection: AsyncConnection, space_id: str) -> set[str]:
    """Every name and every slug of the space."""
    rows = await connection.execute(select(server.c.name, server.c.slug).where(server.c.space_id == space_id))
    return {word for row in rows for word in row}


async def insert_server(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """One row, and one of how it is."""
    await uow.execute(insert(server).values(**values))
    await uow.execute(insert(server_state).values(server_id=values["id"], failures=0))


async def update_server(uow: UnitOfWork, server_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one server."""
    await uow.execute(update(server).where(server.c.id == server_id).values(**values))


async def delete_server(uow: UnitOfWork, server_id: str) -> None:
    """The row and, by cascade, its place in key grants."""
    await uow.execute(delete(server).where(server.c.id == server_id))


async def find_origin(connection: AsyncConnection, server_id: str) -> RowMapping | None:
    """What of the registry a server came from, `name` and `version`."""
    query = select(registry_install.c.name, registry_install.c.version).where(registry_install.c.server_id == server_id)
    return (await connection.execute(query)).mappings().first()


async def find_server(connection: AsyncConnection, server_id: str, space_id: str, *, lock: bool = False) -> RowMapping | None:
    """A server of a space."""
    query = select(server).where(server.c.id == server_id, server.c.space_id == space_id)
    return (await connection.execute(query.with_for_update() if lock else query)).mappings().first()


async def list_servers(
    connection: AsyncConnection, space_id: str, granted: Collection[str] | None, limit: int | None, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """The servers of a space within a grant (None = all) in the order they were made, and how many there are; no limit = all."""
    conditions = [server.c.space_id == space_id]
    if granted is not None:
        conditions.append(server.c.id.in_(granted))
    total = (await connection.execute(select(func.count()).select_from(server).where(*conditions))).scalar_one()
    query = select(server).where(*conditions).order_by(server.c.created_at, server.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


async def list_sealed(connection: AsyncConnection, limit: int) -> Sequence[RowMapping]:
    """`id` and `sealed_config` of some servers of any space."""
    return (await connection.execute(select(server.c.id, server.c.sealed_config).limit(limit))).mappings().all()


async def find_profile(connection: AsyncConnection, space_id: str, profile_id: str | None, project_id: str | None) -> str | None:
    """The id of a profile of the space: the one named, or the default one of the project named, or the space's own default."""
    query = select(profile.c.id).where(profile.c.space_id == space_id)
    if profile_id is not None:
        query = query.where(profile.c.id == profile_id)
    elif project_id is not None:
        query = query.where(profile.c.project_id == project_id, profile.c.is_default)
    else:
        query = query.join(project, project.c.id == profile.c.project_id).where(profile.c.is_default, project.c.is_default)
    found: str | None = (await connection.execute(query)).scalar()
    return found


async def find_target(connection: AsyncConnection, server_id: str) -> RowMapping | None:
    """A server of any space, with whose it is."""
    found: RowMapping | None = (await connection.execute(_targets().where(server.c.id == server_id))).mappings().first()
    return found


async def list_targets(connection: AsyncConnection, space_id: str) -> Sequence[RowMapping]:
    """Every server of a space by slug, with whose it is."""
    rows: Sequence[RowMapping] = (
        (await connection.execute(_targets().where(server.c.space_id == space_id).order_by(server.c.slug))).mappings().all()
    )
    return rows


def _targets() -> Select[Any]:
    return (
        select(
            server.c.id,
            server.c.space_id,
            server.c.slug,
            server.c.transport,
            server.c.sealed_config,
            server.c.enabled,
            server.c.revision,
            server.c.capture,
            organization.c.id.label("organization_id"),
            organization.c.operator,
        )
        .join(space, space.c.id == server.c.space_id)
        .join(organization, organization.c.id == space.c.organization_id)
    )
