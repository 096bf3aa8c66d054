"""Documents in the Plugged.in dialect (CONTRACT section 6)."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BaseModel, Field, ValidationError

from plughub.api.document_shapes import (
    BulkOut,
    ComparedOut,
    DocumentChangedOut,
    DocumentList,
    DocumentOut,
    DocumentSearchOut,
    VersionContent,
    VersionList,
)
from plughub.api.document_views import content_of, named, one, shown, shown_version
from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep, UowDep, invalid_from
from plughub.api.reply import Offset, PageLimit, reply
from plughub.db.audit import Actor
from plughub.documents import service, store
from plughub.documents.chunks import split
from plughub.documents.intake import prepared_text
from plughub.documents.schemas import Bulk, Document, DocumentForm, DocumentPatch, DocumentText, Filters, Rollback, Search, Sort
from plughub.documents.search import by_document, search
from plughub.documents.service import Outcome
from plughub.documents.words import snippet
from plughub.door.routes import Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.errors import DocumentNotFound, Invalid

Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
First = Annotated[Number | None, Query(description="A version; the one before `v2` unless given")]
Second = Annotated[Number | None, Query(description="A version; the one that counts unless given")]
WithContent = Annotated[bool, Query(alias="includeContent", description="With the text in it, as `content`")]
WithVersions = Annotated[bool, Query(alias="includeVersions", description="With its versions")]
Moment = Annotated[str | None, Field(max_length=40)]
_EDITABLE = ("md", "txt")
_DONE = {"delete": "deleted", "tag": "updated", "untag": "updated"}


class WantedDocuments(BaseModel):
    """Filters, and which page."""

    source: Literal["all", "upload", "api", "ai_generated"] = "all"
    kind: Literal["pdf", "docx", "md", "txt", "html", "csv"] | None = None
    category: str | None = Field(None, max_length=50)
    visibility: Literal["all", "private", "workspace", "public"] = Field("all", description="Every document is of its workspace")
    tags: list[str] | None = Field(None, max_length=20, description="With all of these; repeated, or separated by commas")
    dateFrom: Moment = Field(None, description="Made then or later: RFC 3339, or a day (UTC)")  # noqa: N815  the documents' name
    dateTo: Moment = Field(None, description="Made then or earlier")  # noqa: N815
    date_from: Moment = Field(None, description="The same as `dateFrom`")
    date_to: Moment = Field(None, description="The same as `dateTo`")
    searchQuery: str | None = Field(None, max_length=200, description="In title, description or file name")  # noqa: N815
    search_query: str | None = Field(None, max_length=200, description="The same as `searchQuery`")
    sort: Sort = "date_desc"
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=1_000_000_000)

    def filters(self) -> Filters:
        """Raises Invalid."""
        given = {name: getattr(self, name) for name in ("source", "kind", "category", "visibility")}
        given |= {"dateFrom": self.dateFrom or self.date_from, "dateTo": self.dateTo or self.date_to}
        if self.tags:
            given["tags"] = [part.strip() for text in self.tags for part in text.split(",") if part.strip()]
        try:
            return Filters.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise invalid_from(error.errors()) from None


async def list_documents(caller: CallerDep, connection: ReadDep, wanted: Annotated[WantedDocuments, Query()]) -> Response:
    """The documents of the caller's organisation and environment, the newest first."""
    text = wanted.searchQuery or wanted.search_query
    page = await service.list_documents(connection, caller, wanted.filters(), text, wanted.sort, limit=wanted.limit, offset=wanted.offset)
    return reply({"documents": [shown(found) for found in page.items], "total": page.total, "limit": wanted.limit, "offset": wanted.offset})


async def get_document(
    caller: CallerDep, hub: HubDep, document_id: str, include_content: WithContent = False, include_versions: WithVersions = False
) -> Response:
    """One document; with the text in it and with its versions when they are asked for."""
    async with hub.database.read() as connection:
        found, version = await service.get_version(connection, caller, one(document_id))
        versions = await store.list_versions(connection, found.id) if include_versions else []
    body = shown(found)
    if include_versions:
        body["versions"] = [shown_version(each, found) for each in versions]
    if include_content:
        body |= {"content": await content_of(hub, version), "contentEncoding": "utf8"}
    return reply(body)


