"""Results on their way from a server of one era to a client of the other (MCP 2026-07-28 "Results", reference `spec` 1.4).

Within one era a result passes as the bytes it came in. Across eras only what the other era demands is changed.
"""

import msgspec

from plughub.kit.errors import UpstreamError
from plughub.protocol.envelope import object_of
from plughub.protocol.facts import Facts, RawJson
from plughub.protocol.versions import META_SERVER_INFO

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tools = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_type_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Results that a modern client may cache must say for how long; a server that cannot know lets nobody keep them.
_CACHEABLE = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"})
_MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")


def result_for(result: RawJson, method: str, facts: Facts, *, modern_client: bool) -> RawJson:
    """The result of `method` as the client's era wants it.

    Raises UpstreamError when a modern server asks for input that an older client was not asked for, and when the result is none.
    """
    if modern_client == (facts.era == "modern"):
        return result
    try:
        return _to_modern(result, method, facts) if modern_client else _to_legacy(result, method)
    except msgspec.DecodeError as error:
        raise UpstreamError("MCP server sent a result that cannot be read", executed="unknown") from error


def _to_modern(result: RawJson, method: str, facts: Facts) -> bytes:
    parts: dict[str, RawJson] = dict(_members.decode(result))
    parts.setdefault("resultType", b'"complete"')
    if method in _CACHEABLE:
        parts.setdefault("ttlMs", b"0")
        parts.setdefault("cacheScope", b'"private"')
    meta: dict[str, RawJson] = dict(_members.decode(parts["_meta"])) if "_meta" in parts else {}
    meta.setdefault(META_SERVER_INFO, facts.server_info)
    parts["_meta"] = object_of(meta)
    return object_of(parts)


def _to_legacy(result: RawJson, method: str) -> bytes:
    parts: dict[str, RawJson] = dict(_members.decode(result))
    refuse_unread(bytes(parts.get("resultType", b"")))
    for name in _MODERN_ONLY:
        parts.pop(name, None)
    # Until 2025-11-25 structured content, and the schema that announces it, are objects.
    if bytes(parts.get("structuredContent", b"{"))[:1] != b"{":
        del parts["structuredContent"]
    if method == "tools/list" and "tools" in parts:
        parts["tools"] = b"[" + b",".join(_legacy_tool(tool) for tool in _tools.decode(parts["tools"])) + b"]"
    return object_of(parts)


_NOT_FOUND, _INVALID_PARAMS = -32002, -32602


class _Numbered(msgspec.Struct):
    code: int


_numbered = msgspec.json.Decoder(_Numbered)


def error_for(error: RawJson, method: str, facts: Facts, *, modern_client: bool) -> RawJson:
    """A server's error with the number that the client's era gives to it: a missing resource is -32602 since 2026-07-28."""
    if method != "resources/read" or modern_client == (facts.era == "modern"):
        return error
    was, wanted = (_NOT_FOUND, _INVALID_PARAMS) if modern_client else (_INVALID_PARAMS, _NOT_FOUND)
    try:
        if _numbered.decode(error).code != was:
            return error
        return object_of({**_members.decode(error), "code": b"%d" % wanted})
    except (msgspec.DecodeError, msgspec.ValidationError):
        return error


def refuse_unread(result_type: bytes) -> None:
    """Raise UpstreamError when a modern server's raw `resultType` says that this is no answer that whoever is in front can read: it waits
    for input that nobody here can be asked for, or it is of an extension (a task, say) that was not announced here.
    """
    if result_type == b'"input_required"':
        raise UpstreamError("The MCP server asks for input, which this door cannot pass on", executed="no")
    if result_type not in (b"", b'"complete"'):
        raise UpstreamError("The MCP server sent a kind of result that this door cannot pass on", executed="unknown")


def _legacy_tool(tool: dict[str, msgspec.Raw]) -> bytes:
    schema = tool.get("outputSchema")
    if schema is not None and bytes(_type_of.decode(schema).get("type", b"")) != b'"object"':
        return object_of({name: value for name, value in tool.items() if name != "outputSchema"})
    return object_of(tool)
