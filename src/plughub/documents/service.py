"""Rules of documents: who sees which, what a change does, and how many there may be.

A key's list of servers says nothing of documents: they belong to the whole environment of an organisation.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.unit_of_work import UnitOfWork
from plughub.documents import files, store
from plughub.documents.intake import Prepared
from plughub.documents.schemas import Bulk, Document, DocumentForm, DocumentPatch, Filters, Sort, Version
from plughub.events.catalogue import DOCUMENT_CREATED, DOCUMENT_DELETED, DOCUMENT_UPDATED, DocumentChanged
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, DocumentNotFound, Invalid
from plughub.kit.ids import new_id, parse_uuid
from plughub.kit.pagination import Page
from plughub.settings import Settings

# The older ones go, but for the one that counts.
MAX_VERSIONS = 50
# Between the words of a file's name; to an index it would be one.
_JOINTS = re.compile(r"[\s._-]+")
_FIELDS = {"title": "title", "description": "description", "category": "category", "metadata": "details"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document of several; `error` says why nothing did."""

    id: str
    document: Document | None = None
    error: str | None = None


async def list_documents(
    connection: AsyncConnection, caller: Caller, filters: Filters, text: str | None, sort: Sort, *, limit: int, offset: int
) -> Page[Document]:
    """The documents of the caller's space for which the filters hold."""
    found, total = await store.list_documents(connection, store.conditions_of(caller.space_id, filters, text), sort, limit, offset)
    return Page(found, total, limit, offset)


async def get_document(connection: AsyncConnection, caller: Caller, document_id: str) -> Document:
    """One document. Raises DocumentNotFound: missing and foreign look alike."""
    found = await store.find_document(connection, caller.space_id, document_id)
    if found is None:
        raise DocumentNotFound
    return found


async def get_version(connection: AsyncConnection, caller: Caller, document_id: str, number: int | None = None) -> tuple[Document, Version]:
    """A document, and that version of it or the one that counts. Raises DocumentNotFound."""
    found = await get_document(connection, caller, document_id)
    version = await store.find_version(connection, document_id, found.version if number is None else number)
    if version is None:
        raise DocumentNotFound(f"The document has no version {number}")
    return found, version


async def create_document(
    uow: UnitOfWork, caller: Caller, settings: Settings, prepared: Prepared, about: DocumentForm, source: str
) -> Document:
    """A document of one version. Raises Conflict (the quota)."""
    await store.lock_space(uow, caller.space_id)
    await _within_quota(uow.connection, caller, settings, prepared, more=1)
    now = uow.clock.time()
    made = Document(
        id=new_id(),
        space_id=caller.space_id,
        title=about.title or prepared.file_name.rpartition(".")[0] or prepared.file_name,
        description=about.description or "",
        file_name=prepared.file_name,
        kind=prepared.kind.name,
        source=source,
        category=about.category or "",
        details=about.metadata or {},
        version=1,
        latest=1,
        size=prepared.size,
        sha256=prepared.sha256,
        truncated=prepared.truncated,
        created_at=now,
        updated_at=now,
        created_by=caller.key_id or None,
        tags=tuple(about.tags or ()),
    )
    await store.insert_document(uow, made)
    await _keep(uow, caller, made, prepared, about.summary or "")
    await store.replace_passages(uow, made.id, [_title_passage(made), *_passages(made, prepared)])
    _tell(uow, DOCUMENT_CREATED, made, {}, _audited(made))
    return made


async def add_version(
    uow: UnitOfWork, caller: Caller, settings: Settings, document_id: str, prepared: Prepared, about: DocumentForm, base: int | None = None
) -> Document:
    """A new version that counts from now on, and what else is given. `base`: the version that it was made of, which must still count.

    Raises DocumentNotFound, Conflict.
    """
    await store.lock_space(uow, caller.space_id)
    before = await _locked(uow, caller, document_id)
    if base is not None and before.version != base:
        raise Conflict("The document was changed meanwhile", version=before.version)
    await _within_quota(uow.connection, caller, settings, prepared, more=0)
    content: dict[str, Any] = {
        "file_name": prepared.file_name,
        "kind": prepared.kind.name,
        "size": prepared.size,
        "sha256": prepared.sha256,
        "truncated": prepared.truncated,
    }
    after = replace(before, **_given(about), **content, version=before.latest + 1, latest=before.latest + 1, updated_at=_later(uow, before))
    await _keep(uow, caller, after, prepared, about.summary or "")
    await _save(uow, before, after)
    await store.replace_passages(uow, after.id, [_title_passage(after), *_passages(after, prepared)])
    await _drop_old_versions(uow, after)
    return after


