"""Decide what an MCP message over HTTP is, from its headers and its body alone (MCP 2026-07-28 "Transports", 2025-11-25 ditto).

The rungs, first failure wins: readable JSON object; JSON-RPC 2.0; one message, not a batch; kind by its members; revision by
header. Then, with the id known that the error must carry, for a modern request `check_modern`: the required `_meta`, the required
headers, each compared with the body, and last whether the revision is spoken. Blanks around a header's value are no part of it.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from plughub.kit.errors import HeaderMismatch, InvalidParams, Malformed, UnsupportedVersion
from plughub.kit.strict_json import check_depth, members, utf8
from plughub.protocol import versions

Headers = Mapping[bytes, bytes]

_string = msgspec.json.Decoder(str)
_NO_PARAMS: dict[str, bytes] = {}
# Where the name stands that the Mcp-Name header repeats.
NAME_MEMBER = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_B64_START, _B64_END = "=?base64?", "?="
BLANKS = b" \t"


@dataclass(slots=True)
class Request:
    """A request: `id` is raw JSON, given back as it came; `meta` is the members of `params._meta`."""

    id: bytes
    method: str
    params: dict[str, bytes]
    meta: dict[str, bytes]
    version: str
    modern: bool


@dataclass(slots=True)
class Notification:
    """A message that wants no answer."""

    method: str
    params: dict[str, bytes]
    version: str


@dataclass(slots=True)
class Response:
    """The client's answer to a request of ours: its raw result or error."""

    id: bytes
    result: bytes | None = None
    error: bytes | None = None


Message = Request | Notification | Response


def classify(headers: Headers, body: bytes) -> Message:
    """What the client sent. Raises ParseError, Malformed or InvalidParams."""
    utf8(body)
    check_depth(body)
    plain = _plain(body)
    if plain is not None:
        return _told(headers, bytes(plain.id) or None, plain.method, members(bytes(plain.params)) if plain.params else _NO_PARAMS)
    if body[:1] == b"[":
        raise Malformed("Batches are not accepted")
    parts = members(body)
    if parts.get("jsonrpc") != b'"2.0"':
        raise Malformed('"jsonrpc" must be "2.0"')
    id_, raw_method = parts.get("id"), parts.get("method")
    if raw_method is None:
        if id_ is None or not ("result" in parts or "error" in parts):
            raise Malformed("The message is neither a request nor a notification nor a response")
        return Response(id_, parts.get("result"), parts.get("error"))
    raw_params = parts.get("params")
    return _told(headers, id_, text_of(raw_method, "method"), members(raw_params) if raw_params is not None else _NO_PARAMS)


class _Plain(msgspec.Struct, gc=False):
    """A request or notification as nearly every client writes it: these members, and not a blank between them."""

    method: str
    jsonrpc: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw()


_plain_message = msgspec.json.Decoder(_Plain)
# `{"jsonrpc":"2.0","method":""}`, `"id":,` and `"params":,`
_LEAST, _LEAST_ID, _LEAST_PARAMS = 29, 6, 10


def _plain(body: bytes) -> _Plain | None:
    """The body if it is that; None says nothing but that it must be read the long way.

    What was found needs so many bytes at least, so a body of that length holds nothing else, and no key twice.
    """
    try:
        found = _plain_message.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    size = _LEAST + len(found.method)
    if found.id:
        size += _LEAST_ID + len(found.id)
    if found.params:
        size += _LEAST_PARAMS + len(found.params)
    return found if size == len(body) and found.jsonrpc and bytes(found.jsonrpc) == b'"2.0"' else None


def _told(headers: Headers, id_: bytes | None, method: str, params: dict[str, bytes]) -> Request | Notification:
    version = headers.get(b"mcp-protocol-version", b"").strip(BLANKS).decode("latin-1")
    if id_ is None:
        return Notification(method, params, version or versions.ASSUMED)
    if id_[:1] not in b'"-0123456789' or not id_:
        raise Malformed('"id" must be a string or a number')
    raw_meta = params.get("_meta")
    if raw_meta is None and method != "initialize" and version in versions.LEGACY:
        return Request(id_, method, params, _NO_PARAMS, version, False)
    meta = members(raw_meta) if raw_meta is not None else _NO_PARAMS
    # A handshake begins the talk, whatever the header says; but where it says a revision that has none, that is meant.
    modern = version in versions.MODERN if method == "initialize" else _is_modern(version, meta)
    return Request(id_, method, params, meta, version or versions.ASSUMED, modern)


