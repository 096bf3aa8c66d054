"""SQL of collections."""

from collections.abc import Collection as Ids
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.collections.schemas import Collection
from plughub.db.collection_tables import collection, collection_server
from plughub.db.tables import organization, profile, server, space
from plughub.db.unit_of_work import UnitOfWork

Grant = Ids[str] | None
COLUMNS = tuple(collection.c[name] for name in Collection.__slots__ if name != "server_ids")


async def lock_space(uow: UnitOfWork, space_id: str) -> None:
    """One at a time makes collections in a space, so that their number stays bounded; on SQLite the transaction itself is the lock."""
    await uow.execute(select(space.c.id).where(space.c.id == space_id).with_for_update(key_share=True))


async def count(connection: AsyncConnection, space_id: str) -> int:
    """How many collections the space has."""
    found: int = (
        await connection.execute(select(func.count()).select_from(collection).where(collection.c.space_id == space_id))
    ).scalar_one()
    return found


async def insert_collection(uow: UnitOfWork, values: Mapping[str, Any], server_ids: Sequence[str]) -> None:
    """A collection with its servers."""
    await uow.execute(insert(collection).values(**values))
    await _insert_servers(uow, values["id"], server_ids)


async def update_collection(uow: UnitOfWork, collection_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one collection."""
    await uow.execute(update(collection).where(collection.c.id == collection_id).values(**values))


async def replace_servers(uow: UnitOfWork, collection_id: str, server_ids: Sequence[str]) -> None:
    """Other servers, in this order."""
    await uow.execute(delete(collection_server).where(collection_server.c.collection_id == collection_id))
    await _insert_servers(uow, collection_id, server_ids)


async def delete_collection(uow: UnitOfWork, collection_id: str) -> None:
    """The row and, by cascade, its list."""
    await uow.execute(delete(collection).where(collection.c.id == collection_id))


async def find_collection(
    connection: AsyncConnection, *conditions: ColumnElement[bool], granted: Grant = None, lock: bool = False
) -> RowMapping | None:
    """One collection; one in which the grant includes nothing is not found."""
    query = select(*COLUMNS).where(*conditions, *_holding(granted))
    found: RowMapping | None = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return found


async def list_collections(
    connection: AsyncConnection, space_id: str, profile_id: str | None, granted: Grant, limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """The collections of the space, or of one profile, in the order they were made, and how many there are."""
    conditions = [collection.c.space_id == space_id, *_holding(granted)]
    if profile_id is not None:
        conditions.append(collection.c.profile_id == profile_id)
    total = (await connection.execute(select(func.count()).select_from(collection).where(*conditions))).scalar_one()
    query = select(*COLUMNS).where(*conditions).order_by(collection.c.created_at, collection.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


async def list_public(connection: AsyncConnection, text: str | None, limit: int, offset: int) -> tuple[Sequence[RowMapping], int]:
    """What everybody may see, the latest changed first, and how many there are; `text` in name or description, in any case of letters."""
    conditions: list[ColumnElement[bool]] = [collection.c.is_public]
    if text:
        wanted = text.lower()
        conditions.append(
            or_(*(func.lower(column).contains(wanted, autoescape=True) for column in (collection.c.name, collection.c.description)))
        )
    total = (await connection.execute(select(func.count()).select_from(collection).where(*conditions))).scalar_one()
    # The page first: what is skipped is neither joined nor counted.
    page = select(*COLUMNS).where(*conditions).order_by(collection.c.updated_at.desc(), collection.c.id.desc()).limit(limit).offset(offset)
    listed = page.subquery()
    counted = select(func.count()).where(collection_server.c.collection_id == listed.c.id).scalar_subquery()
    query = (
        select(listed, organization.c.name.label("organization"), counted.label("servers_count"))
        .join(space, space.c.id == listed.c.space_id)
        .join(organization, organization.c.id == space.c.organization_id)
        .order_by(listed.c.updated_at.desc(), listed.c.id.desc())
    )
    return (await connection.execute(query)).mappings().all(), total


async def list_server_ids(connection: AsyncConnection, collection_ids: Sequence[str]) -> dict[str, list[str]]:
    """The servers of each collection in its order."""
    found: dict[str, list[str]] = {collection_id: [] for collection_id in collection_ids}
    query = (
        select(collection_server.c.collection_id, collection_server.c.server_id)
        .where(collection_server.c.collection_id.in_(collection_ids))
        .order_by(collection_server.c.place)
    )
    for collection_id, server_id in await connection.execute(query):
        found[collection_id].append(server_id)
    return found


async def list_known_servers(connection: AsyncConnection, space_id: str, server_ids: Sequence[str]) -> set[str]:
    """Those of `server_ids` that exist in the space."""
    if not server_ids:
        return set()
    query = select(server.c.id).where(server.c.space_id == space_id, server.c.id.in_(server_ids))
    return set((await connection.execute(query)).scalars())


async def has_profile(connection: AsyncConnection, space_id: str, profile_id: str) -> bool:
    """Whether the space has the profile."""
    query = select(profile.c.id).where(profile.c.id == profile_id, profile.c.space_id == space_id)
    return (await connection.execute(query)).first() is not None


async def organization_name(connection: AsyncConnection, space_id: str) -> str:
    """What the organisation of a space is called."""
    query = select(organization.c.name).join(space, space.c.organization_id == organization.c.id).where(space.c.id == space_id)
    found: str = (await connection.execute(query)).scalar_one()
    return found


async def _insert_servers(uow: UnitOfWork, collection_id: str, server_ids: Sequence[str]) -> None:
    if server_ids:
        rows = [{"collection_id": collection_id, "server_id": id_, "place": place} for place, id_ in enumerate(server_ids)]
        await uow.execute(insert(collection_server), rows)


def _holding(granted: Grant) -> list[ColumnElement[bool]]:
    """Where the grant includes a server of the collection."""
    if granted is None:
        return []
    held = select(collection_server.c.server_id).where(
        collection_server.c.collection_id == collection.c.id, collection_server.c.server_id.in_(granted)
    )
    return [exists(held)]
