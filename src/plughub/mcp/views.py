"""The two things an MCP client can be connected to: all servers of its caller, or one."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from plughub import __version__
from plughub.door.request import Request
from plughub.gateway.exchange import Call, Exchanged
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.errors import InvalidParams, ToolNotFound
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import object_of, text_of
from plughub.upstream.target import Answer, Facts, Notify, RawJson, Target

ONE_SERVER_PATH = "/servers/{uuid}/mcp"
# The row of a call tells its door; this door has two paths.
_TOLD = f'{{"path":"{ONE_SERVER_PATH}"}}'
FAILURES_META = "plughub/failures"


@dataclass(slots=True)
class Asking:
    """A request of an MCP client with what the exchange needs to know beside the message."""

    caller: Caller
    message: Message
    request: Request
    notify: Notify | None

    def call(self, hub: Hub, target: Target, name: str | None, params: dict[str, RawJson]) -> Call:
        """The call of `target` that the exchange makes of it."""
        timeout_s = target.call_timeout_s or hub.settings.call_timeout_s
        return Call(self.message.method, params, self.request.id, "mcp", timeout_s, name, self.message.meta, self.notify)

    async def run_tool(self, hub: Hub, target: Target, call: Call) -> Exchanged:
        """The exchange's `call_tool`; the request hears whether the row of the call was kept."""
        self.request.tool = call.name
        try:
            return await hub.exchange.call_tool(self.caller, target, call)
        finally:
            self.request.recorded = call.recorded


class View(Protocol):
    """What the methods ask of the thing a client is connected to."""

    async def facts(self, caller: Caller) -> Facts: ...

    async def list_tools(self, asking: Asking) -> Exchanged: ...

    async def call_tool(self, asking: Asking) -> Exchanged: ...


def hub_facts(era_modern: bool) -> Facts:
    """What the hub says of itself at `/mcp`."""
    info = msgspec.json.encode({"name": "plughub", "title": "Plughub", "version": __version__})
    return Facts("modern" if era_modern else "legacy", "", b'{"tools":{}}', info)


class Everything:
    """`/mcp`: the tools of every server that the caller may use, as `{slug}__{tool}`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def facts(self, caller: Caller) -> Facts:
        """The hub's own."""
        return hub_facts(era_modern=True)

    async def list_tools(self, asking: Asking) -> Exchanged:
        """All tools in one page; servers that failed are named in `_meta`, and when all failed that is the error."""
        targets = await self._hub.servers.list_visible(asking.caller)
        tools, failures = await self._hub.catalog.all_tools(asking.caller, targets)
        parts: dict[str, RawJson] = {"tools": b"[" + b",".join(tools) + b"]"}
        if failures:
            parts["_meta"] = msgspec.json.encode({FAILURES_META: [failure.shown() for failure in failures]})
        # As from the other era than the client's: what either era demands is added or taken away tool by tool.
        return Exchanged(Answer(result=object_of(parts)), hub_facts(era_modern=not asking.message.modern), 0)

    async def call_tool(self, asking: Asking) -> Exchanged:
        """The tool of the server that its name begins with."""
        whole = _tool_name(asking.message)
        slug, mark, tail = whole.partition("__")
        target = await self._hub.servers.find_slug(asking.caller, slug) if mark else None
        if target is None:
            raise ToolNotFound(f"Unknown tool: {whole[:200]}", tool=whole[:200])
        name = await self._hub.catalog.resolve(asking.caller, target, tail, whole)
        params: dict[str, RawJson] = {key: value for key, value in asking.message.params.items() if key != "_meta"}
        params["name"] = msgspec.json.encode(name)
        asking.request.server_id = target.server_id
        return await asking.run_tool(self._hub, target, asking.call(self._hub, target, name, params))


class OneServer:
    """`/servers/{uuid}/mcp`: one server, its own names, nothing added."""

    def __init__(self, hub: Hub, target: Target) -> None:
        self._hub = hub
        self._target = target

    async def facts(self, caller: Caller) -> Facts:
        """The server's own; connects when need be."""
        return (await self._hub.exchange.connect(self._target)).facts

    async def list_tools(self, asking: Asking) -> Exchanged:
        """The server's page, cursor and all."""
        params: dict[str, RawJson] = {key: value for key, value in asking.message.params.items() if key != "_meta"}
        return await self._hub.exchange.exchange(asking.caller, self._target, asking.call(self._hub, self._target, None, params))

    async def call_tool(self, asking: Asking) -> Exchanged:
        """The server's tool; an unknown name is the server's to judge."""
        name = _tool_name(asking.message)
        params: dict[str, RawJson] = {key: value for key, value in asking.message.params.items() if key != "_meta"}
        call = asking.call(self._hub, self._target, name, params)
        call.told = _TOLD
        return await asking.run_tool(self._hub, self._target, call)


def _tool_name(message: Message) -> str:
    raw = message.params.get("name")
    if raw is None:
        raise InvalidParams("params.name is missing")
    return text_of(raw, "params.name")
