"""Calling a tool over REST, in both dialects: as one answer, or as a stream of progress and a last frame."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from plughub.api.hot_body import object_field, read_body, text_field, timeout_field
from plughub.api.render import render_api, render_v1
from plughub.api.tool_result import ToolResult, unwrap
from plughub.door.request import Request
from plughub.door.stream import Outlet, unless_gone
from plughub.gateway.exchange import Call
from plughub.gateway.hub import Hub
from plughub.gateway.lists import upstream_error
from plughub.kit import strict_json
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import HubError, Invalid, ServerNotFound, UpstreamError, UpstreamTimeout
from plughub.kit.ids import parse_public_id, parse_uuid, public_id
from plughub.protocol.envelope import object_of
from plughub.upstream.target import Peer, RawJson, Target

MAX_CONTEXT_BYTES = 4096
_TOKEN = b'"progress"'
_EXECUTE_FIELDS = frozenset({"parameters", "timeout_ms"})
_INVOKE_FIELDS = frozenset({"mcp_id", "tool", "arguments", "timeout", "context"})


@dataclass(slots=True)
class _Wanted:
    """One tool call as the caller put it; `shape` renders the answer."""

    target: Target
    tool: str
    arguments: RawJson
    timeout_s: float
    shape: Callable[[ToolResult, int], bytes]
    context: RawJson | None = None


class ToolDoor:
    """The hot handlers of `/api/servers/{uuid}/tools/{tool}/execute` and `/v1/mcp/invoke`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def execute(self, request: Request) -> None:
        """POST /api/servers/{uuid}/tools/{tool}/execute"""
        body = await read_body(request, _EXECUTE_FIELDS, self._hub.settings.max_body_bytes)
        server_id = parse_uuid(request.values[0])
        if server_id is None:
            raise ServerNotFound
        caller, tool = request.known_caller(), request.values[1]
        target = self._hub.servers.find(caller, server_id) or await self._hub.exchange.target(caller, server_id)
        request.server_id = server_id
        arguments = object_field(body, "parameters")

        def shape(result: ToolResult, duration_us: int) -> bytes:
            structured = b"" if result.structured is None else b',"structuredContent":%b' % result.structured
            return (
                b'{"result":%b,"content":%b%b,"isError":%b,"metadata":{"server_uuid":"%b","tool":%b,"duration_ms":%d,"request_id":"%b"}}'
                % (
                    result.result,
                    result.content,
                    structured,
                    b"true" if result.is_error else b"false",
                    server_id.encode(),
                    msgspec.json.encode(tool),
                    duration_us // 1000,
                    request.id.encode(),
                )
            )

        await self._run(request, _Wanted(target, tool, arguments, self._timeout_s(body, "timeout_ms", target), shape))

    async def invoke(self, request: Request) -> None:
        """POST /v1/mcp/invoke"""
        body = await read_body(request, _INVOKE_FIELDS, self._hub.settings.max_body_bytes)
        public, tool = text_field(body, "mcp_id"), text_field(body, "tool")
        arguments = object_field(body, "arguments", required=True)
        context = _context(body)
        server_id = parse_public_id("mcp", public)
        if server_id is None:
            raise ServerNotFound
        request.tool = tool
        target = await self._hub.exchange.target(request.known_caller(), server_id)
        request.server_id = server_id

        def shape(result: ToolResult, duration_us: int) -> bytes:
            if result.is_error:
                # Raw: what the server sent may be more than our decoder takes.
                text, content = (msgspec.Raw(bytes(part)) for part in (result.result, result.content))
                raise UpstreamError(mcp_error=text, content=content, executed="unknown")
            metadata = {
                "mcp_id": public_id("mcp", server_id),
                "tool": tool,
                "latency_ms": duration_us // 1000,
                "timestamp": rfc3339(self._hub.clock.time()),
            }
            return b'{"success":true,"data":{"result":%b,"metadata":%b}}' % (result.result, msgspec.json.encode(metadata))

        await self._run(request, _Wanted(target, tool, arguments, self._timeout_s(body, "timeout", target), shape, context))

    def _timeout_s(self, body: dict[str, bytes], field: str, target: Target) -> float:
        return timeout_field(body, field, target.call_timeout_s or self._hub.settings.call_timeout_s)

    async def _run(self, request: Request, wanted: _Wanted) -> None:
        if b"text/event-stream" in request.headers.get(b"accept", b""):
            await self._stream(request, wanted)
            return
        await request.respond(200, await unless_gone(request, self._call(request, wanted, None, None)))

    async def _call(
        self,
        request: Request,
        wanted: _Wanted,
        peer: Peer | None,
        meta: dict[str, RawJson] | None,
    ) -> bytes:
        hub, caller, target = self._hub, request.known_caller(), wanted.target
        held = hub.catalog.known(target)
        if held is None or wanted.tool not in held.names:
            await self._check_tool(caller, wanted)
        params: dict[str, RawJson] = {"name": msgspec.json.encode(wanted.tool), "arguments": wanted.arguments}
        call = Call("tools/call", params, request.id, request.door, wanted.timeout_s, wanted.tool, meta, peer, wanted.context)
        call.trace = request.trace_on()
        try:
            done = await hub.exchange.call_tool(caller, target, call)
        finally:
            request.recorded = call.recorded
        if done.answer.result is None:
            raise upstream_error(done.answer.error, invalid="The tool does not take these arguments")
        return wanted.shape(unwrap(done.answer.result), done.duration_us)

    async def _check_tool(self, caller: Caller, wanted: _Wanted) -> None:
        """The list must be had first, and the server may have to start for it: the caller's time counts for that too."""
        try:
            async with asyncio.timeout(wanted.timeout_s):
                await self._hub.catalog.check_tool(caller, wanted.target, wanted.tool)
        except TimeoutError as error:
            raise UpstreamTimeout(f"The MCP server did not start within {wanted.timeout_s:g} s", executed="no") from error

    async def _stream(self, request: Request, wanted: _Wanted) -> None:
        """Frames `progress` as they come, then one `result` or `error`."""
        outlet = Outlet(request, self._hub.streams)

        def notify(method: str, params: dict[str, RawJson]) -> None:
            if method == "notifications/progress":
                kept = {name: value for name, value in params.items() if name not in ("progressToken", "_meta")}
                outlet.push(_frame(b"progress", object_of(kept)))

        try:
            work = self._call(request, wanted, Peer(notify), {"progressToken": _TOKEN})
            await outlet.end(_frame(b"result", await outlet.run(work, leaving_cancels=True)))
        except HubError as error:
            if not outlet.open:  # nothing was told yet: an ordinary error with its status says more
                raise
            request.error = error
            await outlet.end(_frame(b"error", (render_v1 if request.door == "v1" else render_api)(error, request).body))
        finally:
            outlet.close()


def _frame(event: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event, data.replace(b"\r", b" ").replace(b"\n", b" "))


def _context(body: dict[str, bytes]) -> RawJson | None:
    """The caller's note for the record; bounded, because it is kept with every call."""
    if body.get("context", b"null") == b"null":
        return None
    raw = object_field(body, "context")
    if len(raw) > MAX_CONTEXT_BYTES:
        raise Invalid("context", f"The 'context' field must not be larger than {MAX_CONTEXT_BYTES} bytes")
    strict_json.loads(raw, limit_bytes=MAX_CONTEXT_BYTES)  # it goes into a database, which takes no NUL
    return raw