async def update_document(uow: UnitOfWork, caller: Caller, document_id: str, about: DocumentPatch) -> Document:
    """Change what is said of a document. Raises DocumentNotFound."""
    before = await _locked(uow, caller, document_id)
    after = replace(before, **_given(about))
    if after == before:
        return before
    after = replace(after, updated_at=_later(uow, before))
    await _save(uow, before, after)
    await store.replace_title(uow, _title_passage(after))
    return after


async def roll_back(uow: UnitOfWork, caller: Caller, version: Version, before: Document, chunks: Sequence[Mapping[str, Any]]) -> Document:
    """The content of `version` becomes a new version of the document, of which `before` was read. Raises DocumentNotFound, Conflict."""
    now = await _locked(uow, caller, before.id)
    if now.version != before.version:
        raise Conflict("The document was changed meanwhile", version=now.version)
    content = {name: getattr(version, name) for name in ("file_name", "kind", "size", "sha256", "truncated")}
    after = replace(now, **content, version=now.latest + 1, latest=now.latest + 1, updated_at=_later(uow, now))
    row = replace(
        version,
        number=after.version,
        summary=f"Version {version.number} again",
        created_at=after.updated_at,
        created_by=caller.key_id or None,
    )
    await store.insert_version(uow, row)
    await _save(uow, now, after)
    await store.replace_passages(uow, after.id, [_title_passage(after), *chunks])
    await _drop_old_versions(uow, after)
    return after


async def delete_document(uow: UnitOfWork, caller: Caller, document_id: str) -> Document:
    """Remove a document with all its versions. Raises DocumentNotFound."""
    removed = await _locked(uow, caller, document_id)
    versions = await store.list_versions(uow.connection, document_id)
    await store.delete_document(uow, document_id)
    await files.drop_blobs(uow, {blob for version in versions for blob in (version.blob_id, version.text_id)})
    _tell(uow, DOCUMENT_DELETED, removed, _audited(removed), {})
    return removed


async def change_many(uow: UnitOfWork, caller: Caller, bulk: Bulk) -> list[Outcome]:
    """The operation on every document that is named, in their order; one that is missing is told and keeps no other back."""
    outcomes: list[Outcome] = []
    for given in dict.fromkeys(bulk.ids or ()):
        document_id = parse_uuid(given)
        try:
            if document_id is None:
                raise DocumentNotFound
            outcomes.append(Outcome(given, await _change_one(uow, caller, bulk, document_id)))
        except (DocumentNotFound, Invalid) as error:
            outcomes.append(Outcome(given, error=error.text))
    return outcomes


async def _change_one(uow: UnitOfWork, caller: Caller, bulk: Bulk, document_id: str) -> Document:
    if bulk.operation == "delete":
        return await delete_document(uow, caller, document_id)
    found = await get_document(uow.connection, caller, document_id)
    named = set(bulk.tags or ())
    tags = sorted({*found.tags} | named if bulk.operation == "tag" else {*found.tags} - named)
    if len(tags) > 20:
        raise Invalid("tags", "A document has at most 20 tags")
    return await update_document(uow, caller, document_id, DocumentPatch(tags=tags))


async def _within_quota(connection: AsyncConnection, caller: Caller, settings: Settings, prepared: Prepared, more: int) -> None:
    count, size = await store.usage(connection, caller.space_id)
    if more and count + more > settings.documents_quota:
        raise Conflict(
            f"There are {count} documents, and no more than {settings.documents_quota} may be here",
            reason="quota",
            limit=settings.documents_quota,
            hint="Remove documents that are not needed any more",
        )
    # What is large is counted already: it was written before.
    coming = sum(blob.size for blob in {prepared.file.id: prepared.file, prepared.text.id: prepared.text}.values() if blob.data is not None)
    if size + coming > settings.documents_quota_bytes:
        raise Conflict(
            f"The documents take {size} bytes, and no more than {settings.documents_quota_bytes} may be here",
            reason="quota_bytes",
            limit=settings.documents_quota_bytes,
            hint="Remove documents or versions that are not needed any more",
        )


