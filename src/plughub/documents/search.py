"""What is found in documents: by words always, by meaning where the model is installed, both put together by their ranks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Float, bindparam, column, func, literal_column, select, table, text
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import document, document_chunk
from plughub.documents import store
from plughub.documents.library import Library
from plughub.documents.schemas import Document, Filters
from plughub.documents.words import snippet, words_of
from plughub.kit.caller import Caller
from plughub.kit.errors import Unavailable

# Of each way of searching so many passages are put together; nobody reads on to the next.
POOL = 200
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
    snippet: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """`note` says why, when it was not searched by meaning."""

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
        passages = await _passages(connection, caller.space_id, ranked, words, filters)
    return Found(passages, "full_text" if note else "hybrid", note)


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
    if not words:
        return []
    chosen = store.conditions_of(space_id, filters)[1:]
    if connection.dialect.name == "sqlite":
        # Every word in quotes: to the index it is a text, whatever it looks like.
        any_word = " OR ".join(f'"{word}"' for word in words)
        expression = f'space : "{space_id.replace("-", "")}" AND {{heading text}} : ({any_word})'
        query = select(_fts.c.rowid).where(_match).order_by(_bm25).limit(POOL)
        if chosen:
            query = query.join(document_chunk, document_chunk.c.id == _fts.c.rowid).join(
                document, document.c.id == document_chunk.c.document_id
            )
            query = query.where(*chosen)
        return list((await connection.execute(query, {"expression": expression})).scalars())
    each = [func.plainto_tsquery("english", bindparam(f"word_{number}", word)) for number, word in enumerate(words)]
    any_of: ColumnElement[Any] = each[0]
    for one in each[1:]:
        any_of = any_of.op("||")(one)
    here = func.quote_literal(f"space {space_id}").cast(TSQUERY)
    query = select(document_chunk.c.id).where(document_chunk.c.terms.op("@@")(any_of.op("&&")(here)))
    if chosen:
        query = query.join(document, document.c.id == document_chunk.c.document_id).where(*chosen)
    query = query.order_by(func.ts_rank(document_chunk.c.terms, any_of).desc(), document_chunk.c.id).limit(POOL)
    return list((await connection.execute(query)).scalars())


def _fused(*lists: Sequence[int]) -> list[tuple[int, float]]:
    """Passages with their scores, by reciprocal ranks; 1 is what is first in every list that found anything."""
    scores: dict[int, float] = {}
    for found in lists:
        for rank, chunk_id in enumerate(found, 1):
            scores[chunk_id] = scores.get(chunk_id, 0.0) + 1 / (_RRF + rank)
    most = sum(1 / (_RRF + 1) for found in lists if found)
    return sorted(((chunk_id, score / most) for chunk_id, score in scores.items()), key=lambda each: (-each[1], each[0]))[:POOL]


async def _passages(
    connection: AsyncConnection, space_id: str, ranked: Sequence[tuple[int, float]], words: list[str], filters: Filters | None
) -> list[Passage]:
    if not ranked:
        return []
    c = document_chunk.c
    # What was found by its meaning has not been asked whether the filters hold.
    query = select(c.id, c.document_id, c.position, c.heading, c.text).join(document, document.c.id == c.document_id)
    query = query.where(c.id.in_([chunk_id for chunk_id, _ in ranked]), *store.conditions_of(space_id, filters))
    rows = {row.id: row for row in (await connection.execute(query)).all()}
    documents = await store.find_documents(connection, space_id, {row.document_id for row in rows.values()})
    return [
        Passage(documents[row.document_id], row.position, row.heading, row.text, snippet(row.text, words), score)
        for chunk_id, score in ranked
        if (row := rows.get(chunk_id)) is not None and row.document_id in documents
    ]
