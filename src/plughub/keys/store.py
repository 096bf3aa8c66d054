"""SQL of API keys and their server grants."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, RowMapping, Select, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import api_key, key_address, key_server, organization, retired_secret, server
from plughub.db.unit_of_work import UnitOfWork

_HIDDEN = ("digest", "pepper_version", "expiry_told", "rotation_told")
_COLUMNS = tuple(column for column in api_key.c if column.name not in _HIDDEN)
_OF_ORGANIZATION = tuple(
    organization.c[name] for name in ("tier", "operator", "stdio_allowed", "hourly_limit", "burst_limit", "concurrency_limit")
)
# What a secret keeps when it is replaced.
_RETIRED = ("digest", "pepper_version", "prefix", "last4", "last_used_at", "last_used_ip")


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
    """The key whose newest secret has one of the digests, with what its organisation may do."""
    return await _first(connection, _with_organization().where(api_key.c.digest.in_(digests)))


async def find_by_id(connection: AsyncConnection, key_id: str, space_id: str) -> RowMapping | None:
    """A key of a space, with what its organisation may do."""
    return await _first(connection, _with_organization().where(api_key.c.id == key_id, api_key.c.space_id == space_id))


async def find_by_retired_digest(connection: AsyncConnection, digests: Sequence[bytes]) -> RowMapping | None:
    """The key that once had a secret with one of the digests; `retired_generation` and `valid_until` are that secret's."""
    query = _with_organization(retired_secret.c.generation.label("retired_generation"), retired_secret.c.valid_until)
    query = query.join(retired_secret, retired_secret.c.key_id == api_key.c.id)
    return await _first(connection, query.where(retired_secret.c.digest.in_(digests)))


async def _first(connection: AsyncConnection, query: Select[Any]) -> RowMapping | None:
    found: RowMapping | None = (await connection.execute(query)).mappings().first()
    return found


def _with_organization(*more: ColumnElement[Any]) -> Select[Any]:
    return select(*_COLUMNS, *_OF_ORGANIZATION, *more).join(organization, organization.c.id == api_key.c.organization_id)


async def replace_secret(uow: UnitOfWork, key_id: str, generation: int, valid_until: float, values: Mapping[str, Any]) -> bool:
    """Retire the secret of that generation and put `values` in its place. False when the key was revoked or rotated meanwhile."""
    here = (api_key.c.id == key_id, api_key.c.generation == generation, api_key.c.status != "revoked")
    # First of all the row: two rotations at once wait for each other here.
    taken = await uow.execute(update(api_key).where(*here).values(generation=generation + 1))
    if not taken.rowcount:
        return False
    await end_retired(uow, key_id, generation, valid_until)
    kept = select(api_key.c.id, literal(generation), literal(valid_until), *(api_key.c[name] for name in _RETIRED))
    columns = ["key_id", "generation", "valid_until", *_RETIRED]
    await uow.execute(insert(retired_secret).from_select(columns, kept.where(api_key.c.id == key_id)))
    await update_key(uow, key_id, {**values, "last_used_at": None, "last_used_ip": None})
    return True


async def end_retired(uow: UnitOfWork, key_id: str, before: int, until: float) -> None:
    """Secrets from before that generation end at `until` or when they would anyhow."""
    of_key = (retired_secret.c.key_id == key_id, retired_secret.c.generation < before, retired_secret.c.valid_until > until)
    await uow.execute(update(retired_secret).where(*of_key).values(valid_until=until))


async def list_retired(connection: AsyncConnection, key_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The earlier secrets of each key that has any, newest first."""
    found: dict[str, list[Row[Any]]] = {}
    if key_ids:
        columns = [retired_secret.c[name] for name in ("key_id", "prefix", "valid_until", "last_used_at", "last_used_ip")]
        query = select(*columns).where(retired_secret.c.key_id.in_(key_ids)).order_by(retired_secret.c.generation.desc())
        for row in await connection.execute(query):
            found.setdefault(row.key_id, []).append(row)
    return found


async def list_addresses(connection: AsyncConnection, key_id: str) -> Sequence[Row[Any]]:
    """Where the key was used from, the latest first."""
    columns: tuple[ColumnElement[Any], ...] = (key_address.c.address, key_address.c.first_seen_at, key_address.c.last_seen_at)
    query = select(*columns).where(key_address.c.key_id == key_id).order_by(key_address.c.last_seen_at.desc(), key_address.c.address)
    return (await connection.execute(query)).all()


async def _insert_grant(uow: UnitOfWork, key_id: str, servers: Sequence[str] | None) -> None:
    if servers:
        await uow.execute(insert(key_server), [{"key_id": key_id, "server_id": server_id} for server_id in servers])
