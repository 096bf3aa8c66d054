"""What the hub itself offers at `/mcp` and in profiles, beside the servers: the documents of the caller's environment.

It is there for callers with `read:documents`, while there are documents: tools that can find nothing only cost a model its attention.
No name can be a server's: those of servers hold the slug and `__`, and their URIs begin with `plughub.`.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from plughub.documents import files, service
from plughub.documents.intake import text_of
from plughub.documents.schemas import MAX_QUERY, Document, Filters
from plughub.documents.search import by_document, search
from plughub.gateway.hub import Hub
from plughub.gateway.lists import RESOURCES, TEMPLATES, TOOLS, Kind
from plughub.kit.caller import Caller
from plughub.kit.errors import DocumentNotFound, HubError
from plughub.kit.ids import parse_uuid
from plughub.protocol.envelope import object_of
from plughub.upstream.target import Answer, RawJson

SCOPE = "read:documents"
SEARCH, GET = "search_documents", "get_document"
URI = "plughub://documents/"
# In one page, the oldest first; whoever has more finds them by searching.
MAX_LISTED = 1_000
_URI = re.compile(re.escape(URI) + r"([0-9a-fA-F-]{36})\Z")
_LIMIT, _MOST = 20_000, 100_000
_MARKED = ("md", "html", "docx")


class SearchArguments(msgspec.Struct, forbid_unknown_fields=True):
    """Of `search_documents`."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_QUERY)]
    tags: Annotated[list[Annotated[str, msgspec.Meta(max_length=50)]], msgspec.Meta(max_length=20)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5


class GetArguments(msgspec.Struct, forbid_unknown_fields=True):
    """Of `get_document`."""

    id: Annotated[str, msgspec.Meta(max_length=100)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = _LIMIT


def _tool(name: str, title: str, description: str, properties: dict[str, Any], required: str, output: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "name": name,
            "title": title,
            "description": description,
            "inputSchema": {"type": "object", "properties": properties, "required": [required], "additionalProperties": False},
            "outputSchema": {"type": "object", "properties": output, "required": list(output)},
            "annotations": {"title": title, "readOnlyHint": True, "openWorldHint": False},
        }
    )


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_RESULT = dict.fromkeys(("id", "uri", "title", "heading", "text"), _TEXT)
_TOOLS = [
    _tool(
        SEARCH,
        "Search documents",
        "Find passages in the documents of this organisation. Gives the best passage of each document that fits, with its id for "
        "get_document.",
        {
            "query": {**_TEXT, "minLength": 1, "maxLength": MAX_QUERY, "description": "Words, or a question"},
            "tags": {"type": "array", "items": _TEXT, "description": "Only documents with all of these tags"},
            "limit": {**_NUMBER, "minimum": 1, "maximum": 20, "default": 5},
        },
        "query",
        {"results": {"type": "array", "items": {"type": "object", "properties": _RESULT, "required": list(_RESULT)}}},
    ),
    _tool(
        GET,
        "Get a document",
        "The text of a document, or a part of it.",
        {
            "id": {**_TEXT, "description": "As search_documents gives it"},
            "offset": {**_NUMBER, "minimum": 0, "default": 0, "description": "The character to begin at"},
            "limit": {**_NUMBER, "minimum": 1, "maximum": _MOST, "default": _LIMIT, "description": "At most so many characters"},
        },
        "id",
        {
            **dict.fromkeys(("id", "uri", "title", "content"), _TEXT),
            **dict.fromkeys(("version", "offset", "total_characters"), _NUMBER),
            "next_offset": {"type": ["integer", "null"]},
        },
    ),
]
_TEMPLATE = msgspec.json.encode({"uriTemplate": URI + "{id}", "name": "document", "title": "A document", "mimeType": "text/plain"})


async def offered(hub: Hub, caller: Caller) -> bool:
    """Whether the caller sees any of it. Asked by every list, answered from memory."""
    return SCOPE in caller.scopes and await hub.library.filled(caller.space_id)


async def items(hub: Hub, caller: Caller, kind: Kind) -> Sequence[bytes]:
    """What stands in the list of that kind, after what the servers have."""
    if kind not in (TOOLS, RESOURCES, TEMPLATES) or not await offered(hub, caller):
        return ()
    if kind is TOOLS:
        return _TOOLS
    if kind is TEMPLATES:
        return (_TEMPLATE,)
    async with hub.database.read() as connection:
        page = await service.list_documents(connection, caller, Filters(), None, "date_asc", limit=MAX_LISTED, offset=0)
    return [msgspec.json.encode(_resource(found)) for found in page.items]


async def call(hub: Hub, caller: Caller, name: str, arguments: RawJson) -> Answer:
    """The result of one of the two tools; what is wrong with the arguments is the result of an error, for the model to read."""
    try:
        if name == SEARCH:
            return _result(*await _search(hub, caller, msgspec.json.decode(arguments, type=SearchArguments)))
        return _result(*await _get(hub, caller, msgspec.json.decode(arguments, type=GetArguments)))
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        return _failed(f"Invalid arguments: {error}")
    except HubError as error:
        return _failed(error.text)


async def read(hub: Hub, caller: Caller, uri: str) -> Answer | None:
    """The contents of a document; None when the URI is of none that the caller may read."""
    found = _URI.match(uri)
    document_id = parse_uuid(found[1]) if found is not None else None
    if document_id is None or SCOPE not in caller.scopes:
        return None
    try:
        document, text = await _content(hub, caller, document_id)
    except DocumentNotFound:
        return None
    contents = {"uri": uri, "mimeType": _mime_type(document), "text": text}
    return Answer(result=msgspec.json.encode({"contents": [contents]}))


async def _search(hub: Hub, caller: Caller, asked: SearchArguments) -> tuple[str, dict[str, Any]]:
    found = await search(hub.library, caller, asked.query, Filters(tags=asked.tags) if asked.tags else None)
    best = by_document(found.passages)[: asked.limit]
    results = [
        {"id": each.document.id, "uri": URI + each.document.id, "title": each.document.title, "heading": each.heading, "text": each.text}
        for each in best
    ]
    told = "\n\n".join(f"{each['title']} (id {each['id']}): {each['heading']}\n{each['text']}" for each in results)
    return told or "No document fits.", {"results": results}


async def _get(hub: Hub, caller: Caller, asked: GetArguments) -> tuple[str, dict[str, Any]]:
    document_id = parse_uuid(asked.id)
    if document_id is None:
        raise DocumentNotFound
    document, text = await _content(hub, caller, document_id)
    content = text[asked.offset : asked.offset + asked.limit]
    end = asked.offset + len(content)
    return content, {
        "id": document.id,
        "uri": URI + document.id,
        "title": document.title,
        "content": content,
        "version": document.version,
        "offset": asked.offset,
        "total_characters": len(text),
        "next_offset": end if end < len(text) else None,
    }


async def _content(hub: Hub, caller: Caller, document_id: str) -> tuple[Document, str]:
    async with hub.database.read() as connection:
        document, version = await service.get_version(connection, caller, document_id)
        size = await files.blob_size(connection, version.text_id)
    return document, await text_of(hub.library, version, size)


def _resource(found: Document) -> dict[str, Any]:
    said = {"description": found.description} if found.description else {}
    return {"uri": URI + found.id, "name": found.file_name, "title": found.title, **said, "mimeType": _mime_type(found)}


def _mime_type(found: Document) -> str:
    """Of the text in it, which is what is read."""
    return "text/markdown" if found.kind in _MARKED else "text/plain"


def _result(told: str, structured: dict[str, Any]) -> Answer:
    content = msgspec.json.encode([{"type": "text", "text": told}])
    return Answer(result=object_of({"content": content, "structuredContent": msgspec.json.encode(structured), "isError": b"false"}))


def _failed(why: str) -> Answer:
    return Answer(result=msgspec.json.encode({"content": [{"type": "text", "text": why}], "isError": True}))