async def _keep(uow: UnitOfWork, caller: Caller, made: Document, prepared: Prepared, summary: str) -> None:
    for blob in {prepared.file.id: prepared.file, prepared.text.id: prepared.text}.values():
        if blob.data is not None:
            await files.insert_blob(uow, made.space_id, blob.id, blob.data)
    version = Version(
        document_id=made.id,
        number=made.version,
        blob_id=prepared.file.id,
        text_id=prepared.text.id,
        file_name=made.file_name,
        kind=made.kind,
        size=made.size,
        sha256=made.sha256,
        truncated=made.truncated,
        summary=summary,
        created_at=made.updated_at,
        created_by=caller.key_id or None,
    )
    await store.insert_version(uow, version)


async def _save(uow: UnitOfWork, before: Document, after: Document) -> None:
    names = [field.name for field in dataclasses.fields(Document) if field.name != "tags"]
    changed = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    await store.update_document(uow, after.id, changed)
    if after.tags != before.tags:
        await store.replace_tags(uow, after.id, after.tags)
    told = {*changed, *(("tags",) if after.tags != before.tags else ())} - {"updated_at", "latest"}
    _tell(uow, DOCUMENT_UPDATED, after, _audited(before), _audited(after), sorted(told))


async def _drop_old_versions(uow: UnitOfWork, after: Document) -> None:
    old = [version for version in (await store.list_versions(uow.connection, after.id))[MAX_VERSIONS:] if version.number != after.version]
    if old:
        await store.delete_versions(uow, after.id, [version.number for version in old])
        await files.drop_blobs(uow, {blob for version in old for blob in (version.blob_id, version.text_id)})


async def _locked(uow: UnitOfWork, caller: Caller, document_id: str) -> Document:
    found = await store.lock_document(uow, caller.space_id, document_id)
    if found is None:
        raise DocumentNotFound
    return found


def _given(about: DocumentForm | DocumentPatch) -> dict[str, Any]:
    """The columns that are given; null takes a word back where there may be none."""
    empty: Mapping[str, Any] = {"description": "", "category": "", "details": {}}
    found: dict[str, Any] = {}
    for field, column in _FIELDS.items():
        value = getattr(about, field)
        if value is not None:
            found[column] = value
        elif field in about.model_fields_set and column in empty:
            found[column] = empty[column]
    if "tags" in about.model_fields_set:
        found["tags"] = tuple(about.tags or ())
    return found


def passages_of(made: Document, chunks: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of the passages of its text."""
    here = {"document_id": made.id, "space_id": made.space_id}
    return [{**here, "position": at, "heading": chunk.heading, "text": chunk.text} for at, chunk in enumerate(chunks, 1)]


def _passages(made: Document, prepared: Prepared) -> list[dict[str, Any]]:
    return passages_of(made, prepared.chunks)


def _title_passage(made: Document) -> dict[str, Any]:
    """What the document is, to be found by it."""
    stem = " ".join(part for part in _JOINTS.split(made.file_name.rpartition(".")[0]) if part)
    said = [made.description, stem if stem.lower() != made.title.lower() else "", " ".join(made.tags), made.category]
    text = "\n".join(line for line in said if line) or made.title
    return {"document_id": made.id, "space_id": made.space_id, "position": 0, "heading": made.title, "text": text}


def _later(uow: UnitOfWork, before: Document) -> float:
    return max(uow.clock.time(), before.updated_at)


def _tell(
    uow: UnitOfWork, name: str, about: Document, before: Mapping[str, Any], after: Mapping[str, Any], changed: list[str] | None = None
) -> None:
    data: DocumentChanged = {"document_id": about.id, "title": about.title, "file_name": about.file_name, "version": about.version}
    if changed:
        data["changed"] = ["metadata" if each == "details" else each for each in changed]
    uow.emit(name, space_id=about.space_id, data=data)
    uow.audit(Deed(name, "document", about.id, about.title, about.space_id, before=before, after=after))


def _audited(found: Document) -> dict[str, Any]:
    shown = {name: getattr(found, name) for name in ("title", "description", "file_name", "category", "version", "size", "sha256")}
    return {**shown, "tags": list(found.tags), "metadata": dict(found.details)}
