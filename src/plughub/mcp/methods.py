"""The methods of MCP that the hub answers: one row each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from plughub.bridge.results import result_for
from plughub.door.routes import AUTHENTICATED
from plughub.kit.errors import InvalidParams
from plughub.mcp.views import Asking, View
from plughub.protocol import versions
from plughub.protocol.envelope import error_frame, object_of, response_frame, text_of
from plughub.upstream.target import Facts, RawJson


@dataclass(frozen=True, slots=True)
class Method:
    """`scope` and `cost` as in a route row; `handler` gives the whole JSON-RPC frame."""

    scope: str
    cost: int
    handler: Callable[[View, Asking], Awaitable[bytes]]
    streams: bool = False


async def initialize(view: View, asking: Asking) -> bytes:
    """The handshake of the older revisions (MCP 2025-11-25 "Lifecycle")."""
    message = asking.message
    requested = message.params.get("protocolVersion")
    if requested is None:
        raise InvalidParams("params.protocolVersion is missing")
    facts = await view.facts(asking.caller)
    parts: dict[str, RawJson] = {
        "protocolVersion": msgspec.json.encode(versions.negotiate(text_of(requested, "params.protocolVersion"))),
        **_self_description(facts),
        "serverInfo": facts.server_info,
    }
    return response_frame(message.id, object_of(parts))


async def discover(view: View, asking: Asking) -> bytes:
    """`server/discover` of 2026-07-28."""
    facts = await view.facts(asking.caller)
    parts: dict[str, RawJson] = {
        "resultType": b'"complete"',
        "supportedVersions": msgspec.json.encode(versions.MODERN),
        **_self_description(facts),
        "ttlMs": b"0",
        "cacheScope": b'"private"',
        "_meta": object_of({versions.META_SERVER_INFO: facts.server_info}),
    }
    return response_frame(asking.message.id, object_of(parts))


async def ping(view: View, asking: Asking) -> bytes:
    """Still here."""
    return response_frame(asking.message.id, b"{}")


async def list_tools(view: View, asking: Asking) -> bytes:
    """`tools/list`."""
    done = await view.list_tools(asking)
    return _frame(done.answer.result, done.answer.error, done.facts, asking)


async def call_tool(view: View, asking: Asking) -> bytes:
    """`tools/call`."""
    done = await view.call_tool(asking)
    return _frame(done.answer.result, done.answer.error, done.facts, asking)


METHODS = {
    "initialize": Method("execute:tools", 1, initialize),
    "server/discover": Method("execute:tools", 1, discover),
    "ping": Method(AUTHENTICATED, 0, ping),
    "tools/list": Method("execute:tools", 1, list_tools),
    "tools/call": Method("execute:tools", 1, call_tool, streams=True),
}


def _frame(result: RawJson | None, error: RawJson | None, facts: Facts, asking: Asking) -> bytes:
    message = asking.message
    if result is None:
        return error_frame(message.id, error or b'{"code":-32603,"message":"The server sent neither result nor error"}')
    return response_frame(message.id, result_for(result, message.method, facts, modern_client=message.modern))


def _self_description(facts: Facts) -> dict[str, RawJson]:
    # Only what this door passes on is announced: announcing the server's prompts would promise methods that are refused here.
    parts: dict[str, RawJson] = {"capabilities": b'{"tools":{}}'}
    if facts.instructions is not None:
        parts["instructions"] = facts.instructions
    return parts
