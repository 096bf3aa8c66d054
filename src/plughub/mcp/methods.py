"""The methods of MCP: those that the hub answers itself, one row each, and the row of all that go to a server."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from plughub.bridge.results import error_for, result_for
from plughub.bridge.rounds import MAY_ASK, STATE, read_url_needed, write_input_required
from plughub.door.routes import AUTHENTICATED
from plughub.gateway.exchange import Exchanged
from plughub.gateway.parked import Turn
from plughub.kit.errors import InvalidParams, MissingCapability
from plughub.mcp.conversation import Conversation
from plughub.mcp.listen import LOG_LEVELS, listen, subscribe, unsubscribe
from plughub.mcp.render import status_of
from plughub.mcp.views import View
from plughub.protocol import versions
from plughub.protocol.envelope import error_frame, object_of, response_frame, text_of
from plughub.protocol.facts import Era, lacking, without_tasks
from plughub.upstream.target import Facts, Notify, Question, RawJson

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Method:
    """`scope` and `cost` as in a route row; `era`: clients of the other era do not have it; `handler` gives the whole JSON-RPC frame."""

    scope: str
    cost: int
    handler: Callable[[View, Conversation], Awaitable[bytes]]
    era: Era | None = None
    rests: bool = False  # a stream that holds a place among the streams, and none among the calls


async def initialize(view: View, talk: Conversation) -> bytes:
    """The handshake of the older revisions (MCP 2025-11-25 "Lifecycle"); begins a session."""
    message = talk.message
    requested = message.params.get("protocolVersion")
    if requested is None:
        raise InvalidParams("params.protocolVersion is missing")
    asked = text_of(requested, "params.protocolVersion")
    facts = await view.facts(talk)
    version = versions.negotiate(asked, facts.version)
    parts: dict[str, RawJson] = {
        **_introduction(facts, "legacy"),
        "protocolVersion": msgspec.json.encode(version),
        "serverInfo": facts.server_info,
    }
    capabilities = message.params.get("capabilities", b"{}")
    info = message.params.get("clientInfo")
    talk.opened = talk.sessions.open(talk.caller, view.door, version, b"" if capabilities == b"{}" else capabilities, info)
    return response_frame(message.id, object_of(parts))


async def discover(view: View, talk: Conversation) -> bytes:
    """`server/discover` of 2026-07-28."""
    facts = await view.facts(talk)
    parts: dict[str, RawJson] = {
        "resultType": b'"complete"',
        "ttlMs": b"0",
        "cacheScope": b'"private"',
        **_introduction(facts, "modern"),
        "supportedVersions": msgspec.json.encode(versions.MODERN),
    }
    meta: dict[str, RawJson] = dict(_members.decode(parts["_meta"])) if "_meta" in parts else {}
    parts["_meta"] = object_of({versions.META_SERVER_INFO: facts.server_info, **meta})
    return response_frame(talk.message.id, object_of(parts))


async def ping(view: View, talk: Conversation) -> bytes:
    """Still here."""
    return response_frame(talk.message.id, b"{}")


async def set_level(view: View, talk: Conversation) -> bytes:
    """`logging/setLevel`: what this session wants to hear from now on."""
    level = text_of(talk.message.params.get("level", b"null"), "params.level")
    if level not in LOG_LEVELS:
        raise InvalidParams(f"params.level must be one of {', '.join(LOG_LEVELS)}")
    if talk.session is not None:
        talk.session.log_level = msgspec.json.encode(level)
    return response_frame(talk.message.id, b"{}")


async def forward(view: View, talk: Conversation) -> bytes:
    """Whatever else there is: the server's to answer."""
    message = talk.message
    may_ask = message.modern and message.method in MAY_ASK and talk.peer().particular
    done = await (_ask_with_patience(view, talk, may_ask=may_ask) if may_ask or STATE in message.params else view.ask(talk))
    if done.answer.result is None:
        needed = _pages_needed(talk, done)
        if needed is not None:
            return response_frame(message.id, needed)
        error = done.answer.error or b'{"code":-32603,"message":"The server sent neither result nor error"}'
        error = error_for(error, message.method, done.facts, modern_client=message.modern)
        if message.modern:
            talk.status = status_of(error)
        return error_frame(message.id, error)
    return response_frame(message.id, result_for(done.answer.result, message.method, done.facts, modern_client=message.modern))


async def _ask_with_patience(view: View, talk: Conversation, *, may_ask: bool) -> Exchanged:
    """A request that comes back to one that waits; or whose server, being one of an older revision, may ask its client of 2026-07-28."""
    message, parking = talk.message, view.hub.parking
    turn = Turn(talk.caller, view.door, message.method, message.params, talk.notify, message.modern)

    async def allowed(server_id: str) -> None:
        await view.hub.exchange.target(talk.caller, server_id)
        talk.request.server_id = server_id

    resumed = await parking.resume(turn, allowed)
    if resumed is not None:
        return resumed
    if not may_ask:
        return await view.ask(talk)

    async def work(notify: Notify, ask: Question) -> Exchanged:
        talk.park(notify, ask)
        return await view.ask(talk)

    request = talk.request
    return await parking.begin(turn, work, lambda: request.server_id)


def _pages_needed(talk: Conversation, done: Exchanged) -> RawJson | None:
    """An older server's -32042 as 2026-07-28 says it: pages to go to, after which the client sends its request again."""
    message, error = talk.message, done.answer.error
    if not message.modern or done.facts.era == "modern" or error is None or message.method not in MAY_ASK:
        return None
    pages = read_url_needed(error)
    capabilities = message.meta.get(versions.META_CAPABILITIES, b"")
    for page in pages.values():
        lacks = lacking(capabilities, page.method, page.params)
        if lacks is not None:
            raise MissingCapability(requiredCapabilities=lacks)
    return write_input_required(pages, None) if pages else None


FORWARD = Method("execute:tools", 1, forward)
METHODS = {
    "initialize": Method("execute:tools", 1, initialize, "legacy"),
    "server/discover": Method("execute:tools", 1, discover, "modern"),
    "ping": Method(AUTHENTICATED, 0, ping, "legacy"),
    "logging/setLevel": Method("execute:tools", 1, set_level, "legacy"),
    "resources/subscribe": Method("execute:tools", 1, subscribe, "legacy"),
    "resources/unsubscribe": Method("execute:tools", 1, unsubscribe, "legacy"),
    "subscriptions/listen": Method("execute:tools", 1, listen, "modern", rests=True),
}


_OF_ONE_ERA = {"legacy": ("protocolVersion", "serverInfo"), "modern": ("resultType", "ttlMs", "cacheScope", "supportedVersions", "_meta")}


def _introduction(facts: Facts, client: Era) -> dict[str, RawJson]:
    """What the server said of itself, without what the other era does not know."""
    parts: dict[str, RawJson] = dict(_members.decode(facts.raw))
    if facts.era != client:
        for name in _OF_ONE_ERA[facts.era]:
            parts.pop(name, None)
    parts["capabilities"] = facts.capabilities if facts.era == client else without_tasks(facts.capabilities)
    if facts.instructions is not None:
        parts["instructions"] = facts.instructions
    return parts
