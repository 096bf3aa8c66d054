"""The vectors of passages in the database, and which of them are near a text."""

import importlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.document_tables import document_chunk, document_vector
from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork
from plughub.documents.meaning import Meaning

# In memory, of all spaces together; and of one space, since what is found is found by looking at each.
MAX_FLOATS = 48_000 * 384
_SPACES = 16
_BATCH = 16
_EVERYTHING_AGAIN = 240


@dataclass(frozen=True, slots=True)
class _Held:
    stamp: tuple[int, int]
    ids: list[int]
    matrix: Any


class Vectors:
    """The vectors of the spaces that were asked last, bounded. What they were made of is asked anew with every question."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def nearest(self, connection: AsyncConnection, space_id: str, vector: bytes, limit: int) -> list[tuple[int, float]] | None:
        """(passage, nearness) of at most `limit`, the nearest first. None: the space has too many to look at each."""
        stamp = await _stamp(connection, space_id)
        numpy = importlib.import_module("numpy")
        asked = numpy.frombuffer(vector, "float16").astype("float32")
        if stamp[0] * len(asked) > MAX_FLOATS:
            return None
        if not stamp[0]:
            return []
        held = self._held.get(space_id)
        if held is None or held.stamp != stamp:
            held = await self._load(connection, space_id, stamp, len(asked))
        scores = held.matrix @ asked
        best = numpy.argsort(-scores)[:limit]
        return [(held.ids[at], float(scores[at])) for at in best.tolist()]

    async def _load(self, connection: AsyncConnection, space_id: str, stamp: tuple[int, int], width: int) -> _Held:
        numpy = importlib.import_module("numpy")
        query = select(document_vector.c.chunk_id, document_vector.c.vector).where(document_vector.c.space_id == space_id)
        rows = [row for row in (await connection.execute(query)).all() if len(row.vector) == 2 * width]
        matrix = numpy.frombuffer(b"".join(row.vector for row in rows), "float16").astype("float32").reshape(len(rows), width)
        held = _Held(stamp, [row.chunk_id for row in rows], matrix)
        self._held.pop(space_id, None)
        self._held[space_id] = held
        while len(self._held) > _SPACES or (len(self._held) > 1 and sum(each.matrix.size for each in self._held.values()) > MAX_FLOATS):
            self._held.popitem(last=False)
        return held


async def _stamp(connection: AsyncConnection, space_id: str) -> tuple[int, int]:
    query = select(func.count(), func.coalesce(func.max(document_vector.c.chunk_id), 0)).where(document_vector.c.space_id == space_id)
    count, newest = (await connection.execute(query)).one()
    return count, newest


class Embedding:
    """Gives every passage its vector, from the newest that was seen on; now and then everything is looked at again, since on PostgreSQL
    a smaller number may be committed later."""

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning
        self._seen = 0
        self._runs = 0

    async def run(self, database: Database) -> int:
        """So many passages got theirs."""
        self._runs += 1
        if self._runs % _EVERYTHING_AGAIN == 0:
            self._seen = 0
        done = 0
        while True:
            async with database.read() as connection:
                rows = await _without(connection, self._seen)
            if not rows:
                return done
            vectors = await self._meaning.embed([f"{heading}\n{text}" if heading else text for _, _, heading, text in rows])
            async with database.unit_of_work() as uow:
                await _keep(uow, [{"chunk_id": row[0], "space_id": row[1], "vector": v} for row, v in zip(rows, vectors, strict=True)])
            self._seen, done = rows[-1][0], done + len(rows)


async def _without(connection: AsyncConnection, since: int) -> list[tuple[int, str, str, str]]:
    c, missing = document_chunk.c, document_vector.c.chunk_id.is_(None)
    query = select(c.id, c.space_id, c.heading, c.text).outerjoin(document_vector, document_vector.c.chunk_id == c.id)
    found = await connection.execute(query.where(c.id > since, missing).order_by(c.id).limit(_BATCH))
    return [(row.id, row.space_id, row.heading, row.text) for row in found.all()]


async def _keep(uow: UnitOfWork, rows: list[dict[str, Any]]) -> None:
    """Those whose passages are still there, and that nobody else has made meanwhile."""
    ids = [row["chunk_id"] for row in rows]
    there = set(
        (await uow.execute(select(document_chunk.c.id).where(document_chunk.c.id.in_(ids)).with_for_update(key_share=True))).scalars()
    )
    made = set((await uow.execute(select(document_vector.c.chunk_id).where(document_vector.c.chunk_id.in_(ids)))).scalars())
    wanted = [row for row in rows if row["chunk_id"] in there - made]
    if wanted:
        await uow.execute(insert(document_vector), wanted)
