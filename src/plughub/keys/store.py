"""SQL of API keys and their server grants."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import api_key, key_server, organization, server
from plughub.db.unit_of_work import UnitOfWork

_COLUMNS = tuple(column for column in api_key.c if column.name not in ("digest", "pepper_version", "allowed_ips"))


async def insert_key(uow: UnitOfWork, values: Mapping[str, Any], servers: Sequence[str] | None) -> None:
    """A key and its grant (None = all servers)."""
    await uow.execute(insert(api_key).values(**values, all_servers=servers is None))
    await _insert_grant(uow, values["id"], servers)


async def update_key(uow: UnitOfWork, key_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one key."""
    if values:
        await uow.execute(update(api_key).where(api_key.c.id == key_id).values(**values))


async def replace_grant(uow: UnitOfWork, key_id: str, servers: Sequence[str] | None) -> None:
    """Set the grant (None = all servers)."""
    await uow.execute(delete(key_server).where(key_server.c.key_id == key_id))
    await uow.execute(update(api_key).where(api_key.c.id == key_id).values(all_servers=servers is None))
    await _insert_grant(uow, key_id, servers)


async def find_key(connection: AsyncConnection, key_id: str, space_id: str) -> Row[Any] | None:
    """A key of a space."""
    return (await connection.execute(select(*_COLUMNS).where(api_key.c.id == key_id, api_key.c.space_id == space_id))).first()


async def list_keys(
    connection: AsyncConnection, space_id: str, where: Sequence[ColumnElement[bool]], limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """The keys of a space in the order they were made, and how many there are."""
    conditions = (api_key.c.space_id == space_id, *where)
    total = (await connection.execute(select(func.count()).select_from(api_key).where(*conditions))).scalar_one()
    query = select(*_COLUMNS).where(*conditions).order_by(api_key.c.created_at, api_key.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).all(), total


async def list_grants(connection: AsyncConnection, key_ids: Sequence[str]) -> dict[str, list[str]]:
    """The granted servers of each key that has a list."""
    grants: dict[str, list[str]] = {key_id: [] for key_id in key_ids}
    if not key_ids:
        return grants
    query = select(key_server.c.key_id, key_server.c.server_id).where(key_server.c.key_id.in_(key_ids)).order_by(key_server.c.server_id)
    for key_id, server_id in await connection.execute(query):
        grants[key_id].append(server_id)
    return grants


async def list_known_servers(connection: AsyncConnection, space_id: str, server_ids: Sequence[str]) -> set[str]:
    """Those of `server_ids` that exist in the space."""
    if not server_ids:
        return set()
    query = select(server.c.id).where(server.c.space_id == space_id, server.c.id.in_(server_ids))
    return set((await connection.execute(query)).scalars())


async def find_by_digest(connection: AsyncConnection, digests: Sequence[bytes]) -> RowMapping | None:
    """The key behind one of the digests, with what its organisation may do."""
    query = (
        select(
            *_COLUMNS,
            organization.c.tier,
            organization.c.operator,
            organization.c.stdio_allowed,
            organization.c.hourly_limit,
            organization.c.burst_limit,
            organization.c.concurrency_limit,
        )
        .join(organization, organization.c.id == api_key.c.organization_id)
        .where(api_key.c.digest.in_(digests))
    )
    return (await connection.execute(query)).mappings().first()


async def _insert_grant(uow: UnitOfWork, key_id: str, servers: Sequence[str] | None) -> None:
    if servers:
        await uow.execute(insert(key_server), [{"key_id": key_id, "server_id": server_id} for server_id in servers])
