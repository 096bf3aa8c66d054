"""What a handshake tells of a server, and what it may ask of a client."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from plughub.protocol.envelope import object_of

Era = Literal["legacy", "modern"]
# A JSON value as bytes or msgspec.Raw (typed as bytes): it passes as it came.
RawJson = bytes
# The requests that a server may send to a client, and the capability that allows each.
TASKS = "io.modelcontextprotocol/tasks"
QUESTIONS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the handshake (`initialize` or `server/discover`) told. The raw JSON values pass on as they came; `raw` is the whole result."""

    era: Era
    version: str
    capabilities: bytes
    server_info: bytes
    instructions: bytes | None = None
    raw: bytes = b"{}"


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def declared(capabilities: RawJson) -> dict[str, RawJson]:
    """The capabilities by name, raw; of what is no object, none."""
    try:
        return {name: bytes(value) for name, value in _members.decode(capabilities).items() if bytes(value) != b"null"}
    except (msgspec.DecodeError, RecursionError):
        return {}


def without_tasks(capabilities: RawJson) -> RawJson:
    """The capabilities for a client of the other era: the tasks of 2025-11-25 and the extension of that name are two things, and neither
    can be told as the other (reference `spec` 1.4).
    """
    if b"tasks" not in bytes(capabilities):
        return capabilities
    parts = declared(capabilities)
    parts.pop("tasks", None)
    extensions = declared(parts.get("extensions", b"{}"))
    if extensions.pop(TASKS, None) is not None:
        del parts["extensions"]
        if extensions:
            parts["extensions"] = object_of(extensions)
    return object_of(parts)


def lacking(capabilities: RawJson, method: str, params: RawJson) -> dict[str, object] | None:
    """What a client would have had to declare to be asked this question, as a capabilities object; None when it did.

    `elicitation` without a mode means forms (MCP 2025-11-25 "Elicitation", "Capabilities").
    """
    name = QUESTIONS[method]
    found = declared(capabilities).get(name)
    if name != "elicitation":
        return {name: {}} if found is None else None
    mode = "url" if declared(params).get("mode") == b'"url"' else "form"
    modes = declared(found) if found is not None else {}
    if mode in modes or (found is not None and mode == "form" and "url" not in modes):
        return None
    return {name: {mode: {}} if mode == "url" or modes else {}}
