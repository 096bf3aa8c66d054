"""What a caller sees: the tools of a server, and of all servers under names that cannot collide.

A list is fetched once from a server and kept while it holds: until the server says `list_changed`, reconnects, is changed, or
`ttlMs` / a minute has passed. A server that is down is an error, never an empty list.
"""

import asyncio
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from plughub.gateway.exchange import Call, Exchange
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, InvalidArguments, ServerDisabled, ToolNotFound, UpstreamError
from plughub.protocol.envelope import object_of
from plughub.settings import Settings
from plughub.upstream.target import RawJson, Target

MAX_NAME = 64
_DIGEST = 6
_MAX_PAGES = 50
_KEEP_S = 60.0
_ASK_AGAIN_S = 5.0
_TOGETHER = 16
_page = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(float)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as its server described it: its name and the raw JSON object."""

    name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of one server in the server's order."""

    tools: tuple[Tool, ...]
    names: frozenset[str]
    revision: int
    fetched_at: float
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A server whose list could not be had, in words that hold no secret."""

    slug: str
    server_id: str
    message: str


class Catalog:
    """Lists, kept per server, bounded. An entry goes with its server."""

    def __init__(self, exchange: Exchange, settings: Settings, clock: Clock) -> None:
        self._exchange = exchange
        self._timeout_s = settings.start_timeout_s
        self._max_lists = settings.cache_entries
        self._clock = clock
        self._lists: dict[str, ToolList] = {}
        self._running: dict[tuple[str, int], asyncio.Task[ToolList]] = {}
        self._outdated: set[tuple[str, int]] = set()  # of what is running

    def forget(self, server_id: str) -> None:
        """The list no longer holds: the server changed, reconnected or said so."""
        self._lists.pop(server_id, None)
        # What is being fetched may have been read before the change.
        self._outdated.update(key for key in self._running if key[0] == server_id)

    def known(self, target: Target) -> ToolList | None:
        """The list if it has been fetched for this configuration, fresh or not."""
        held = self._lists.get(target.server_id)
        return held if held is not None and held.revision == target.revision else None

    async def tools(self, caller: Caller, target: Target) -> ToolList:
        """The server's tools. Raises what the exchange raises; UpstreamError when the server refuses."""
        held = self.known(target)
        if held is not None and held.fresh_until > self._clock.monotonic():
            return held
        if not target.enabled:
            raise ServerDisabled
        key = target.server_id, target.revision
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._fetch(caller, target))
            self._running[key] = running
            running.add_done_callback(lambda _: self._ended(key))
        # Shielded: one caller going away must not take the list from the others who wait for it.
        return await asyncio.shield(running)

    def _ended(self, key: tuple[str, int]) -> None:
        self._running.pop(key, None)
        self._outdated.discard(key)

    async def check_tool(self, caller: Caller, target: Target, name: str) -> None:
        """Raise ToolNotFound, with the nearest name, when the server has no such tool.

        A list that lacks the name is asked for again, at most every five seconds: servers may add tools without saying so.
        """
        held = self.known(target) or await self.tools(caller, target)
        if name in held.names:
            return
        if self._clock.monotonic() - held.fetched_at > _ASK_AGAIN_S:
            self.forget(target.server_id)
            held = await self.tools(caller, target)
            if name in held.names:
                return
        raise ToolNotFound(unknown_tool(name, held.names), tool=name[:200])

    async def everything(self, caller: Caller, targets: Iterable[Target]) -> tuple[list[bytes], list[Failure]]:
        """The tools of all `targets` under `{slug}__{tool}`, by slug and then in each server's order; and who failed."""
        gate = asyncio.Semaphore(_TOGETHER)

        async def one(target: Target) -> ToolList | Failure:
            async with gate:
                try:
                    return await self.tools(caller, target)
                except HubError as error:
                    return Failure(target.slug, target.server_id, error.text)

        wanted = [target for target in targets if target.enabled]
        found = await asyncio.gather(*(one(target) for target in wanted))
        tools: list[bytes] = []
        failures: list[Failure] = []
        for target, got in zip(wanted, found, strict=True):
            if isinstance(got, Failure):
                failures.append(got)
            else:
                tools.extend(_renamed(tool, aggregate_name(target.slug, tool.name)) for tool in got.tools)
        return tools, failures

    async def resolve(self, caller: Caller, target: Target, tail: str, whole: str) -> str:
        """The server's own name of an aggregated tool; cut names are found by their digest. Raises ToolNotFound."""
        if len(whole) < MAX_NAME:
            return tail
        for name in (await self.tools(caller, target)).names:
            if aggregate_name(target.slug, name) == whole:
                return name
        raise ToolNotFound(f"Unknown tool: {whole}", tool=whole)

    async def _fetch(self, caller: Caller, target: Target) -> ToolList:
        # Connecting reports the server as changed: only what comes after it makes this list outdated.
        await self._exchange.connect(target)
        key = target.server_id, target.revision
        self._outdated.discard(key)
        tools: list[Tool] = []
        ttl_s, cursor = _KEEP_S, None
        timeout_s = target.start_timeout_s or self._timeout_s
        began = self._clock.monotonic()
        for _ in range(_MAX_PAGES):
            params: dict[str, RawJson] = {"cursor": cursor} if cursor is not None else {}
            done = await self._exchange.exchange(caller, target, Call("tools/list", params, "", "catalog", timeout_s))
            if done.answer.result is None:
                raise upstream_error(done.answer.error)
            page = _read_page(done.answer.result)
            tools += page.tools
            ttl_s, cursor = min(ttl_s, page.ttl_s), page.cursor
            if cursor is None:
                break
        else:
            raise UpstreamError(f"MCP server's list of tools has no end: {_MAX_PAGES} pages and more", executed="no")
        held = ToolList(tuple(tools), frozenset(tool.name for tool in tools), target.revision, began, began + ttl_s)
        if key in self._outdated:
            return held  # good enough for who waited, not to be kept
        self._lists.pop(target.server_id, None)
        while len(self._lists) >= self._max_lists:
            del self._lists[next(iter(self._lists))]
        self._lists[target.server_id] = held
        return held


