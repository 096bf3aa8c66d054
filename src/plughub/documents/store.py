"""SQL of documents, their versions, tags and passages."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, UnaryExpression, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.document_tables import document, document_blob, document_chunk, document_tag, document_vector, document_version
from plughub.db.tables import space
from plughub.db.unit_of_work import UnitOfWork
from plughub.documents.schemas import Document, Filters, Sort, Version

_ORDER: Mapping[str, tuple[UnaryExpression[Any], ...]] = {
    "date_desc": (document.c.created_at.desc(), document.c.id.desc()),
    "date_asc": (document.c.created_at.asc(), document.c.id.asc()),
    "title": (document.c.title.asc(), document.c.id.asc()),
    "size": (document.c.size.desc(), document.c.id.desc()),
}
_ROWS_AT_ONCE = 500


async def lock_space(uow: UnitOfWork, space_id: str) -> None:
    """What counts against a space's quota happens one after the other; on SQLite the transaction itself is the lock."""
    await uow.execute(select(space.c.id).where(space.c.id == space_id).with_for_update(key_share=True))


async def usage(connection: AsyncConnection, space_id: str) -> tuple[int, int]:
    """How many documents a space has, and how many bytes in all their versions and texts."""
    count = (await connection.execute(select(func.count()).select_from(document).where(document.c.space_id == space_id))).scalar_one()
    query = select(func.coalesce(func.sum(document_blob.c.size), 0)).where(document_blob.c.space_id == space_id)
    return count, int((await connection.execute(query)).scalar_one())


async def count_passages(connection: AsyncConnection, space_id: str) -> tuple[int, int]:
    """How many passages a space has, and how many of them with their meaning."""
    passages = select(func.count()).select_from(document_chunk).where(document_chunk.c.space_id == space_id)
    vectors = select(func.count()).select_from(document_vector).where(document_vector.c.space_id == space_id)
    return (await connection.execute(passages)).scalar_one(), (await connection.execute(vectors)).scalar_one()


async def has_documents(connection: AsyncConnection, space_id: str) -> bool:
    """Whether a space has any."""
    return (await connection.execute(select(document.c.id).where(document.c.space_id == space_id).limit(1))).first() is not None


async def find_document(connection: AsyncConnection, space_id: str, document_id: str) -> Document | None:
    """One document of the space, with its tags."""
    query = select(document).where(document.c.id == document_id, document.c.space_id == space_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else (await _with_tags(connection, [row]))[0]


async def lock_document(uow: UnitOfWork, space_id: str, document_id: str) -> Document | None:
    """The same, and it stays as it is until the commit."""
    query = select(document.c.id).where(document.c.id == document_id, document.c.space_id == space_id).with_for_update()
    if (await uow.execute(query)).first() is None:
        return None
    return await find_document(uow.connection, space_id, document_id)


async def find_documents(
    connection: AsyncConnection, space_id: str, ids: Collection[str], filters: Filters | None = None
) -> dict[str, Document]:
    """Those of the documents that the space has and for which the filters hold, by id."""
    if not ids:
        return {}
    # The space is compared here: given both, SQLite would rather read all that the space has than look for some ids.
    query = select(document).where(document.c.id.in_(ids), *conditions_of(space_id, filters)[1:])
    rows = [row for row in (await connection.execute(query)).mappings() if row["space_id"] == space_id]
    return {found.id: found for found in await _with_tags(connection, rows)}


async def list_documents(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[bool]], sort: Sort, limit: int, offset: int
) -> tuple[list[Document], int]:
    """A page of those for which all conditions hold, and how many there are."""
    total = (await connection.execute(select(func.count()).select_from(document).where(*conditions))).scalar_one()
    query = select(document).where(*conditions).order_by(*_ORDER[sort]).limit(limit).offset(offset)
    return await _with_tags(connection, (await connection.execute(query)).mappings().all()), total


