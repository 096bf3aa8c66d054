"""Connections that a server of a handshake revision has with one client at a time.

Such a server learns at the handshake what its client can be asked, and nothing in its questions says which call they belong to. So
a client that declared anything gets a connection that knows of it, for one call at a time; afterwards the connection waits for the
next client that declared the same. One whose client has roots, which servers keep, serves that client alone. One whose call did not
come to an answer serves nobody any more: what its server still has to say about that call is for nobody else's ears.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from plughub.kit.errors import HubError, Unavailable, UpstreamUnreachable
from plughub.protocol.facts import declared
from plughub.upstream.target import Answer, Ask, Facts, Peer, RawJson
from plughub.upstream.watching import QUESTIONS, Watching

MOST = 16
# For which a client waits that its server's own stream stands, once a connection.
STANDS_S = 0.25
_Key = tuple[bytes, str]


class Lendable(Protocol):
    """A live connection. `peer` is the client that it works for just now, or was made for."""

    facts: Facts
    ended: str | None
    peer: Peer | None
    watching: Watching

    async def request(self, ask: Ask) -> Answer:
        """See `target.Upstream`."""

    async def rest(self) -> bool:
        """The client has gone: what it was still asked is void. Whether there was no such thing."""


@dataclass(slots=True)
class _Kept:
    """A connection, the level that it was told to log at, and whether its own stream was asked for; `since` when it is idle."""

    connection: Lendable
    level: RawJson | None = None
    hears: bool = False
    since: float = 0.0


class Lending:
    """The connections of one server; at most `most`, and whoever waits for one gets it in the order of coming.

    `connect(peer)` makes one, `end` ends one.
    """

    def __init__(
        self,
        connect: Callable[[Peer], Awaitable[Lendable]],
        end: Callable[[Lendable, str], Awaitable[None]],
        *,
        most: int = MOST,
    ) -> None:
        self.loans = 0
        self._connect = connect
        self._end = end
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(most)
        self._held = 0
        self._idle: dict[_Key, list[_Kept]] = {}
        self._lent: set[Lendable] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = ""

    @property
    def in_flight(self) -> int:
        """How many are lent just now."""
        return len(self._lent)

    def connections(self) -> Iterable[Lendable]:
        """Every one there is, lent or idle."""
        yield from self._lent
        for kept in self._idle.values():
            yield from (each.connection for each in kept)

    @asynccontextmanager
    async def lent(self, peer: Peer, timeout_s: float) -> AsyncIterator[Lendable]:
        """A connection that knows of this client, for the time of the block.

        Raises what connecting raises, and Unavailable when none gets free.
        """
        key = (bytes(peer.capabilities), peer.holder if "roots" in declared(peer.capabilities) else "")
        await self._take_place(timeout_s)
        kept, clean = None, False
        try:
            kept = self._pick(key, peer) or await self._make(peer)
            kept.connection.peer = peer
            self._lent.add(kept.connection)
            self.loans += 1
            await _hear_questions(kept)
            await _set_level(kept, peer, timeout_s)
            yield kept.connection
            clean = True
        finally:
            answered, clean = clean, False
            try:
                clean = kept is not None and await kept.connection.rest() and answered
            finally:
                if kept is not None:
                    self._give_back(key, kept, clean)
                self._held -= 1
                self._places.release()

    async def _take_place(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise Unavailable(f"All {self._most} connections for clients with capabilities of their own are in use") from error
        self._held += 1

    def _pick(self, key: _Key, peer: Peer) -> _Kept | None:
        """An idle one that this client may have: best one that logs as it wants, for a level can be changed but not taken back."""
        idle = [each for each in self._idle.get(key, ()) if each.connection.ended is None]
        same = [each for each in idle if each.level == peer.log_level]
        found = (same or (idle if peer.log_level is not None else []))[-1:]
        if not found:
            return None
        self._idle[key].remove(found[0])
        return found[0]

    async def _make(self, peer: Peer) -> _Kept:
        self._make_room()
        connection = await self._connect(peer)
        if self._closed:  # meanwhile
            self._part(connection, self._closed)
            raise UpstreamUnreachable(self._closed, executed="no")
        return _Kept(connection)

    def _make_room(self) -> None:
        """End the longest idle connection when all places are taken by idle ones."""
        if sum(map(len, self._idle.values())) + self._held > self._most:
            key, oldest = min(((key, each) for key, kept in self._idle.items() for each in kept), key=lambda pair: pair[1].since)
            self._idle[key].remove(oldest)
            self._part(oldest.connection, "its place is needed")

    def _give_back(self, key: _Key, kept: _Kept, clean: bool) -> None:
        connection = kept.connection
        connection.peer = None
        self._lent.discard(connection)
        if self._closed or connection.ended is not None or not clean:
            self._part(connection, self._closed or "its call came to no answer")
        else:
            kept.since = self._loop.time()
            self._idle.setdefault(key, []).append(kept)

    def _part(self, connection: Lendable, reason: str) -> None:
        """End a connection; nobody waits for its farewell but `aclose`."""
        task: asyncio.Task[None] = self._loop.create_task(_awaited(self._end(connection, reason)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def rest(self, idle_s: float) -> None:
        """End what was not used for so long, and forget what has ended."""
        before = self._loop.time() - idle_s
        for key, kept in list(self._idle.items()):
            old = [each for each in kept if each.since <= before or each.connection.ended is not None]
            for each in old:
                kept.remove(each)
                self._part(each.connection, "it was not used for a while")
            if not kept:
                del self._idle[key]

    async def aclose(self, reason: str) -> None:
        """End all; calls under way fail with `reason`, and those that wait for a connection with them."""
        self._closed = reason
        for connection in list(self.connections()):
            self._part(connection, reason)
        self._idle.clear()
        while self._ending:
            await asyncio.wait(self._ending)


async def _hear_questions(kept: _Kept) -> None:
    """Servers may ask on a stream that belongs to no call: it stands before the first call, where there is one."""
    if kept.hears:
        return
    kept.hears = True
    kept.connection.watching.want(QUESTIONS)
    with suppress(TimeoutError):  # some say nothing there, the head of the answer included, before they have a question
        async with asyncio.timeout(STANDS_S):
            await kept.connection.watching.settled()


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _set_level(kept: _Kept, peer: Peer, timeout_s: float) -> None:
    """What this client wants to hear; a server that does not log is not told."""
    facts = kept.connection.facts
    if peer.log_level is None or peer.log_level == kept.level or facts.era == "modern" or "logging" not in declared(facts.capabilities):
        return
    kept.level = peer.log_level
    try:
        await kept.connection.request(Ask("logging/setLevel", {"level": peer.log_level}, timeout_s))
    except HubError:
        pass  # the call itself will say what is wrong
