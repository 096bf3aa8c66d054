"""JSON-RPC on the way to a server and back: written anew from judged parts, read strictly, values left as bytes."""

import re
from collections.abc import Callable

import msgspec

from plughub.kit import strict_json
from plughub.kit.errors import Malformed, ParseError, UpstreamUnreachable
from plughub.protocol import versions
from plughub.upstream.target import Answer, Ask, Peer, RawJson

CLIENT_VERSION = "0.1.0"
CLIENT_INFO = msgspec.json.encode({"name": "plughub", "version": CLIENT_VERSION})
_VERSION_META = msgspec.json.encode(versions.META_VERSION) + b":" + msgspec.json.encode(versions.LATEST)
_CAPABILITIES_META, _INFO_META, _LOG_META = (
    msgspec.json.encode(name) + b":" for name in (versions.META_CAPABILITIES, versions.META_CLIENT_INFO, versions.META_LOG_LEVEL)
)
# What 2026-07-28 wants in every request's `_meta`, when the hub asks for itself: it declares no client capabilities.
MODERN_META = b",".join((_VERSION_META, _CAPABILITIES_META + b"{}", _INFO_META + CLIENT_INFO))
LEGACY_META = b""
# What may be asked a second time when a kept connection closed before the first byte of an answer.
REPEATABLE = frozenset(
    (
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "resources/read",
        "prompts/get",
    )
)
NO_METHOD = -32601
METHOD_NOT_FOUND = b'{"code":-32601,"message":"Method not found"}'

Id = int | float | str | None
UNSET = msgspec.UNSET


class Incoming(msgspec.Struct, gc=False):
    """One message of a server. What is not there is UNSET or empty; values are not yet looked into."""

    jsonrpc: msgspec.Raw = msgspec.Raw()
    id: Id | msgspec.UnsetType = msgspec.UNSET
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Progress(msgspec.Struct, gc=False):
    token: Id = msgspec.field(name="progressToken", default=None)


class RpcError(msgspec.Struct, gc=False):
    """The two required members of a JSON-RPC error, and `data` as it came."""

    code: int
    message: str = ""
    data: msgspec.Raw = msgspec.Raw()


_one = msgspec.json.Decoder(Incoming)
_many = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_progress = msgspec.json.Decoder(_Progress)
_error = msgspec.json.Decoder(RpcError)
_keys: dict[str, bytes] = {name: b'"' + name.encode() + b'":' for name in ("name", "arguments", "uri", "cursor", "ref", "argument")}
_methods: dict[str, bytes] = {
    name: b'"' + name.encode() + b'"'
    for name in ("tools/call", "tools/list", "resources/read", "resources/list", "prompts/get", "prompts/list", "ping")
}


# An escape that is whole (a pair of surrogates, or any other), or in group 1 half a pair.
_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.")


class Unreadable(ValueError):
    """A server sent what is no JSON-RPC message; the text says what is wrong with it."""


class Ambiguous(Unreadable):
    """A message with a key that appears twice: two readers would see two messages. `id` is the last one in it."""

    def __init__(self, text: str, id_: Id | msgspec.UnsetType) -> None:
        super().__init__(text)
        self.id = id_


def read_message(data: bytes | bytearray) -> Incoming:
    """One message, its keys proven unique. Raises Unreadable: no UTF-8, no JSON, no JSON-RPC; or Ambiguous."""
    try:
        if not data.isascii():
            data.decode()  # the JSON reader skips over strings without looking at their bytes
        message = _one.decode(data)
        if len(data) - _least(message) >= _SMALLEST_MEMBER:
            _check_unique(bytes(data), message)
        return message
    except UnicodeDecodeError as error:
        raise Unreadable("it is not valid UTF-8") from error
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        whole = _without_lone_surrogates(data)
        if whole != data:
            return read_message(whole)
        raise Unreadable(f"it is not a JSON-RPC message ({error})") from error


# `"id":1,`: with less room than that beside what was found, no key that is looked at can have come before.
_SMALLEST_MEMBER = 7


def _least(message: Incoming) -> int:
    """The bytes without which nothing of what was found could be there: keys, quotes, colons, commas, braces, values."""
    size = 1
    if message.jsonrpc:
        size += 11 + len(message.jsonrpc)
    if type(message.id) is int:
        size += 6 + len(str(message.id))
    if message.method is not None:
        size += 12 + len(message.method)
    if message.params:
        size += 10 + len(message.params)
    if message.result:
        size += 10 + len(message.result)
    if message.error:
        size += 9 + len(message.error)
    return size


def _check_unique(data: bytes, message: Incoming) -> None:
    try:
        strict_json.members(data.strip())
    except ParseError as error:
        raise Unreadable("it is not a JSON-RPC message (a key cannot be read)") from error
    except Malformed as error:
        # The key may be anything, a secret too, so only those of JSON-RPC are named, and the error that names it is left behind.
        name = next((f"the key '{key}'" for key in Incoming.__struct_fields__ if f"'{key}'" in error.text), "a key")
        raise Ambiguous(f"{name} appears twice", message.id) from None


