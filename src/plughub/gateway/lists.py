"""What a server can list: tools, resources, resource templates, prompts. One kind of list here, kept per server.

A list is fetched once for all who wait and kept while it holds: until the server says `list_changed`, reconnects, is changed, or
`ttlMs` / a minute has passed. A server that is down is an error, never an empty list.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from plughub.gateway.exchange import Call, Exchange
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import InvalidArguments, ServerDisabled, UpstreamError
from plughub.settings import Settings
from plughub.upstream.target import RawJson, Target

_MAX_PAGES = 50
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
    """The list of one server in the server's order."""

    items: tuple[Item, ...]
    names: frozenset[str]
    revision: int
    fetched_at: float
    fresh_until: float


class Lists:
    """The lists of one kind, by server, bounded. An entry goes with its server. `fetched` hears how many items each new list has."""

    def __init__(
        self, kind: Kind, exchange: Exchange, settings: Settings, clock: Clock, fetched: Callable[[Target, int], None] | None = None
    ) -> None:
        self._kind = kind
        self._fetched = fetched
        self._exchange = exchange
        self._timeout_s = settings.start_timeout_s
        self._max_lists = settings.cache_entries
        self._clock = clock
        self._lists: dict[str, Listing] = {}
        self._running: dict[tuple[str, int], asyncio.Task[Listing]] = {}
        self._outdated: set[tuple[str, int]] = set()  # of what is running

    def forget(self, server_id: str) -> None:
        """The list no longer holds: the server changed, reconnected or said so."""
        self._lists.pop(server_id, None)
        # What is being fetched may have been read before the change.
        self._outdated.update(key for key in self._running if key[0] == server_id)

    def known(self, target: Target) -> Listing | None:
        """The list if it has been fetched for this configuration, fresh or not."""
        held = self._lists.get(target.server_id)
        return held if held is not None and held.revision == target.revision else None

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
        items, ttl_s = await self._read(caller, target, announced) if announced or self._kind is TOOLS else ([], _KEEP_S)
        held = Listing(tuple(items), frozenset(item.name for item in items), target.revision, began, began + ttl_s)
        if self._fetched is not None:
            self._fetched(target, len(items))
        if key in self._outdated:
            return held  # good enough for who waited, not to be kept
        self._lists.pop(target.server_id, None)
        while len(self._lists) >= self._max_lists:
            del self._lists[next(iter(self._lists))]
        self._lists[target.server_id] = held
        return held

    async def _read(self, caller: Caller, target: Target, announced: bool) -> tuple[list[Item], float]:
        """All pages put together, and for how many seconds they hold."""
        items: list[Item] = []
        ttl_s, cursor = _KEEP_S, None
        timeout_s = target.start_timeout_s or self._timeout_s
        for _ in range(_MAX_PAGES):
            params: dict[str, RawJson] = {"cursor": cursor} if cursor is not None else {}
            done = await self._exchange.exchange(caller, target, Call(self._kind.method, params, "", "catalog", timeout_s))
            if done.answer.result is None:
                if (self._kind.optional or not announced) and code_of(done.answer.error) == NO_METHOD:
                    return [], _KEEP_S
                raise upstream_error(done.answer.error)
            page = self._page(done.answer.result)
            items += page.items
            ttl_s, cursor = min(ttl_s, page.ttl_s), page.cursor
            if cursor is None:
                return items, ttl_s
        raise UpstreamError(f"MCP server's list of {self._kind.member} has no end: {_MAX_PAGES} pages and more", executed="no")

    def _page(self, result: RawJson) -> "_Page":
        try:
            parts, key = _page.decode(result), self._kind.key
            items = [Item(_string.decode(_page.decode(raw)[key]), bytes(raw)) for raw in _objects.decode(parts[self._kind.member])]
            ttl, cursor = parts.get("ttlMs"), parts.get("nextCursor")
            ttl_s = _KEEP_S if ttl is None or bytes(ttl) == b"null" else _number.decode(ttl) / 1000
        except (msgspec.DecodeError, KeyError) as error:
            raise UpstreamError("MCP server sent a list that cannot be read", executed="no") from error
        return _Page(items, ttl_s, None if cursor is None or bytes(cursor) == b"null" else bytes(cursor))


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
