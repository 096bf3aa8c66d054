"""Decide what an MCP message over HTTP is, from its headers and its body alone (MCP 2026-07-28 "Transports", 2025-11-25 ditto).

The rungs, first failure wins: readable JSON object; JSON-RPC 2.0; one message, not a batch; kind by its members; revision by
header. Then, with the id known that the error must carry, for a modern request `check_modern`: the required headers and `_meta`,
each compared with the body.
"""

import base64
import binascii
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
    method = text_of(raw_method, "method")
    raw_params = parts.get("params")
    params = members(raw_params) if raw_params is not None else _NO_PARAMS
    version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    if id_ is None:
        return Notification(method, params, version or versions.ASSUMED)
    raw_id = id_
    if raw_id[:1] not in b'"-0123456789' or not raw_id:
        raise Malformed('"id" must be a string or a number')
    raw_meta = params.get("_meta")
    meta = members(raw_meta) if raw_meta is not None else _NO_PARAMS
    modern = method != "initialize" and _is_modern(version, meta)
    return Request(raw_id, method, params, meta, version or versions.ASSUMED, modern)


def _is_modern(version: str, meta: Mapping[str, bytes]) -> bool:
    """A header that names no legacy revision, or a body that names a revision at all, speaks the modern way."""
    return (version != "" and version not in versions.LEGACY) or versions.META_VERSION in meta


def check_modern(headers: Headers, request: Request) -> None:
    """The duties of 2026-07-28: the header's revision is ours and the body's, method and name are repeated truly.

    Raises HeaderMismatch, InvalidParams or UnsupportedVersion.
    """
    version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    if not version:
        raise HeaderMismatch("The MCP-Protocol-Version header is missing")
    if version not in versions.MODERN:
        raise UnsupportedVersion(supported=list(versions.MODERN), requested=version)
    stated = request.meta.get(versions.META_VERSION)
    if stated is None or versions.META_CAPABILITIES not in request.meta:
        missing = versions.META_VERSION if stated is None else versions.META_CAPABILITIES
        raise InvalidParams(f"params._meta lacks {missing}")
    if text_of(stated, versions.META_VERSION) != version:
        raise HeaderMismatch("MCP-Protocol-Version header does not match the request body's protocolVersion")
    if headers.get(b"mcp-method", b"").decode("latin-1") != request.method:
        raise HeaderMismatch("Mcp-Method header is missing or does not match the request body's method")
    member = NAME_MEMBER.get(request.method)
    if member is not None:
        name = request.params.get(member)
        header = headers.get(b"mcp-name")
        if name is None:
            raise InvalidParams(f"params.{member} is missing")
        if header is None or decode_header(header) != text_of(name, member):
            raise HeaderMismatch(f"Mcp-Name header is missing or does not match params.{member}")


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
        return base64.b64decode(text[len(_B64_START) : -len(_B64_END)], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


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