def _without_lone_surrogates(data: bytes | bytearray) -> bytes:
    """JavaScript cuts texts in the middle of a character and escapes what is left; no strict reader takes that."""
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], data)


def read_messages(data: bytes | bytearray) -> list[Incoming]:
    """One message, or the several of a 2025-03-26 batch. Raises Unreadable."""
    if data.lstrip()[:1] != b"[":
        return [read_message(data)]
    try:
        return [read_message(bytes(part)) for part in _many.decode(data)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"it is not a JSON-RPC message ({error})") from error


def error_in(body: bytes) -> bytes:
    """The raw error of a body that is one message; empty when there is none."""
    try:
        return bytes(read_message(body).error)
    except Unreadable:
        return b""


def members_of(raw: RawJson) -> dict[str, RawJson]:
    """The members of a raw object as bytes; of anything else, none."""
    try:
        return {name: bytes(value) for name, value in _members.decode(raw).items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}


def progress_token(raw: RawJson) -> Id:
    """`progressToken` of raw params, or None."""
    try:
        return _progress.decode(raw).token
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def read_error(raw: RawJson) -> RpcError:
    """A raw JSON-RPC error. Raises Unreadable."""
    try:
        return _error.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Unreadable("its error is not a JSON-RPC error") from error


def code_of(raw: RawJson) -> int:
    """The number of a raw JSON-RPC error; 0 when it cannot be read."""
    try:
        return read_error(raw).code
    except Unreadable:
        return 0


def answer_of(message: Incoming) -> Answer:
    """What a response says; a null says nothing. Raises UpstreamUnreachable (may have run) when it is not one result or one error."""
    result = bytes(message.result)
    has_error = bool(message.error) and bytes(message.error) != b"null"
    if result[:1] == b"{":
        if has_error:
            raise bad_answer("it has both a result and an error")
        return Answer(result=result)
    if has_error and result in (b"", b"null"):
        try:
            read_error(message.error)
        except Unreadable as error:
            raise bad_answer(str(error)) from error
        return Answer(error=bytes(message.error))
    raise bad_answer("it has neither a result object nor an error")


def bad_answer(why: str) -> UpstreamUnreachable:
    """The error for an answer that came and cannot be used."""
    return UpstreamUnreachable(f"its answer cannot be read: {why}", executed="unknown")


def write_request(id_: int, ask: Ask, meta: bytes) -> bytes:
    """The request with our id; `meta` is what the era wants in `_meta` (members, without braces)."""
    method = ask.method
    name_of_method = _methods.get(method) or msgspec.json.encode(method)
    parts: list[RawJson] = [b'{"jsonrpc":"2.0","id":%d,"method":' % id_, name_of_method, b',"params":{']
    comma = b""
    for name, value in ask.params.items():
        if name != "_meta":
            parts += (comma, _keys.get(name) or msgspec.json.encode(name) + b":", value)
            comma = b","
    if meta or ask.meta or ask.progress:
        parts += (comma, b'"_meta":{', _meta(id_, ask, meta), b"}")
    parts.append(b"}}")
    return b"".join(parts)


def _meta(id_: int, ask: Ask, meta: bytes) -> bytes:
    parts: list[RawJson] = []
    if meta:
        parts.append(meta if ask.peer is None else modern_meta(ask.peer))
    if ask.meta:
        parts += [b"".join((msgspec.json.encode(name), b":", value)) for name, value in ask.meta.items()]
    if ask.progress:
        parts.append(b'"progressToken":%d' % id_)
    return b",".join(parts)


def modern_meta(peer: Peer) -> bytes:
    """What 2026-07-28 wants in `_meta`, on behalf of a client: what it can be asked, who it is, what it wants to hear."""
    parts = [_VERSION_META, _CAPABILITIES_META + (peer.capabilities or b"{}"), _INFO_META + (peer.info or CLIENT_INFO)]
    if peer.log_level is not None:
        parts.append(_LOG_META + peer.log_level)
    return b",".join(parts)


def write_notification(method: str, params: bytes = b"{}") -> bytes:
    """A notification with raw params."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (msgspec.json.encode(method), params)


def write_cancelled(id_: int, reason: str) -> bytes:
    """`notifications/cancelled` for a request of ours."""
    return write_notification("notifications/cancelled", b'{"requestId":%d,"reason":%b}' % (id_, msgspec.json.encode(reason)))


def write_reply(message: Incoming) -> bytes:
    """Our answer to a server's own request: we declare no capabilities, so only a ping has one."""
    id_ = msgspec.json.encode(message.id)
    if message.method == "ping":
        return b'{"jsonrpc":"2.0","id":%b,"result":{}}' % id_
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, METHOD_NOT_FOUND)


_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')


def guess_ids(head: bytes, tail: bytes) -> set[int]:
    """The ids that a message which cannot be read may carry, seen near its start or its end."""
    return {int(found) for part in (head[:256], tail[-256:]) for found in _ID.findall(part)}


def hand_over(notify: Callable[[str, dict[str, RawJson]], None], message: Incoming) -> None:
    """Hand a notification over without our progress token, which means nothing to anybody else."""
    params = members_of(message.params) if message.params else {}
    params.pop("progressToken", None)
    notify(message.method or "", params)