def conditions_of(space_id: str, filters: Filters | None, text: str | None = None) -> list[ColumnElement[bool]]:
    """What the filters say of a document. `text`: in its title, description or file's name, in any case of letters."""
    found: list[ColumnElement[bool]] = [document.c.space_id == space_id]
    if filters is not None:
        if filters.source != "all":
            found.append(document.c.source == filters.source)
        if filters.kind is not None:
            found.append(document.c.kind == filters.kind)
        if filters.category:
            found.append(document.c.category == filters.category)
        if filters.visibility not in ("all", "workspace"):
            found.append(document.c.id.is_(None))  # every document is of its workspace, the whole of it
        if filters.date_from is not None:
            found.append(document.c.created_at >= filters.date_from)
        if filters.date_to is not None:
            found.append(document.c.created_at <= filters.date_to)
        found += [exists().where(document_tag.c.document_id == document.c.id, document_tag.c.tag == tag) for tag in filters.tags or ()]
    if text:
        columns = (document.c.title, document.c.description, document.c.file_name)
        found.append(or_(*(func.lower(column).contains(text.lower(), autoescape=True) for column in columns)))
    return found


async def insert_document(uow: UnitOfWork, made: Document) -> None:
    """A new document with its tags."""
    await uow.execute(insert(document).values(**{column.name: getattr(made, column.name) for column in document.c}))
    await add_tags(uow, made.id, made.tags)


async def update_document(uow: UnitOfWork, document_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one document, if any."""
    if values:
        await uow.execute(update(document).where(document.c.id == document_id).values(**values))


async def add_tags(uow: UnitOfWork, document_id: str, tags: Collection[str]) -> None:
    """Tags that it does not have yet."""
    if tags:
        await uow.execute(insert(document_tag), [{"document_id": document_id, "tag": tag} for tag in tags])


async def replace_tags(uow: UnitOfWork, document_id: str, tags: Collection[str]) -> None:
    """Its tags from now on."""
    await uow.execute(delete(document_tag).where(document_tag.c.document_id == document_id))
    await add_tags(uow, document_id, tags)


async def delete_document(uow: UnitOfWork, document_id: str) -> None:
    """With its versions, tags and passages; not the blobs."""
    # By itself, not by the cascade, so that it is certain that the index forgets them.
    await uow.execute(delete(document_chunk).where(document_chunk.c.document_id == document_id))
    await uow.execute(delete(document).where(document.c.id == document_id))


async def insert_version(uow: UnitOfWork, made: Version) -> None:
    """A version."""
    await uow.execute(insert(document_version).values(**{column.name: getattr(made, column.name) for column in document_version.c}))


async def delete_versions(uow: UnitOfWork, document_id: str, numbers: Collection[int]) -> None:
    """Remove versions; not the blobs."""
    here = document_version.c.document_id == document_id
    await uow.execute(delete(document_version).where(here, document_version.c.number.in_(numbers)))


async def find_version(connection: AsyncConnection, document_id: str, number: int) -> Version | None:
    """One version."""
    query = select(document_version).where(document_version.c.document_id == document_id, document_version.c.number == number)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else Version(**row)


async def list_versions(connection: AsyncConnection, document_id: str) -> list[Version]:
    """All versions, the newest first."""
    query = select(document_version).where(document_version.c.document_id == document_id).order_by(document_version.c.number.desc())
    return [Version(**row) for row in (await connection.execute(query)).mappings()]


async def replace_passages(uow: UnitOfWork, document_id: str, rows: Sequence[Mapping[str, Any]], since: int = 0) -> None:
    """The passages of a document from position `since` on; the one at 0 alone is replaced by `replace_title`."""
    await uow.execute(delete(document_chunk).where(document_chunk.c.document_id == document_id, document_chunk.c.position >= since))
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        await uow.execute(insert(document_chunk), rows[at : at + _ROWS_AT_ONCE])


async def replace_title(uow: UnitOfWork, row: Mapping[str, Any]) -> None:
    """The passage that says what the document is."""
    here = document_chunk.c.document_id == row["document_id"]
    await uow.execute(delete(document_chunk).where(here, document_chunk.c.position == 0))
    await uow.execute(insert(document_chunk), [row])


async def _with_tags(connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[Document]:
    tags: dict[str, list[str]] = {row["id"]: [] for row in rows}
    if tags:
        query = select(document_tag).where(document_tag.c.document_id.in_(tags)).order_by(document_tag.c.tag)
        for found in (await connection.execute(query)).mappings():
            tags[found["document_id"]].append(found["tag"])
    return [Document(**row, tags=tuple(tags[row["id"]])) for row in rows]
