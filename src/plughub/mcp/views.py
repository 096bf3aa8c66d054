"""What an MCP client can be connected to, as the methods see it; and one server."""

from collections.abc import Awaitable, Iterable
from functools import cache
from typing import Protocol

from plughub.door.request import Request
from plughub.gateway.exchange import Call, Exchanged
from plughub.gateway.hub import Hub
from plughub.gateway.lists import must_be_usable, usable
from plughub.kit.caller import Caller
from plughub.kit.errors import HeaderMismatch, InvalidParams, ServerNotFound
from plughub.kit.ids import parse_uuid
from plughub.mcp.conversation import Conversation
from plughub.protocol.envelope import NAME_MEMBER, text_of
from plughub.upstream.target import Facts, RawJson, Target

ONE_SERVER_PATH = "/servers/{uuid}/mcp"
ONE_PROFILE_PATH = "/mcp/{profile_slug}"


class View(Protocol):
    """What the methods ask of the thing a client is connected to. `door` names it: a session belongs to one. `one` is the server
    when there is one alone; `grows`: what is registered later is behind it too."""

    hub: Hub
    door: str
    one: str | None
    grows: bool

    async def facts(self, talk: Conversation) -> Facts:
        """What it says of itself."""

    def forwards(self, method: str) -> bool:
        """Whether it has an answer to that method."""

    def ask(self, talk: Conversation) -> Awaitable[Exchanged]:
        """The answer of whoever has it."""

    async def server_ids(self, caller: Caller) -> Iterable[str]:
        """The servers behind it."""

    async def resource(self, talk: Conversation, uri: str) -> tuple[Target, str] | None:
        """The server that has the resource, and the server's own URI of it."""

    def outward(self, slug: str, uri: str) -> str:
        """The URI that a server's resource has here."""


def call_of(hub: Hub, talk: Conversation, target: Target, name: str | None, params: dict[str, RawJson]) -> Call:
    """The call of `target` that the exchange makes of a message."""
    message = talk.message
    request = talk.request
    return Call(
        message.method, params, request.id, "mcp", hub.call_timeout_s(target), name, message.meta, talk.peer(), trace=request.trace_on()
    )


@cache
def _told(path: str) -> str:
    """What the row of a call says of its route: the row tells the door, and this door has several paths."""
    return "{}" if path == "/mcp" else f'{{"path":"{path}"}}'


async def run_tool(hub: Hub, talk: Conversation, target: Target, call: Call) -> Exchanged:
    """The exchange's `call_tool`; the request hears whether the row of the call was kept."""
    talk.request.tool = call.name
    route = talk.request.route
    call.told = "{}" if route is None else _told(route.path)
    if talk.message.modern:
        marks = await hub.catalog.check_headers(talk.caller, target, call, talk.request.headers)
        doubled = talk.request.repeated(tuple(mark.key for mark in marks)) if marks else None
        if doubled is not None:
            raise HeaderMismatch(f"{doubled.decode()} header appears more than once")
    try:
        return await hub.exchange.call_tool(talk.caller, target, call)
    finally:
        talk.request.recorded = call.recorded


class OneServer:
    """`/servers/{uuid}/mcp`: one server, its own names, nothing added."""

    def __init__(self, hub: Hub, target: Target) -> None:
        self.hub = hub
        self.door = target.server_id
        self.one: str | None = target.server_id
        self.grows = False
        self._target = target

    async def facts(self, talk: Conversation) -> Facts:
        """The server's own; connects when need be."""
        return (await self.hub.exchange.connect(self._target)).facts

    async def server_ids(self, caller: Caller) -> Iterable[str]:
        """This one."""
        return (self.door,)

    async def resource(self, talk: Conversation, uri: str) -> tuple[Target, str] | None:
        """Whatever the URI: the server's to judge."""
        return self._target, uri

    def outward(self, slug: str, uri: str) -> str:
        """As it is."""
        return uri

    def forwards(self, method: str) -> bool:
        """Every method is the server's to judge."""
        return not method.startswith("notifications/")

    def ask(self, talk: Conversation) -> Awaitable[Exchanged]:
        """The server's answer, cursor and all; an unknown name is the server's to judge."""
        message = talk.message
        params: dict[str, RawJson] = message.params
        if "_meta" in params:
            params = {key: value for key, value in params.items() if key != "_meta"}
        name = name_in(talk) if message.method in NAME_MEMBER else None
        call = call_of(self.hub, talk, self._target, name, params)
        if message.method == "tools/call":
            return run_tool(self.hub, talk, self._target, call)
        return self._ask(talk, call)

    async def _ask(self, talk: Conversation, call: Call) -> Exchanged:
        done = await self.hub.exchange.exchange(talk.caller, self._target, call)
        if call.method == "tools/list" and done.answer.result is not None and must_be_usable(self._target, done.facts):
            done.answer.result = usable(done.answer.result)
        return done


def known_server(hub: Hub, request: Request) -> OneServer | None:
    """The view of the server whose id the path holds, when it is in memory; None says only that `one_server` must be asked."""
    server_id = request.values[0]
    target = hub.servers.find(request.known_caller(), server_id)
    if target is None:
        return None
    request.server_id = server_id
    return OneServer(hub, target)


async def one_server(hub: Hub, request: Request, uuid: str) -> OneServer:
    """The view of the server of that id, for the request's caller. Raises ServerNotFound, NotPermitted."""
    server_id = parse_uuid(uuid)
    if server_id is None:
        raise ServerNotFound
    caller = request.known_caller()
    target = hub.servers.find(caller, server_id) or await hub.exchange.target(caller, server_id)
    request.server_id = server_id
    return OneServer(hub, target)


def name_in(talk: Conversation) -> str:
    """The name (or URI) that the message is about. Raises InvalidParams."""
    member = NAME_MEMBER[talk.message.method]
    raw = talk.message.params.get(member)
    if raw is None:
        raise InvalidParams(f"params.{member} is missing")
    return text_of(raw, f"params.{member}")