def _is_modern(version: str, meta: Mapping[str, bytes]) -> bool:
    """A header that names no legacy revision, or a body that names a revision at all, speaks the modern way."""
    return (version != "" and version not in versions.LEGACY) or versions.META_VERSION in meta


def check_modern(headers: Headers, request: Request) -> None:
    """The duties of 2026-07-28: revision, method and name are repeated truly, and the revision is ours.

    Raises HeaderMismatch, InvalidParams or UnsupportedVersion.
    """
    version = header_of(headers, b"mcp-protocol-version")
    stated = request.meta.get(versions.META_VERSION)
    if stated is None and version not in versions.MODERN:
        raise _unsupported(version)  # of whatever else that revision may want we know nothing
    if stated is None or versions.META_CAPABILITIES not in request.meta:
        missing = versions.META_VERSION if stated is None else versions.META_CAPABILITIES
        raise InvalidParams(f"params._meta lacks {missing}")
    if text_of(stated, versions.META_VERSION) != version:
        raise HeaderMismatch("MCP-Protocol-Version header is missing or does not match the request body's protocolVersion")
    if header_of(headers, b"mcp-method") != request.method:
        raise HeaderMismatch("Mcp-Method header is missing or does not match the request body's method")
    _check_name(headers, request)
    if version not in versions.MODERN:
        raise _unsupported(version)


def _unsupported(version: str) -> UnsupportedVersion:
    return UnsupportedVersion(supported=list(versions.MODERN), requested=version)


def _check_name(headers: Headers, request: Request) -> None:
    member = NAME_MEMBER.get(request.method)
    if member is not None:
        name = request.params.get(member)
        header = headers.get(b"mcp-name")
        if name is None:
            raise InvalidParams(f"params.{member} is missing")
        if header is None or decode_header(header.strip(BLANKS)) != text_of(name, member):
            raise HeaderMismatch(f"Mcp-Name header is missing or does not match params.{member}")


def header_of(headers: Headers, name: bytes) -> str:
    """A header's text without the blanks around it, which not every HTTP server takes off; empty when there is none."""
    return headers.get(name, b"").strip(BLANKS).decode("latin-1")


def text_of(raw: bytes, field: str) -> str:
    """The string in a raw value. Raises InvalidParams naming the field."""
    try:
        return _string.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidParams(f"{field} must be a string") from error


def decode_header(value: bytes) -> str | None:
    """A header's text: plain, or `=?base64?…?=` for what ASCII cannot say; None when it cannot be decoded."""
    text = value.decode("latin-1")
    if not (text.startswith(_B64_START) and text.endswith(_B64_END)):
        return text
    try:
        inner = text[len(_B64_START) : -len(_B64_END)]
        plain = base64.b64decode(inner, validate=True)
        # Of the ways to write the same bytes one alone counts, as everybody else who compares will have it.
        return plain.decode() if base64.b64encode(plain).decode() == inner else None
    except (ValueError, UnicodeDecodeError):
        return None


def encode_header(text: str) -> bytes:
    """A header's value: plain, or `=?base64?…?=` for what ASCII cannot say, or what would not arrive as it was sent."""
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?"):
        return text.encode("ascii")
    return b"=?base64?" + base64.b64encode(text.encode("utf-8", "surrogatepass")) + b"?="


def response_frame(id_: bytes, result: bytes) -> bytes:
    """A JSON-RPC result with the caller's own id."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_, result)


def error_frame(id_: bytes, error: bytes) -> bytes:
    """A JSON-RPC error with the caller's own id."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, error)


def request_frame(id_: bytes, method: str, params: bytes) -> bytes:
    """A JSON-RPC request of ours to a client."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (id_, msgspec.json.encode(method), params)


def cancelled_frame(id_: bytes) -> bytes:
    """We do not want the answer to that request any more."""
    return b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}' % id_


def sse_message(frame: bytes) -> bytes:
    """A JSON-RPC message as a frame of an event stream. JSON of one line stays one line; others are split as SSE wants."""
    if b"\n" in frame or b"\r" in frame:
        frame = frame.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\ndata: %b\n\n" % frame


def object_of(parts: Mapping[str, bytes]) -> bytes:
    """A JSON object written anew from raw values: its keys are ours, its values pass as they came."""
    return b"{" + b",".join([b"%b:%b" % (_key(name), value) for name, value in parts.items()]) + b"}"


_keys: dict[str, bytes] = {
    name: msgspec.json.encode(name) for name in ("name", "arguments", "_meta", "uri", "cursor", "description", "inputSchema", "resultType")
}


def _key(name: str) -> bytes:
    return _keys.get(name) or msgspec.json.encode(name)
