"""Reading a resource and getting a prompt over REST; reading in both dialects."""

import asyncio
import time
from dataclasses import dataclass, replace

import msgspec

from plughub.api.hot_body import object_field, read_body, text_field, timeout_field
from plughub.api.models import GetPrompt, PromptResult, ReadResource, ResourceContents, Success, V1Read, V1ResourceContents
from plughub.bridge.results import refuse_unread
from plughub.door.request import Request
from plughub.door.routes import Route
from plughub.door.stream import unless_gone
from plughub.gateway.catalog import unknown
from plughub.gateway.exchange import Call
from plughub.gateway.hub import Hub
from plughub.gateway.lists import INVALID_PARAMS, PROMPTS, Kind, code_of, upstream_error
from plughub.kit.errors import HubError, NotFound, ServerNotFound, UpstreamError, UpstreamTimeout
from plughub.kit.ids import parse_public_id, parse_uuid
from plughub.protocol.envelope import object_of
from plughub.upstream.target import RawJson, Target

_READ_FIELDS = frozenset({"uri", "timeout_ms"})
_V1_READ_FIELDS = frozenset({"mcp_id", "uri", "timeout"})
_GET_FIELDS = frozenset({"arguments", "timeout_ms"})
_RESOURCE_NOT_FOUND = -32002  # until 2025-11-25; 2026-07-28 says -32602
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked of which server; `name` is the URI or the prompt's name, `shown` how the metadata calls it."""

    target: Target
    method: str
    name: str
    params: dict[str, RawJson]
    timeout_s: float


class ContentsDoor:
    """The hot handlers: what a server answers passes as it came."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def read_resource(self, request: Request) -> None:
        """The contents of a resource as the server sent them, with `metadata` beside them."""
        target = await self._target(request, parse_uuid(request.values[0]))
        body = await read_body(request, _READ_FIELDS, self._hub.settings.max_body_bytes)
        uri = text_field(body, "uri")
        wanted = _Wanted(target, "resources/read", uri, {"uri": body["uri"]}, self._timeout_s(body, "timeout_ms", target))
        await request.respond(200, _with_metadata(*await self._timed(request, wanted), request, wanted, b"uri"))

    async def read_mcp_resource(self, request: Request) -> None:
        """The contents of a resource in the words of the PlexMCP documents."""
        body = await read_body(request, _V1_READ_FIELDS, self._hub.settings.max_body_bytes)
        public, uri = text_field(body, "mcp_id"), text_field(body, "uri")
        target = await self._target(request, parse_public_id("mcp", public))
        wanted = _Wanted(target, "resources/read", uri, {"uri": body["uri"]}, self._timeout_s(body, "timeout", target))
        result, _ = await self._timed(request, wanted)
        await request.respond(200, b'{"success":true,"data":{"contents":%b}}' % _member(result, "contents"))

    async def get_prompt(self, request: Request) -> None:
        """A prompt's messages as the server sent them, with `metadata` beside them."""
        target = await self._target(request, parse_uuid(request.values[0]))
        body = await read_body(request, _GET_FIELDS, self._hub.settings.max_body_bytes)
        name = request.values[1]
        params: dict[str, RawJson] = {"name": msgspec.json.encode(name), "arguments": object_field(body, "arguments")}
        wanted = _Wanted(target, "prompts/get", name, params, self._timeout_s(body, "timeout_ms", target))
        await request.respond(200, _with_metadata(*await self._timed(request, wanted), request, wanted, b"prompt"))

    async def _target(self, request: Request, server_id: str | None) -> Target:
        if server_id is None:
            raise ServerNotFound
        target = await self._hub.exchange.target(request.known_caller(), server_id)
        request.server_id = server_id
        return target

    def _timeout_s(self, body: dict[str, bytes], field: str, target: Target) -> float:
        return timeout_field(body, field, target.call_timeout_s or self._hub.settings.call_timeout_s)

    async def _timed(self, request: Request, wanted: _Wanted) -> tuple[RawJson, int]:
        """The server's result, and the milliseconds that it took."""
        began = time.perf_counter()
        result = await unless_gone(request, self._ask(request, wanted))
        return result, int((time.perf_counter() - began) * 1000)

    async def _ask(self, request: Request, wanted: _Wanted) -> RawJson:
        caller, hub = request.known_caller(), self._hub
        call = Call(wanted.method, wanted.params, request.id, request.door, wanted.timeout_s, wanted.name)
        call.trace = request.trace_on()
        try:
            async with asyncio.timeout(wanted.timeout_s):
                await hub.exchange.connect(wanted.target)  # the server may have to start for it
        except TimeoutError as error:
            raise UpstreamTimeout(f"The MCP server did not start within {wanted.timeout_s:g} s", executed="no") from error
        done = await hub.exchange.exchange(caller, wanted.target, call)
        if done.answer.result is not None:
            return done.answer.result
        raise await self._refusal(request, wanted, done.answer.error)

    async def _refusal(self, request: Request, wanted: _Wanted, error: RawJson | None) -> HubError:
        """What the server's error means: most often it has no such thing, for which each revision has another number."""
        code = code_of(error)
        if wanted.method == "resources/read" and code in (_RESOURCE_NOT_FOUND, INVALID_PARAMS):
            return NotFound(f"Resource '{wanted.name[:200]}' not found", uri=wanted.name[:200])
        if wanted.method == "prompts/get" and code == INVALID_PARAMS:
            names = await self._names(PROMPTS, request, wanted.target)
            if wanted.name not in names:
                return NotFound(unknown("Prompt", wanted.name, names), prompt=wanted.name[:200])
            return upstream_error(error, invalid="The prompt does not take these arguments")
        return upstream_error(error)

    async def _names(self, kind: Kind, request: Request, target: Target) -> frozenset[str]:
        try:
            return (await self._hub.catalog.listing(kind, request.known_caller(), target)).names
        except HubError:
            return frozenset()  # the server's own error is what the caller has to hear


def _with_metadata(result: RawJson, duration_ms: int, request: Request, wanted: _Wanted, key: bytes) -> bytes:
    metadata = b'{"server_uuid":"%b","%b":%b,"duration_ms":%d,"request_id":"%b"}' % (
        wanted.target.server_id.encode(),
        key,
        msgspec.json.encode(wanted.name),
        duration_ms,
        request.id.encode(),
    )
    return object_of({**_parts(result), "metadata": metadata})


def _member(result: RawJson, name: str) -> RawJson:
    return _parts(result).get(name, b"[]")


def _parts(result: RawJson) -> dict[str, RawJson]:
    try:
        parts: dict[str, RawJson] = dict(_members.decode(result))
    except msgspec.DecodeError as error:
        raise UpstreamError("MCP server sent a result that cannot be read", executed="unknown") from error
    refuse_unread(bytes(parts.get("resultType", b"")))
    return parts


def routes(hub: Hub) -> list[Route]:
    """The rows."""
    door, scope, server = ContentsDoor(hub), "execute:tools", "/api/servers/{uuid}"
    read = Route("POST", server + "/resources/read", scope, door.read_resource, "Read a resource", "Resources", hot=True)
    get = Route("POST", server + "/prompts/{name}/get", scope, door.get_prompt, "Get a prompt", "Prompts", hot=True)
    read_v1 = Route("POST", "/v1/mcp/resources", scope, door.read_mcp_resource, "Read a resource", "Resources", "v1", hot=True)
    return [
        replace(read, input=ReadResource, output=ResourceContents),
        replace(get, input=GetPrompt, output=PromptResult),
        replace(read_v1, input=V1Read, output=Success[V1ResourceContents]),
    ]
