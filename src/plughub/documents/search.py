"""What is found in documents: by words always, by meaning where the model is installed, both put together by their ranks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Float, Select, column, func, literal_column, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.document_tables import TsQuery, document, document_chunk
from plughub.documents import store
from plughub.documents.library import Library
from plughub.documents.schemas import Document, Filters
from plughub.documents.words import words_of
from plughub.kit.caller import Caller
from plughub.kit.errors import Unavailable

# Of each way of searching so many passages are put together; nobody reads on to the next.
POOL = 100
# Ranking a passage costs a microsecond and more: of words that most of them have, only the newest are.
LOOKED_AT = 2_000
# Cormack, Clarke, Buettcher (2009): what is far down in one list cannot outdo what is first in the other.
_RRF = 60.0
_EMBED_WITHIN_S = 2.0
_ALONE = "Full text alone was searched: "
Mode = Literal["full_text", "hybrid"]
_fts = table("document_fts", column("rowid"))
_match = text("document_fts MATCH :expression")
# The columns: space, heading, text. A lower number is better.
_bm25 = literal_column("bm25(document_fts, 0.0, 4.0, 1.0)", Float)


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that fits, the best first; `score` orders those of one answer, from 1 down, and says nothing else."""

    document: Document
    position: int
    heading: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """`words` are those that were looked for; `note` says why, when it was not searched by meaning."""

    words: list[str]
    passages: Sequence[Passage]
    mode: Mode
    note: str | None


async def search(library: Library, caller: Caller, question: str, filters: Filters | None = None) -> Found:
    """At most POOL passages of the caller's documents."""
    words = words_of(question)
    vector, note = await _vector(library, question)
    async with library.database.read() as connection:
        by_words = await _by_words(connection, caller.space_id, words, filters)
        near: list[int] = []
        if vector is not None:
            nearest = await library.vectors.nearest(connection, caller.space_id, vector, POOL)
            if nearest is None:
                note = _ALONE + "there are too many passages to search by meaning"
            else:
                near = [chunk_id for chunk_id, _ in nearest]
        ranked = _fused(by_words, near)
        passages = await _passages(connection, caller.space_id, ranked, filters)
    return Found(words, passages, "full_text" if note else "hybrid", note)


def by_document(passages: Sequence[Passage]) -> list[Passage]:
    """The best passage of each document, as good as whatever was found of it: one of its text before what is said of it."""
    best: dict[str, Passage] = {}
    for passage in passages:
        held = best.setdefault(passage.document.id, passage)
        if not held.position and passage.position:
            best[passage.document.id] = replace(passage, score=held.score)
    return list(best.values())


async def _vector(library: Library, question: str) -> tuple[bytes | None, str | None]:
    if library.meaning.missing is not None:
        return None, _ALONE + library.meaning.missing
    try:
        async with asyncio.timeout(_EMBED_WITHIN_S):
            return (await library.meaning.embed([question]))[0], None
    except (TimeoutError, Unavailable):
        return None, _ALONE + "the model is busy"


async def _by_words(connection: AsyncConnection, space_id: str, words: Sequence[str], filters: Filters | None) -> list[int]:
    """Passages with any of the words, those with most and rarest first; at most LOOKED_AT are ranked.

    When more have one of the words, a passage must have one of the rarer ones, and the others only raise it.
    """
    if not words:
        return []
    index = _Sqlite(space_id) if connection.dialect.name == "sqlite" else _Postgresql(space_id)
    needed = list(words)
    if len(words) > 1 and await index.count(connection, words) > LOOKED_AT:
        counts = {word: await index.count(connection, [word]) for word in words}
        needed, total = [], 0
        for word in sorted((word for word in words if counts[word]), key=lambda word: counts[word]):
            total += counts[word]
            if needed and total > LOOKED_AT:
                break
            needed.append(word)
    query = index.ranked(needed, words, store.conditions_of(space_id, filters)[1:])
    return list((await connection.execute(query)).scalars())


