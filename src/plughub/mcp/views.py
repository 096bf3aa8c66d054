"""The two things an MCP client can be connected to: all servers of its caller, or one."""

from typing import Protocol

import msgspec

from plughub import __version__
from plughub.gateway.exchange import Call, Exchanged
from plughub.gateway.hub import Hub
from plughub.kit.errors import InvalidParams, MethodNotFound, ToolNotFound
from plughub.mcp.conversation import Conversation
from plughub.protocol.envelope import NAME_MEMBER, object_of, text_of
from plughub.upstream.target import Answer, Facts, RawJson, Target

FAILURES_META = "plughub/failures"


class View(Protocol):
    """What the methods ask of the thing a client is connected to. `door` names it: a session belongs to one."""

    hub: Hub
    door: str

    async def facts(self, talk: Conversation) -> Facts:
        """What it says of itself."""

    def forwards(self, method: str) -> bool:
        """Whether it has an answer to that method."""

    async def ask(self, talk: Conversation) -> Exchanged:
        """The answer of whoever has it."""


def call_of(hub: Hub, talk: Conversation, name: str | None, params: dict[str, RawJson]) -> Call:
    """The call that the exchange makes of a message."""
    message = talk.message
    return Call(message.method, params, talk.request_id, "mcp", hub.settings.call_timeout_s, name, message.meta, talk.peer())


class OneServer:
    """`/servers/{uuid}/mcp`: one server, its own names, nothing added."""

    def __init__(self, hub: Hub, target: Target) -> None:
        self.hub = hub
        self.door = target.server_id
        self._target = target

    async def facts(self, talk: Conversation) -> Facts:
        """The server's own; connects when need be."""
        return (await self.hub.exchange.connect(self._target)).facts

    def forwards(self, method: str) -> bool:
        """Every method is the server's to judge."""
        return not method.startswith("notifications/")

    async def ask(self, talk: Conversation) -> Exchanged:
        """The server's answer, cursor and all; an unknown name is the server's to judge."""
        message = talk.message
        params: dict[str, RawJson] = {key: value for key, value in message.params.items() if key != "_meta"}
        if message.method == "tools/call":
            return await self.hub.exchange.call_tool(talk.caller, self._target, call_of(self.hub, talk, name_in(talk), params))
        name = name_in(talk) if message.method in NAME_MEMBER else None
        return await self.hub.exchange.exchange(talk.caller, self._target, call_of(self.hub, talk, name, params))


class Everything:
    """`/mcp`: what every server that the caller may use offers; tools as `{slug}__{tool}`."""

    door = ""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def facts(self, talk: Conversation) -> Facts:
        """The hub's own."""
        return hub_facts(era_modern=talk.message.modern)

    def forwards(self, method: str) -> bool:
        """The methods that can be put together from several servers."""
        return method in ("tools/list", "tools/call")

    async def ask(self, talk: Conversation) -> Exchanged:
        """The lists of all servers, or the answer of the one that is named."""
        if talk.message.method == "tools/list":
            return await self._list_tools(talk)
        if talk.message.method == "tools/call":
            return await self._call_tool(talk)
        raise MethodNotFound(f"Method not found: {talk.message.method[:100]}")

    async def _list_tools(self, talk: Conversation) -> Exchanged:
        """All tools in one page; servers that failed are named in `_meta`, and when all failed that is the error."""
        targets = await self.hub.servers.list_visible(talk.caller)
        tools, failures = await self.hub.catalog.all_tools(talk.caller, targets)
        parts: dict[str, RawJson] = {"tools": b"[" + b",".join(tools) + b"]"}
        if failures:
            parts["_meta"] = msgspec.json.encode({FAILURES_META: [failure.shown() for failure in failures]})
        # As from the other era than the client's: what either era demands is added or taken away tool by tool.
        return Exchanged(Answer(result=object_of(parts)), hub_facts(era_modern=not talk.message.modern), 0)

    async def _call_tool(self, talk: Conversation) -> Exchanged:
        """The tool of the server that its name begins with."""
        whole = name_in(talk)
        slug, mark, tail = whole.partition("__")
        target = await self.hub.servers.find_slug(talk.caller, slug) if mark else None
        if target is None:
            raise ToolNotFound(f"Unknown tool: {whole[:200]}", tool=whole[:200])
        name = await self.hub.catalog.resolve(talk.caller, target, tail, whole)
        params: dict[str, RawJson] = {key: value for key, value in talk.message.params.items() if key != "_meta"}
        params["name"] = msgspec.json.encode(name)
        return await self.hub.exchange.call_tool(talk.caller, target, call_of(self.hub, talk, name, params))


def hub_facts(era_modern: bool) -> Facts:
    """What the hub says of itself at `/mcp`, in the client's own era."""
    info = msgspec.json.encode({"name": "plughub", "title": "Plughub", "version": __version__})
    return Facts("modern" if era_modern else "legacy", "", b'{"tools":{}}', info)


def name_in(talk: Conversation) -> str:
    """The name (or URI) that the message is about. Raises InvalidParams."""
    member = NAME_MEMBER[talk.message.method]
    raw = talk.message.params.get(member)
    if raw is None:
        raise InvalidParams(f"params.{member} is missing")
    return text_of(raw, f"params.{member}")
