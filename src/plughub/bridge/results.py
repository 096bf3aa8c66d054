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
    refuse_input(bytes(parts.get("resultType", b"")))
    for name in _MODERN_ONLY:
        parts.pop(name, None)
    # Until 2025-11-25 structured content, and the schema that announces it, are objects.
    if bytes(parts.get("structuredContent", b"{"))[:1] != b"{":
        del parts["structuredContent"]
    if method == "tools/list" and "tools" in parts:
        parts["tools"] = b"[" + b",".join(_legacy_tool(tool) for tool in _tools.decode(parts["tools"])) + b"]"
    return object_of(parts)


def refuse_input(result_type: bytes) -> None:
    """Raise UpstreamError when a modern server's raw `resultType` says that it waits for input that nobody here can be asked for."""
    if result_type == b'"input_required"':
        raise UpstreamError("The MCP server asks for input, which this door cannot pass on", executed="no")


def _legacy_tool(tool: dict[str, msgspec.Raw]) -> bytes:
    schema = tool.get("outputSchema")
    if schema is not None and bytes(_type_of.decode(schema).get("type", b"")) != b'"object"':
        return object_of({name: value for name, value in tool.items() if name != "outputSchema"})
    return object_of(tool)
