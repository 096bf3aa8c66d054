"""Files of documents on their way in and out, as raw requests: neither is ever whole in memory."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import encode_rfc2231
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from plughub.api.document_forms import is_form, read_form, validated
from plughub.api.document_shapes import DocumentOut, UploadForm
from plughub.api.document_views import named, one, shown
from plughub.documents import files, service
from plughub.documents.intake import Prepared, prepared_file, prepared_text
from plughub.documents.kinds import KINDS
from plughub.documents.library import Landing
from plughub.documents.schemas import Document, DocumentForm, DocumentText, NewContent, TextFormat, Version
from plughub.door.actor import actor_of
from plughub.door.request import Request
from plughub.door.routes import Route
from plughub.door.stream import unless_gone
from plughub.gateway.hub import Hub
from plughub.kit.errors import DocumentNotFound, RangeNotSatisfiable

_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})\Z")
Sent = TypeVar("Sent", DocumentText, NewContent)
# Nothing in a file may run as if it were ours, whatever a browser makes of it.
_SANDBOX = (b"content-security-policy", b"sandbox; default-src 'none'")
_TEXTS: Mapping[str, TextFormat] = {"md": "md", "txt": "txt", "html": "html", "csv": "csv"}
_OPAQUE = "application/octet-stream"


class DocumentFiles:
    """The hot handlers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._library = hub.library

    async def create(self, request: Request) -> None:
        """Make a document of a file (`multipart/form-data`: `file`, and beside it `title`, `description`, `category`, `tags`,
        `metadata`), or of a text (JSON). Its kind is told by its bytes: pdf, docx, md, txt, html or csv.
        """
        caller, body = request.known_caller(), await self._body(request, DocumentText)
        unit = self._hub.database.unit_of_work(actor_of(request))
        async with self._incoming(request, body) as (prepared, about, source), unit as uow:
            made = await service.create_document(uow, caller, self._hub.settings, prepared, about, source)
        await request.respond(201, msgspec.json.encode(shown(made)))

    async def replace(self, request: Request) -> None:
        """A new version of a document, of a file or of a text as in making one; what is not given beside it stays as it is."""
        caller, body, document_id = request.known_caller(), await self._body(request, NewContent), one(request.values[0])
        async with self._hub.database.read() as connection:
            before = await service.get_document(connection, caller, document_id)
        unit = self._hub.database.unit_of_work(actor_of(request))
        async with self._incoming(request, body, before) as (prepared, about, _), unit as uow:
            made = await service.add_version(uow, caller, self._hub.settings, document_id, prepared, about)
        await request.respond(200, msgspec.json.encode(shown(made)))

    async def download(self, request: Request) -> None:
        """The file as it was sent, or a range of its bytes; `?version=` an earlier one. It is always a download, never a page."""
        caller, document_id = request.known_caller(), one(request.values[0])
        await request.body(self._hub.settings.max_body_bytes)  # what watches for the client's leaving reads on from here
        async with self._hub.database.read() as connection:
            found, version = await service.get_version(connection, caller, document_id, _version(request))
        headers = _headers(found, version)
        if _unchanged(request, version):
            await request.respond(304, b"", extra=[pair for pair in headers if pair[0] not in (b"content-type", b"content-disposition")])
            return
        begin, end = _wanted(request, version)
        headers.append((b"content-length", b"%d" % (end - begin)))
        partial = (begin, end) != (0, version.size)
        if partial:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (begin, end - 1, version.size)))
        request.started, request.status = True, 206 if partial else 200
        await request.send({"type": "http.response.start", "status": request.status, "headers": [*request.base_headers(), *headers]})
        if request.scope["method"] != "HEAD":
            await unless_gone(request, self._send(request, version, begin, end))
        await request.send({"type": "http.response.body", "body": b""})

    async def _send(self, request: Request, version: Version, begin: int, end: int) -> None:
        async for part in files.read_range(self._hub.database, version.blob_id, begin, end):
            await request.write(part)

    async def _body(self, request: Request, model: type[Sent]) -> Sent | None:
        """A JSON body; None for a form, which is read as it comes in."""
        if is_form(request):
            return None
        limit_bytes = self._hub.settings.max_body_bytes
        found: Sent = validated(model, await request.json_body(limit_bytes), limit_bytes)
        return found

    @asynccontextmanager
    async def _incoming(
        self, request: Request, body: DocumentText | NewContent | None, before: Document | None = None
    ) -> AsyncIterator[tuple[Prepared, DocumentForm, str]]:
        """What the body or the form holds, ready to be kept, what is said of it, and where it came from."""
        caller, settings = request.known_caller(), self._hub.settings
        if body is not None:
            about = DocumentForm.model_validate(body.model_dump(exclude={"content", "format"}, exclude_unset=True))
            kind, name = _kind_and_name(body, before)
            async with prepared_text(self._library, caller, body.content, kind, name) as prepared:
                yield prepared, about, "api"
            return
        async with self._library.desk() as folder:
            landing = Landing(folder / "file", settings.max_document_bytes)
            incoming, form = await read_form(request, landing, settings.max_document_bytes)
            async with prepared_file(self._library, caller, incoming) as prepared:
                yield prepared, form, "upload"