async def update_document(caller: CallerDep, actor: ActorDep, hub: HubDep, document_id: str, body: DocumentPatch) -> Response:
    """Change what is said of a document; what is not given stays. `content` makes a new version: in the place of the text, or with
    `operation` after (`append`) or before it (`prepend`)."""
    id_ = one(document_id)
    if body.content is None:
        async with hub.database.unit_of_work(actor) as uow:
            after = await service.update_document(uow, caller, id_, body)
    else:
        after = await _write(hub, caller, actor, id_, body)
    written = body.content is not None
    more = {"success": True, "documentId": after.id, "fileWritten": written, "message": "Document updated"}
    return reply({**shown(after), **more})


async def _write(hub: Hub, caller: Caller, actor: Actor, document_id: str, body: DocumentPatch) -> Document:
    async with hub.database.read() as connection:
        before, version = await service.get_version(connection, caller, document_id)
    if before.kind not in _EDITABLE:
        raise Invalid("content", f"The text of a {before.kind} document cannot be changed: send a new file (PUT)")
    if version.truncated and body.operation != "replace":
        raise Invalid("operation", "The document is too long to be added to: send a new file (PUT)", body.operation)
    content = body.content or ""
    if body.operation != "replace":
        old = await content_of(hub, version)
        content = f"{old}\n{content}" if body.operation == "append" else f"{content}\n{old}"
    unit = hub.database.unit_of_work(actor)
    about = DocumentForm.model_validate(body.model_dump(exclude={"content", "operation"}, exclude_unset=True))
    async with prepared_text(hub.library, caller, content, before.kind, before.file_name) as prepared, unit as uow:
        return await service.add_version(uow, caller, hub.settings, document_id, prepared, about, base=before.version)


async def delete_document(caller: CallerDep, uow: UowDep, document_id: str) -> Response:
    """Remove a document with all its versions."""
    await service.delete_document(uow, caller, one(document_id))
    return Response(status_code=204)


