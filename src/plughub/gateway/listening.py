"""Who wants to hear what servers say of their own accord: that a list or a resource has changed, and messages that belong to no request.

A listener hears the servers that its caller may use, of those the ones at its door. What all listeners want of a server, taken
together, is what the pool asks that server for; with the last listener it ends.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import KEY_UPDATED, SERVER_CREATED, SERVER_DELETED, SERVER_UPDATED
from plughub.gateway.exchange import Exchange
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError
from plughub.protocol import versions
from plughub.protocol.envelope import object_of
from plughub.upstream.pool import Pool
from plughub.upstream.target import Answer, RawJson, Status, Target
from plughub.upstream.watching import NOTHING, Wanted

LISTS = {f"notifications/{name}/list_changed": name for name in ("tools", "prompts", "resources")}
UPDATED = "notifications/resources/updated"
MESSAGE = "notifications/message"
# About a request that runs, or about the stream itself: to nobody else.
_OF_A_REQUEST = frozenset(("notifications/progress", "notifications/cancelled", "notifications/elicitation/complete"))
# Changes after which the lists of a server, or their names at a door of several, may be others.
_TOLD = frozenset(("config", "transport", "enabled", "slug", "name"))
_RIGHTS = frozenset(("servers", "server_grant", "scopes"))
_FIRST_S, _MOST_S = 1.0, 60.0
SETTLE_S = 2.0
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)

# (slug of the server, "" for what the hub itself says; method; params as they came, without the id of the hub's own subscription)
Hear = Callable[[str, str, dict[str, RawJson]], None]


class Listener:
    """One who listens. `server_id` None: at a door of several servers; `grows`: of new ones too. `on_end` is called when it must not,
    or need not, go on."""

    __slots__ = ("caller", "grows", "hear", "lists", "messages", "on_end", "server_id", "server_ids", "uris")

    def __init__(self, caller: Caller, server_id: str | None, hear: Hear, on_end: Callable[[], None]) -> None:
        self.caller = caller
        self.server_id = server_id
        self.hear = hear
        self.on_end = on_end
        self.lists: frozenset[str] = frozenset()
        self.messages = False
        self.grows = False
        self.uris: dict[str, set[str]] = {}
        self.server_ids: set[str] = set()

    def wants(self, server_id: str, method: str, uri: str | None) -> bool:
        """Whether this notification is for it."""
        if method in LISTS:
            return LISTS[method] in self.lists
        if method == UPDATED:
            return uri is not None and any(_within(uri, each) for each in self.uris.get(server_id, ()))
        return self.messages and (method == MESSAGE or (self.server_id is not None and method not in _OF_A_REQUEST))


class _Server:
    """One server that somebody listens to: how many want what of it."""

    __slots__ = ("counts", "keeper", "listeners", "lost", "wake")

    def __init__(self) -> None:
        self.listeners: dict[Listener, None] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lost = False
        self.wake = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None

    def wanted(self) -> Wanted:
        """Everything together."""
        named = {kind: frozenset(name for found, name in self.counts if found == kind) for kind in ("list", "uri")}
        return Wanted(named["list"], named["uri"], ("messages", "") in self.counts, ("held", "") in self.counts)


class Listening:
    """All listeners of this process. A listener of the database, and fed by what the connections report."""

    def __init__(self, exchange: Exchange, pool: Pool) -> None:
        self._exchange = exchange
        self._pool = pool
        self._listeners: dict[Listener, None] = {}
        self._servers: dict[str, _Server] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def servers(self) -> int:
        """How many servers somebody listens to."""
        return len(self._servers)

    # ---- listeners

    def add(self, listener: Listener) -> None:
        """From here on it is told of servers that come; of those that are there it hears what it joins or subscribes to."""
        self._listeners[listener] = None

    def join(self, listener: Listener, server_ids: Iterable[str]) -> None:
        """From here on it hears these servers, which its caller may use. Nothing, when it was removed meanwhile."""
        for server_id in server_ids:
            self._join(listener, server_id)

    def remove(self, listener: Listener) -> None:
        """It hears nothing any more."""
        if self._listeners.pop(listener, self) is None:
            for server_id in tuple(listener.server_ids):
                self._leave(listener, server_id)

    async def ready(self, listener: Listener) -> None:
        """Return when its servers were asked for what it wants, as far as they are connected and quick to answer."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._pool.settled(tuple(listener.server_ids))
        except TimeoutError:
            pass  # it hears what comes later

    async def subscribe(self, listener: Listener, target: Target, uri: str, timeout_s: float) -> Answer:
        """It wants to hear of a resource. The answer is the server's where it is of a revision that asks for each one.

        Raises what connecting and asking raise.
        """
        if (await self._exchange.connect(target, timeout_s)).facts.era == "legacy":
            answer = await self._pool.subscribe(target, uri, timeout_s)
            if answer.result is None:
                return answer
        if target.server_id not in listener.server_ids:
            listener.uris.setdefault(target.server_id, set()).add(uri)
            self._join(listener, target.server_id)
        else:
            self._change(listener, target.server_id, uri, set.add)
        return Answer(result=b"{}")

    def unsubscribe(self, listener: Listener, server_id: str, uri: str) -> None:
        """It does not want to hear of that resource any more."""
        if server_id in listener.server_ids:
            self._change(listener, server_id, uri, set.discard)

    def _change(self, listener: Listener, server_id: str, uri: str, change: Callable[[set[str], str], None]) -> None:
        server = self._servers[server_id]
        server.counts.subtract(_counted(listener, server_id))
        change(listener.uris.setdefault(server_id, set()), uri)
        server.counts.update(_counted(listener, server_id))
        server.counts = +server.counts
        self._apply(server_id, server)

    def _join(self, listener: Listener, server_id: str) -> None:
        if listener not in self._listeners or server_id in listener.server_ids:
            return
        server = self._servers.setdefault(server_id, _Server())
        server.listeners[listener] = None
        listener.server_ids.add(server_id)
        server.counts.update(_counted(listener, server_id))
        self._apply(server_id, server)

    def _leave(self, listener: Listener, server_id: str) -> None:
        server = self._servers.get(server_id)
        if server is None or server_id not in listener.server_ids:
            return
        listener.server_ids.discard(server_id)
        del server.listeners[listener]
        server.counts.subtract(_counted(listener, server_id))
        server.counts = +server.counts
        self._apply(server_id, server)

    def _apply(self, server_id: str, server: _Server) -> None:
        wanted = server.wanted() if server.listeners else NOTHING
        self._pool.want(server_id, wanted)
        if not wanted.held and server.keeper is not None:
            server.keeper.cancel()
            server.keeper = None
        elif wanted.held and server.keeper is None:
            server.keeper = asyncio.get_running_loop().create_task(self._keep(server_id, server))
        if not server.listeners:
            self._servers.pop(server_id, None)

    async def _keep(self, server_id: str, server: _Server) -> None:
        """Connect to the server whenever it is not."""
        wait_s = _FIRST_S
        while True:
            server.wake.clear()
            try:
                caller = next(iter(server.listeners)).caller
                await self._exchange.connect(await self._exchange.target(caller, server_id))
                wait_s = _FIRST_S
                await server.wake.wait()
            except (HubError, SQLAlchemyError, OSError):
                server.wake.clear()
                try:
                    async with asyncio.timeout(wait_s):
                        await server.wake.wait()
                except TimeoutError:
                    wait_s = min(_MOST_S, 2 * wait_s)

    # ---- what is heard

    def notification(self, target: Target, method: str, params: dict[str, RawJson]) -> None:
        """A server's notification that belongs to no request."""
        server = self._servers.get(target.server_id)
        if server is None:
            return
        told = _without_subscription(params)
        uri = _text(told.get("uri")) if method == UPDATED else None
        for listener in tuple(server.listeners):
            if listener.wants(target.server_id, method, uri):
                listener.hear(target.slug, method, dict(told))

    def status(self, target: Target, status: Status) -> None:
        """The state of a connection. What was missed while there was none is told in one: the lists may be others."""
        server = self._servers.get(target.server_id)
        if server is None:
            return
        if status in ("error", "disconnected"):
            server.lost = server.lost or status == "error"
            server.wake.set()
        elif status == "connected" and server.lost:
            server.lost = False
            _tell_lists(tuple(server.listeners), target.slug)

    async def follow(self, events: Sequence[Event]) -> None:
        """Servers come, change and go; a key with other rights listens anew."""
        for event in events:
            if event.name == KEY_UPDATED and _RIGHTS.intersection(event.data.get("changed", ())):
                self._end([each for each in self._listeners if each.caller.key_id == event.key_id])
            elif event.server_id is None:
                continue
            elif event.name == SERVER_CREATED:
                self._on_created(event.space_id, event.server_id)
            elif event.name == SERVER_DELETED:
                self._on_deleted(event.server_id)
            elif event.name == SERVER_UPDATED and _TOLD.intersection(event.data.get("changed", ())):
                self._on_updated(event.server_id)

    def _on_created(self, space_id: str, server_id: str) -> None:
        there = [each for each in self._listeners if each.grows and each.caller.space_id == space_id]
        granted = [each for each in there if each.caller.granted(server_id)]
        for listener in granted:
            self._join(listener, server_id)
        _tell_lists(granted, "")

    def _on_updated(self, server_id: str) -> None:
        server = self._servers.get(server_id)
        if server is not None:
            server.wake.set()
            _tell_lists(tuple(server.listeners), "")

    def _on_deleted(self, server_id: str) -> None:
        server = self._servers.get(server_id)
        if server is None:
            return
        listeners = tuple(server.listeners)
        for listener in listeners:
            self._leave(listener, server_id)
            listener.uris.pop(server_id, None)
        _tell_lists([each for each in listeners if each.server_id is None], "")
        self._end([each for each in listeners if each.server_id is not None])

    def _end(self, listeners: Iterable[Listener]) -> None:
        for listener in listeners:
            self.remove(listener)
            listener.on_end()

    def close(self) -> None:
        """The hub stops."""
        for listener in tuple(self._listeners):
            self.remove(listener)