def _kind_and_name(body: DocumentText | NewContent, before: Document | None) -> tuple[str, str]:
    """The kind of a text, and the name of its file: those of the version before it, where they fit."""
    if before is None:
        kind = body.format or "md"
        return kind, named(body.title or "", kind)
    kind = body.format or _TEXTS.get(before.kind, "md")
    return kind, before.file_name if kind == before.kind else named(body.title or before.title, kind)


def _version(request: Request) -> int | None:
    query: bytes = request.scope["query_string"]
    text = parse_qs(query.decode("latin-1")).get("version", [""])[-1]
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DocumentNotFound(f"The document has no version {text[:20]}")
    return int(text) if text else None


def _headers(found: Document, version: Version) -> list[tuple[bytes, bytes]]:
    kind = KINDS[version.kind].mime_type if version.kind != "html" else _OPAQUE
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", version.file_name)
    names = f'filename="{plain}"; filename*={encode_rfc2231(version.file_name, "utf-8")}'
    return [
        (b"content-type", kind.encode()),
        (b"content-disposition", b"attachment; " + names.encode()),
        (b"accept-ranges", b"bytes"),
        (b"etag", _tag(version)),
        (b"cache-control", b"private, no-cache"),
        _SANDBOX,
    ]


def _tag(version: Version) -> bytes:
    return b'"' + version.sha256.encode() + b'"'


def _unchanged(request: Request, version: Version) -> bool:
    wanted = [part.strip().removeprefix(b"W/") for part in request.headers.get(b"if-none-match", b"").split(b",")]
    return _tag(version) in wanted or wanted == [b"*"]


def _wanted(request: Request, version: Version) -> tuple[int, int]:
    """The first byte, and the one after the last (RFC 9110 section 14). Several ranges, or none that can be read: all of it."""
    found = _RANGE.match(request.headers.get(b"range", b"").replace(b" ", b""))
    if found is None or found[0] == b"bytes=-" or request.headers.get(b"if-range", _tag(version)) != _tag(version):
        return 0, version.size
    first, last = found[1], found[2]
    if not first:
        begin, end = max(0, version.size - int(last)), version.size
    else:
        begin, end = int(first), min(int(last) + 1, version.size) if last else version.size
        if last and int(last) < begin:
            return 0, version.size
    if begin >= version.size or begin >= end:
        raise RangeNotSatisfiable(headers={"content-range": f"bytes */{version.size}"})
    return begin, end


def routes(hub: Hub) -> list[Route]:
    """The rows."""
    door, path, tag = DocumentFiles(hub), "/api/documents", "Documents"
    kinds = [KINDS[name].mime_type for name in ("md", "txt", "csv", "pdf", "docx")]
    create = Route("POST", path, "write:documents", door.create, "Make a document", tag, status=201, hot=True)
    create = replace(create, input=DocumentText, form=UploadForm, output=DocumentOut)
    change = Route("PUT", path + "/{document_id}", "write:documents", door.replace, "Make a new version of a document", tag, hot=True)
    download = Route("GET", path + "/{document_id}/download", "read:documents", door.download, "Download a document", tag, hot=True)
    return [
        create,
        replace(create, path=path + "/upload", summary="Upload a document"),
        replace(change, input=NewContent, form=UploadForm, output=DocumentOut),
        replace(download, output=bytes, output_kind=kinds[0], other_kinds=(*kinds[1:], _OPAQUE)),
    ]