class _Sqlite:
    """FTS5. Every word is in quotes: to the index it is a text, whatever it looks like."""

    def __init__(self, space_id: str) -> None:
        self._space = f'space : "{space_id.replace("-", "")}"'

    def _any_of(self, words: Sequence[str]) -> str:
        quoted = " OR ".join(f'"{word}"' for word in words)
        return f"{{heading text}} : ({quoted})"

    async def count(self, connection: AsyncConnection, words: Sequence[str]) -> int:
        """How many passages have one of the words, LOOKED_AT + 1 at the most."""
        some = select(_fts.c.rowid).where(_match).limit(LOOKED_AT + 1).subquery()
        expression = f"{self._space} AND {self._any_of(words)}"
        found: int = (await connection.execute(select(func.count()).select_from(some), {"expression": expression})).scalar_one()
        return found

    def ranked(self, needed: Sequence[str], words: Sequence[str], chosen: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """The passages with one of `needed`, ranked by all the words."""
        must = self._any_of(needed)
        # The same passages as with `must` alone; but the index counts the others too where they are.
        expression = f"{self._space} AND ({must} OR ({must} AND {self._any_of(words)}))" if len(needed) < len(words) else None
        query = select(_fts.c.rowid, _bm25.label("rank")).where(_match.bindparams(expression=expression or f"{self._space} AND {must}"))
        if chosen:
            query = query.join(document_chunk, document_chunk.c.id == _fts.c.rowid)
            query = query.join(document, document.c.id == document_chunk.c.document_id).where(*chosen)
        some = query.order_by(_fts.c.rowid.desc()).limit(LOOKED_AT).subquery()
        return select(some.c.rowid).order_by(some.c.rank).limit(POOL)


class _Postgresql:
    """tsvector. Every word passes plainto_tsquery, to which it is a text."""

    def __init__(self, space_id: str) -> None:
        self._space = func.quote_literal(f"space {space_id}").cast(TsQuery())

    def _any_of(self, words: Sequence[str]) -> ColumnElement[Any]:
        first, *others = (func.plainto_tsquery("english", word) for word in words)
        any_of: ColumnElement[Any] = first
        for other in others:
            any_of = any_of.op("||")(other)
        return any_of

    def _having(self, words: Sequence[str]) -> ColumnElement[bool]:
        return document_chunk.c.terms.op("@@")(self._any_of(words).op("&&")(self._space))

    async def count(self, connection: AsyncConnection, words: Sequence[str]) -> int:
        """As that of SQLite."""
        some = select(document_chunk.c.id).where(self._having(words)).limit(LOOKED_AT + 1).subquery()
        found: int = (await connection.execute(select(func.count()).select_from(some))).scalar_one()
        return found

    def ranked(self, needed: Sequence[str], words: Sequence[str], chosen: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """As that of SQLite."""
        query = select(document_chunk.c.id, document_chunk.c.terms).where(self._having(needed))
        if chosen:
            query = query.join(document, document.c.id == document_chunk.c.document_id).where(*chosen)
        some = query.order_by(document_chunk.c.id.desc()).limit(LOOKED_AT).subquery()
        return select(some.c.id).order_by(func.ts_rank(some.c.terms, self._any_of(words)).desc(), some.c.id).limit(POOL)


def _fused(*lists: Sequence[int]) -> list[tuple[int, float]]:
    """Passages with their scores, by reciprocal ranks; 1 is what is first in every list that found anything."""
    scores: dict[int, float] = {}
    for found in lists:
        for rank, chunk_id in enumerate(found, 1):
            scores[chunk_id] = scores.get(chunk_id, 0.0) + 1 / (_RRF + rank)
    most = sum(1 / (_RRF + 1) for found in lists if found)
    return sorted(((chunk_id, score / most) for chunk_id, score in scores.items()), key=lambda each: (-each[1], each[0]))[:POOL]


async def _passages(
    connection: AsyncConnection, space_id: str, ranked: Sequence[tuple[int, float]], filters: Filters | None
) -> list[Passage]:
    c = document_chunk.c
    # By their ids alone: without statistics SQLite would rather read the whole space.
    query = select(c.id, c.document_id, c.position, c.heading, c.text).where(c.id.in_([chunk_id for chunk_id, _ in ranked]))
    rows = {row.id: row for row in (await connection.execute(query)).all()} if ranked else {}
    # What was found by its meaning has not been asked whether the filters hold.
    documents = await store.find_documents(connection, space_id, {row.document_id for row in rows.values()}, filters)
    return [
        Passage(documents[row.document_id], row.position, row.heading, row.text, score)
        for chunk_id, score in ranked
        if (row := rows.get(chunk_id)) is not None and row.document_id in documents
    ]
