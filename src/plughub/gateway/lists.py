"""What a server can list: tools, resources, resource templates, prompts. One kind of list here, kept per server.

A list is fetched once for all who wait and kept while it holds: until the server says `list_changed`, reconnects, is changed, or
`ttlMs` / a minute has passed. A server that is down is an error, never an empty list.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from plughub.gateway.exchange import Call, Exchange
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import InvalidArguments, ServerDisabled, UpstreamError, UpstreamUnreachable
from plughub.protocol.envelope import object_of
from plughub.protocol.facts import Facts
from plughub.protocol.param_headers import InvalidMark, Param, may_be_marked, read_marks
from plughub.settings import Settings
from plughub.upstream.target import RawJson, Target, Upstream

T = TypeVar("T")
# A server that gives the same cursor twice has no end; one that is told to by its maker may have very small pages.
_MAX_PAGES = 1_000
_MAX_LIST_BYTES = 64 * 1024 * 1024
_KEEP_S = 60.0
_page = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(float)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of list: its method, the member of the result that holds it, the member that names an item, and the capability that
    announces it. `optional`: a server may refuse the method although it announces the capability.
    """

    method: str
    member: str
    key: str
    capability: str
    optional: bool = False


TOOLS = Kind("tools/list", "tools", "name", "tools")
RESOURCES = Kind("resources/list", "resources", "uri", "resources")
TEMPLATES = Kind("resources/templates/list", "resourceTemplates", "uriTemplate", "resources", optional=True)
PROMPTS = Kind("prompts/list", "prompts", "name", "prompts")
KINDS = (TOOLS, RESOURCES, TEMPLATES, PROMPTS)
# What a server's notification says no longer holds.
OUTDATED_BY = {
    "notifications/tools/list_changed": (TOOLS,),
    "notifications/resources/list_changed": (RESOURCES, TEMPLATES),
    "notifications/prompts/list_changed": (PROMPTS,),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One of a list: its name (a URI for resources) and the raw JSON object as its server sent it."""

    name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """The list of one server in the server's order.

    `marked`: the tools some of whose arguments are repeated in headers. `unusable`: those that were left out, and why.
    """

    items: tuple[Item, ...]
    names: frozenset[str]
    revision: int
    fetched_at: float
    fresh_until: float
    marked: Mapping[str, tuple[Param, ...]] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


class Reports(Protocol):
    """Who hears what a list tells of its server, whoever asked for it."""

    def count_tools(self, target: Target, count: int) -> None:
        """So many tools it has."""

    def log(self, target: Target, line: str) -> None:
        """A line for the server's log."""


class Lists:
    """The lists of one kind, by server, bounded. An entry goes with its server."""

    def __init__(self, kind: Kind, exchange: Exchange, settings: Settings, clock: Clock, reports: Reports) -> None:
        self._kind = kind
        self._reports = reports
        self._exchange = exchange
        self._timeout_s = settings.start_timeout_s
        self._max_lists = settings.cache_entries
        self._clock = clock
        self._lists: dict[str, Listing] = {}
        self._running: dict[tuple[str, int], asyncio.Task[Listing]] = {}
        self._outdated: set[tuple[str, int]] = set()  # of what is running
        self._refused: dict[str, tuple[int, float]] = {}  # revision and until when it is not asked again by calls
        self._noted: dict[str, Mapping[str, str]] = {}  # what was unusable the last time, so that it is said once

    def forget(self, server_id: str) -> None:
        """The list no longer holds: the server changed, reconnected or said so."""
        self._lists.pop(server_id, None)
        self._refused.pop(server_id, None)
        # What is being fetched may have been read before the change.
        self._outdated.update(key for key in self._running if key[0] == server_id)

    def known(self, target: Target) -> Listing | None:
        """The list if it has been fetched for this configuration, fresh or not."""
        held = self._lists.get(target.server_id)
        return held if held is not None and held.revision == target.revision else None

    def refused(self, target: Target) -> bool:
        """Whether the server has refused its list a moment ago: a call that could do with the list goes without."""
        revision, until = self._refused.get(target.server_id, (-1, 0.0))
        return revision == target.revision and until > self._clock.monotonic()

    def latest(self, server_id: str) -> Listing | None:
        """The list that was fetched last, whatever has become of the server."""
        return self._lists.get(server_id)

    async def get(self, caller: Caller, target: Target) -> Listing:
        """The server's list. Raises what the exchange raises; UpstreamError when the server refuses."""
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

    async def _fetch(self, caller: Caller, target: Target) -> Listing:
        # Connecting reports the server as changed: only what comes after it makes this list outdated.
        upstream = await self._exchange.connect(target)
        key = target.server_id, target.revision
        self._outdated.discard(key)
        announced = self._kind.capability in _page.decode(upstream.facts.capabilities)
        began = self._clock.monotonic()
        # Servers without the capability have none; tools are asked for all the same, since servers were seen that forget to say so.
        try:
            items, ttl_s = await self._read(caller, target, announced) if announced or self._kind is TOOLS else ([], _KEEP_S)
        except UpstreamUnreachable:
            raise
        except UpstreamError:
            self._keep(self._refused, target.server_id, (target.revision, self._clock.monotonic() + _KEEP_S))
            raise
        held = self._listing(target, upstream, items, began, began + ttl_s)
        if self._kind is TOOLS:
            self._reports.count_tools(target, len(held.items))
        if key in self._outdated:
            return held  # good enough for who waited, not to be kept
        self._keep(self._lists, target.server_id, held)
        return held

    def _listing(self, target: Target, upstream: Upstream, items: list[Item], began: float, until: float) -> Listing:
        marked, unusable = marks_of(items) if self._kind is TOOLS else ({}, {})
        if not must_be_usable(target, upstream.facts):
            unusable = {}
        if self._noted.get(target.server_id, {}) != unusable:
            self._keep(self._noted, target.server_id, unusable)
            for name, reason in unusable.items():
                self._reports.log(target, f"plughub: the tool '{name[:100]}' is left out: {reason}")
        if unusable:
            items = [item for item in items if item.name not in unusable]
        return Listing(tuple(items), frozenset(item.name for item in items), target.revision, began, until, marked, unusable)

    def _keep(self, kept: dict[str, T], server_id: str, value: T) -> None:
        kept.pop(server_id, None)
        while len(kept) >= self._max_lists:
            del kept[next(iter(kept))]
        kept[server_id] = value

    async def _read(self, caller: Caller, target: Target, announced: bool) -> tuple[list[Item], float]:
        """All pages put together, and for how many seconds they hold."""
        items: list[Item] = []
        ttl_s, cursor = _KEEP_S, None
        timeout_s = target.start_timeout_s or self._timeout_s
        cursors: set[bytes] = set()
        size = 0
        while len(cursors) < _MAX_PAGES:
            params: dict[str, RawJson] = {"cursor": cursor} if cursor is not None else {}
            done = await self._exchange.exchange(caller, target, Call(self._kind.method, params, "", "catalog", timeout_s))
            if done.answer.result is None:
                if (self._kind.optional or not announced) and code_of(done.answer.error) == NO_METHOD:
                    return [], _KEEP_S
                raise upstream_error(done.answer.error)
            page = self._page(done.answer.result)
            items += page.items
            size += len(done.answer.result)
            ttl_s, cursor = min(ttl_s, page.ttl_s), page.cursor
            if cursor is None:
                return items, ttl_s
            if cursor in cursors or size > _MAX_LIST_BYTES:
                break
            cursors.add(cursor)
        told = f"MCP server's list of {self._kind.member} has no end: {len(cursors) + 1} pages of {size} bytes, and another to follow"
        raise UpstreamError(told, executed="no", hint="The server's pages lead nowhere: tell its maker")

    def _page(self, result: RawJson) -> "_Page":
        try:
            parts, key = _page.decode(result), self._kind.key
            items = [Item(_string.decode(_page.decode(raw)[key]), bytes(raw)) for raw in _objects.decode(parts[self._kind.member])]
            ttl, cursor = parts.get("ttlMs"), parts.get("nextCursor")
            ttl_s = _KEEP_S if ttl is None or bytes(ttl) == b"null" else _number.decode(ttl) / 1000
        except (msgspec.DecodeError, KeyError) as error:
            raise UpstreamError("MCP server sent a list that cannot be read", executed="no") from error
        return _Page(items, ttl_s, None if cursor is None or bytes(cursor) == b"null" else bytes(cursor))


def must_be_usable(target: Target, facts: Facts) -> bool:
    """Whether tools whose marks are wrong must be left out: they cannot be called rightly over HTTP (MCP 2026-07-28)."""
    return facts.era == "modern" and target.transport != "STDIO"


def usable(result: RawJson) -> RawJson:
    """A server's raw answer to tools/list without the tools that must be left out; as it came when there are none."""
    if not may_be_marked(bytes(result)):
        return result
    try:
        parts: dict[str, RawJson] = dict(_page.decode(result))
        items = [Item(_string.decode(_page.decode(raw)["name"]), bytes(raw)) for raw in _objects.decode(parts["tools"])]
    except (msgspec.DecodeError, KeyError):
        return result  # whoever asked may make more of it
    _, unusable = marks_of(items)
    if not unusable:
        return result
    parts["tools"] = b"[" + b",".join(item.raw for item in items if item.name not in unusable) + b"]"
    return object_of(parts)


def marks_of(items: list[Item]) -> tuple[dict[str, tuple[Param, ...]], dict[str, str]]:
    """The tools with marked arguments, and what is wrong with the marks of others."""
    marked: dict[str, tuple[Param, ...]] = {}
    unusable: dict[str, str] = {}
    for item in items:
        if may_be_marked(item.raw):
            try:
                params = read_marks(bytes(_page.decode(item.raw).get("inputSchema", b"{}")))
            except InvalidMark as error:
                unusable[item.name] = str(error)
            else:
                if params:
                    marked[item.name] = params
    return marked, unusable


@dataclass(frozen=True, slots=True)
class _Page:
    items: list[Item]
    ttl_s: float
    cursor: RawJson | None


NO_METHOD, INVALID_PARAMS = -32601, -32602


class _RpcError(msgspec.Struct):
    code: int = -32603
    message: str = "unknown error"


_rpc_error = msgspec.json.Decoder(_RpcError)


def _read_error(error: RawJson | None) -> _RpcError:
    try:
        return _rpc_error.decode(error if error is not None else b"{}")
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _RpcError()


def code_of(error: RawJson | None) -> int:
    """The number of a server's JSON-RPC error; -32603 when it cannot be read."""
    return _read_error(error).code


def upstream_error(error: RawJson | None, *, invalid: str | None = None) -> UpstreamError:
    """A server's JSON-RPC error as ours: `mcp_error` its message, `rpc_error` the object as it came.

    `invalid`: the arguments are the caller's, so -32602 is the caller's fault (400), and this is the sentence that says so.
    """
    read, raw = _read_error(error), msgspec.Raw(bytes(error) if error is not None else b"{}")
    executed = "no" if read.code in (NO_METHOD, INVALID_PARAMS) else "unknown"
    if invalid is not None and read.code == INVALID_PARAMS:
        return InvalidArguments(invalid, mcp_error=read.message, rpc_error=raw, executed=executed)
    return UpstreamError(mcp_error=read.message, rpc_error=raw, executed=executed)