_NO_METHOD, _INVALID_PARAMS = -32601, -32602


class _RpcError(msgspec.Struct):
    code: int = -32603
    message: str = "unknown error"


_rpc_error = msgspec.json.Decoder(_RpcError)


def upstream_error(error: RawJson | None, *, of_call: bool = False) -> UpstreamError:
    """A server's JSON-RPC error as ours: `mcp_error` its message, `rpc_error` the object as it came.

    `of_call`: the arguments are the caller's, so -32602 is the caller's fault (400).
    """
    raw = bytes(error) if error is not None else b"{}"
    try:
        read = _rpc_error.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError):
        read = _RpcError()
    kind = InvalidArguments if of_call and read.code == _INVALID_PARAMS else UpstreamError
    executed = "no" if read.code in (_NO_METHOD, _INVALID_PARAMS) else "unknown"
    return kind(mcp_error=read.message, rpc_error=msgspec.Raw(raw), executed=executed)


def unknown_tool(name: str, names: Iterable[str]) -> str:
    """The documents' sentence, with the nearest name where one is near."""
    near = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f"Tool '{name[:200]}' not found." + (f" Did you mean '{near[0]}'?" if near else "")


def aggregate_name(slug: str, tool: str) -> str:
    """`{slug}__{tool}`; over 64 characters it is cut and ends in a digest of the whole."""
    name = f"{slug}__{tool}"
    if len(name) <= MAX_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=_DIGEST // 2).hexdigest()
    return f"{name[: MAX_NAME - _DIGEST - 1]}_{digest}"


@dataclass(frozen=True, slots=True)
class _Page:
    tools: list[Tool]
    ttl_s: float
    cursor: RawJson | None


def _read_page(result: RawJson) -> _Page:
    try:
        parts = _page.decode(result)
        tools = [Tool(_string.decode(_page.decode(raw)["name"]), bytes(raw)) for raw in _objects.decode(parts["tools"])]
        ttl, cursor = parts.get("ttlMs"), parts.get("nextCursor")
        ttl_s = _KEEP_S if ttl is None or bytes(ttl) == b"null" else _number.decode(ttl) / 1000
    except (msgspec.DecodeError, KeyError) as error:
        raise UpstreamError("MCP server sent a list that cannot be read", executed="no") from error
    return _Page(tools, ttl_s, None if cursor is None or bytes(cursor) == b"null" else bytes(cursor))


def _renamed(tool: Tool, name: str) -> bytes:
    parts: dict[str, RawJson] = dict(_page.decode(tool.raw))
    parts["name"] = msgspec.json.encode(name)
    return object_of(parts)
