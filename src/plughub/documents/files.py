"""Files in the database, in pieces: every process on it has them, a backup of it holds them, and nothing has a path.

A file is written in several short transactions before anything refers to it, so that a large one holds nobody up. What is left
behind by a process that dies in between is removed by `prune_blobs`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from sqlalchemy import ColumnElement, delete, exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.document_tables import document_blob, document_piece, document_version
from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.ids import new_id

PIECE_BYTES = 256 * 1024
_AT_ONCE = 16
# Nobody takes so long between the first piece of a file and what refers to it.
_ABANDONED_S = 6 * 3600.0
_PRUNED_AT_ONCE = 50
Read = Callable[[int], Awaitable[bytes]]


async def save_file(database: Database, space_id: str, path: Path, size: int) -> str:
    """The id of a new blob with the bytes of the file."""
    with path.open("rb") as file:

        async def read(count: int) -> bytes:
            return await asyncio.to_thread(file.read, count)

        return await _save(database, space_id, read, size)


async def save_bytes(database: Database, space_id: str, data: bytes) -> str:
    """The id of a new blob with these bytes."""
    rest = memoryview(data)

    async def read(count: int) -> bytes:
        nonlocal rest
        part, rest = bytes(rest[:count]), rest[count:]
        return part

    return await _save(database, space_id, read, len(data))


async def insert_blob(uow: UnitOfWork, space_id: str, blob_id: str, data: bytes) -> None:
    """A small blob, with whatever else the transaction does."""
    values = {"id": blob_id, "space_id": space_id, "size": len(data), "created_at": uow.clock.time()}
    await uow.execute(insert(document_blob).values(**values))
    parts = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
    if parts:
        await uow.execute(insert(document_piece), [{"blob_id": blob_id, "position": n, "data": part} for n, part in enumerate(parts)])


async def _save(database: Database, space_id: str, read: Read, size: int) -> str:
    blob_id = new_id()
    values = {"id": blob_id, "space_id": space_id, "size": size, "created_at": database.clock.time()}
    position, first = 0, True
    while True:
        rows: list[dict[str, object]] = []
        while len(rows) < _AT_ONCE and (piece := await read(PIECE_BYTES)):
            rows.append({"blob_id": blob_id, "position": position, "data": piece})
            position += 1
        if not rows and not first:
            return blob_id
        async with database.unit_of_work() as uow:
            if first:
                await uow.execute(insert(document_blob).values(**values))
                first = False
            if rows:
                await uow.execute(insert(document_piece), rows)


async def read_range(database: Database, blob_id: str, begin: int, end: int) -> AsyncIterator[bytes]:
    """The bytes from `begin` up to `end`, piece by piece; no connection is held between two pieces."""
    at = begin
    while at < end:
        position, skipped = divmod(at, PIECE_BYTES)
        async with database.read() as connection:
            piece = await _piece(connection, blob_id, position)
        if piece is None:
            return  # removed meanwhile: whoever reads sees that it is short
        part = piece[skipped : skipped + end - at]
        at += len(part)
        yield part


async def read_whole(database: Database, blob_id: str, size: int) -> bytes:
    """All of a blob that is known to be small: a text."""
    return b"".join([part async for part in read_range(database, blob_id, 0, size)])


async def blob_size(connection: AsyncConnection, blob_id: str) -> int:
    """How many bytes a blob has."""
    found: int = (await connection.execute(select(document_blob.c.size).where(document_blob.c.id == blob_id))).scalar_one()
    return found


async def _piece(connection: AsyncConnection, blob_id: str, position: int) -> bytes | None:
    query = select(document_piece.c.data).where(document_piece.c.blob_id == blob_id, document_piece.c.position == position)
    found: bytes | None = (await connection.execute(query)).scalar()
    return found


async def drop_blobs(uow: UnitOfWork, ids: set[str]) -> None:
    """Remove those of the blobs that no version refers to."""
    if ids:
        await uow.execute(delete(document_blob).where(document_blob.c.id.in_(ids), ~_used()))


async def prune_blobs(database: Database) -> int:
    """Remove what was written and never referred to, some at a time; how many."""
    removed = 0
    while True:
        async with database.unit_of_work() as uow:
            old = select(document_blob.c.id).where(document_blob.c.created_at < uow.clock.time() - _ABANDONED_S, ~_used())
            ids = (await uow.execute(old.limit(_PRUNED_AT_ONCE))).scalars().all()
            if ids:
                await uow.execute(delete(document_blob).where(document_blob.c.id.in_(ids)))
        removed += len(ids)
        if len(ids) < _PRUNED_AT_ONCE:
            return removed


def _used() -> ColumnElement[bool]:
    return exists().where(or_(document_version.c.blob_id == document_blob.c.id, document_version.c.text_id == document_blob.c.id))