async def list_versions(caller: CallerDep, connection: ReadDep, document_id: str, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The versions of a document, the newest first; the last 50 are kept."""
    found = await service.get_document(connection, caller, one(document_id))
    versions = await store.list_versions(connection, found.id)
    page = [shown_version(each, found) for each in versions[offset : offset + limit]]
    return reply({"versions": page, "total": len(versions), "limit": limit, "offset": offset})


async def get_version(caller: CallerDep, hub: HubDep, document_id: str, number: str) -> Response:
    """One version with the text in it."""
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise DocumentNotFound
    async with hub.database.read() as connection:
        found, version = await service.get_version(connection, caller, one(document_id), int(number))
    more = {"id": found.id, "content": await content_of(hub, version), "textTruncated": version.truncated}
    return reply({**shown_version(version, found), **more})


async def compare_versions(caller: CallerDep, hub: HubDep, document_id: str, v1: First = None, v2: Second = None) -> Response:
    """What differs between the texts of two versions, as a unified diff of at most 1 MiB."""
    id_ = one(document_id)
    async with hub.database.read() as connection:
        found, newer = await service.get_version(connection, caller, id_, v2)
        _, older = await service.get_version(connection, caller, id_, v1 or max(1, newer.number - 1))
    async with hub.library.desk() as folder:
        for name, version in (("old", older), ("new", newer)):
            await asyncio.to_thread((folder / name).write_text, await content_of(hub, version))
        diff, told = await hub.library.readers.diff(folder / "old", folder / "new")
    counts = {name: told[name] for name in ("added", "removed", "truncated")}
    same = older.sha256 == newer.sha256
    text = diff.decode(errors="replace")
    return reply({"documentId": found.id, "v1": older.number, "v2": newer.number, "identical": same, **counts, "diff": text})


async def roll_back(caller: CallerDep, actor: ActorDep, hub: HubDep, document_id: str, body: Rollback) -> Response:
    """The content of an earlier version becomes a new version, and counts from now on."""
    async with hub.database.read() as connection:
        before, version = await service.get_version(connection, caller, one(document_id), body.version)
    chunks = await asyncio.to_thread(split, await content_of(hub, version))
    async with hub.database.unit_of_work(actor) as uow:
        after = await service.roll_back(uow, caller, version, before, service.passages_of(before, chunks))
    return reply(shown(after))


async def change_many(caller: CallerDep, actor: ActorDep, hub: HubDep, body: Bulk) -> Response:
    """Make up to 20 documents of texts, all or none; or remove, tag or untag up to 100 that are named, each by itself."""
    if body.documents is not None:
        made = await _make_many(hub, caller, actor, body.documents)
        results = [{"id": document.id, "status": "created", "document": shown(document)} for document in made]
        return reply({"results": results, "succeeded": len(results), "failed": 0})
    async with hub.database.unit_of_work(actor) as uow:
        outcomes = await service.change_many(uow, caller, body)
    results = [_outcome(outcome, str(body.operation)) for outcome in outcomes]
    failed = sum(outcome.document is None for outcome in outcomes)
    return reply({"results": results, "succeeded": len(results) - failed, "failed": failed})


async def _make_many(hub: Hub, caller: Caller, actor: Actor, texts: list[DocumentText]) -> list[Document]:
    async with AsyncExitStack() as stack:
        ready = []
        for text in texts:
            about = DocumentForm.model_validate(text.model_dump(exclude={"content", "format"}, exclude_unset=True))
            name = named(text.title, text.format)
            ready.append((await stack.enter_async_context(prepared_text(hub.library, caller, text.content, text.format, name)), about))
        async with hub.database.unit_of_work(actor) as uow:
            return [await service.create_document(uow, caller, hub.settings, prepared, about, "api") for prepared, about in ready]


def _outcome(outcome: Outcome, operation: str) -> dict[str, Any]:
    if outcome.document is None:
        return {"id": outcome.id, "status": "failed", "error": outcome.error}
    found: dict[str, Any] = {"id": outcome.id, "status": _DONE[operation]}
    return found if operation == "delete" else {**found, "document": shown(outcome.document)}


async def search_documents(caller: CallerDep, hub: HubDep, body: Search) -> Response:
    """The documents with passages that fit, the best first: by their words, and by their meaning where the model for it is installed.

    The query is a text: no character in it means anything but itself.
    """
    found = await search(hub.library, caller, body.query, body.filters)
    passages = by_document(found.passages)
    results = [
        {
            **{name: value for name, value in shown(each.document).items() if name in _OF_RESULT},
            "heading": each.heading,
            "snippet": snippet(each.text, found.words),
            "relevanceScore": round(each.score, 6),
        }
        for each in passages[body.offset : body.offset + body.limit]
    ]
    more = len(passages) > body.offset + body.limit
    page = {"total": len(passages), "limit": body.limit, "offset": body.offset, "hasMore": more}
    return reply({"results": results, **page, "search": {"mode": found.mode, "note": found.note}})


_OF_RESULT = frozenset(("id", "title", "description", "fileName", "mimeType", "tags", "source", "version", "createdAt", "updatedAt"))
_PATH, _TAG = "/api/documents", "Documents"
_ONE = _PATH + "/{document_id}"
_READ, _WRITE = "read:documents", "write:documents"
# The framework takes the first row that fits: what has a name before what has an id.
ROUTES = [
    Route("GET", _PATH, _READ, list_documents, "List documents", _TAG, output=DocumentList),
    Route("POST", _PATH + "/search", _READ, search_documents, "Search documents", _TAG, output=DocumentSearchOut),
    Route("POST", _PATH + "/bulk", _WRITE, change_many, "Make, remove or tag several documents", _TAG, output=BulkOut),
    Route("GET", _ONE, _READ, get_document, "Get a document", _TAG, output=DocumentOut),
    Route("PATCH", _ONE, _WRITE, update_document, "Change a document", _TAG, output=DocumentChangedOut),
    Route("DELETE", _ONE, _WRITE, delete_document, "Remove a document", _TAG, status=204),
    Route("GET", _ONE + "/versions", _READ, list_versions, "List a document's versions", _TAG, output=VersionList),
    Route("GET", _ONE + "/versions/{number}", _READ, get_version, "Get a version of a document", _TAG, output=VersionContent),
    Route("GET", _ONE + "/compare", _READ, compare_versions, "Compare two versions of a document", _TAG, output=ComparedOut),
    Route("POST", _ONE + "/rollback", _WRITE, roll_back, "Go back to a version of a document", _TAG, output=DocumentOut),
]