def _counted(listener: Listener, server_id: str) -> list[tuple[str, str]]:
    """What one listener wants of one server. All servers of a space are not kept running for who listens to all of them: a server
    that rests has nothing to tell, unless somebody watches one of its resources."""
    uris = listener.uris.get(server_id, set())
    found = [("list", name) for name in listener.lists] + [("uri", uri) for uri in uris]
    if listener.messages:
        found.append(("messages", ""))
    if uris or listener.server_id is not None:
        found.append(("held", ""))
    return found


def _tell_lists(listeners: Iterable[Listener], slug: str) -> None:
    for listener in listeners:
        for method, name in LISTS.items():
            if name in listener.lists:
                listener.hear(slug, method, {})


def _within(uri: str, watched: str) -> bool:
    """Whether it is the resource that is watched, or a part of it."""
    return uri == watched or (uri.startswith(watched) and (watched[-1:] in "/?#" or uri[len(watched)] in "/?#"))


def _without_subscription(params: dict[str, RawJson]) -> dict[str, RawJson]:
    raw = params.get("_meta")
    if raw is None or versions.META_SUBSCRIPTION_ID.encode() not in bytes(raw):
        return params
    try:
        meta = {name: bytes(value) for name, value in _members.decode(raw).items() if name != versions.META_SUBSCRIPTION_ID}
    except msgspec.DecodeError:
        return params
    rest = {name: value for name, value in params.items() if name != "_meta"}
    return {**rest, "_meta": object_of(meta)} if meta else rest


def _text(raw: RawJson | None) -> str | None:
    try:
        return None if raw is None else _string.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
