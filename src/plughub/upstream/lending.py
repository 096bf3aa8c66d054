"""Connections that a server of a handshake revision has with one client at a time.

Such a server learns at the handshake what its client can be asked, and nothing in its questions says which call they belong to. So
a client that declared anything gets a connection that knows of it, for one call at a time; afterwards the connection waits for the
next client that declared the same. One whose client has roots, which servers keep, serves that client alone.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from plughub.kit.errors import HubError, Unavailable
from plughub.upstream.target import Answer, Ask, Facts, Peer

MOST = 16
_Key = tuple[bytes, str]


class Lendable(Protocol):
    """A live connection. `peer` is the client that it works for just now, or was made for."""

    facts: Facts
    ended: str | None
    peer: Peer | None

    async def request(self, ask: Ask) -> Answer:
        """See `target.Upstream`."""

    def rest(self) -> None:
        """The client has gone: what it was still asked is void."""


class Lending:
    """The connections of one server; at most `most`, idle ones ended after `idle_s`. `connect(peer)` makes one, `end` ends one."""

    def __init__(
        self,
        connect: Callable[[Peer], Awaitable[Lendable]],
        end: Callable[[Lendable, str], Awaitable[None]],
        *,
        most: int = MOST,
    ) -> None:
        self._connect = connect
        self._end = end
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._idle: dict[_Key, list[tuple[float, Lendable]]] = {}
        self._lent: set[Lendable] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = ""

    @property
    def in_flight(self) -> int:
        """How many are lent just now."""
        return len(self._lent)

    @asynccontextmanager
    async def lent(self, peer: Peer, timeout_s: float) -> AsyncIterator[Lendable]:
        """A connection that knows of this client, for the time of the block.

        Raises what connecting raises, and Unavailable when none gets free.
        """
        key = (peer.capabilities, peer.holder if b'"roots"' in peer.capabilities else "")
        connection = await self._take(key, peer, timeout_s)
        connection.peer = peer
        self._lent.add(connection)
        try:
            await _set_level(connection, peer, timeout_s)
            yield connection
        finally:
            connection.rest()
            connection.peer = None
            self._lent.discard(connection)
            if self._closed or connection.ended is not None:
                await self._end(connection, self._closed or "it has ended")
            else:
                self._idle.setdefault(key, []).append((self._loop.time(), connection))
            self._wake()

    async def _take(self, key: _Key, peer: Peer, timeout_s: float) -> Lendable:
        until = self._loop.time() + timeout_s
        while True:
            idle = self._idle.get(key, [])
            while idle:
                _, connection = idle.pop()
                if connection.ended is None:
                    return connection
            if len(self._lent) + self._connecting < self._most:
                await self._make_room()
                return await self._make(peer)
            await self._wait(until)

    async def _make(self, peer: Peer) -> Lendable:
        self._connecting += 1
        try:
            return await self._connect(peer)
        finally:
            self._connecting -= 1
            self._wake()

    async def _make_room(self) -> None:
        """End the longest idle connection when all places are taken by idle ones."""
        idle = [(since, key) for key, kept in self._idle.items() for since, _ in kept]
        if len(idle) + len(self._lent) + self._connecting >= self._most and idle:
            _, key = min(idle)
            _, connection = self._idle[key].pop(0)
            await self._end(connection, "its place is needed")

    async def _wait(self, until: float) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except TimeoutError as error:
            raise Unavailable(f"All {self._most} connections for clients with capabilities of their own are in use") from error

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def rest(self, idle_s: float) -> None:
        """End what was not used for so long."""
        before = self._loop.time() - idle_s
        for key, kept in list(self._idle.items()):
            old = [connection for since, connection in kept if since <= before or connection.ended is not None]
            self._idle[key] = [(since, connection) for since, connection in kept if connection not in old]
            if not self._idle[key]:
                del self._idle[key]
            for connection in old:
                await self._end(connection, "it was not used for a while")

    async def aclose(self, reason: str) -> None:
        """End all; calls under way fail with `reason`."""
        self._closed = reason
        idle = [connection for kept in self._idle.values() for _, connection in kept]
        self._idle.clear()
        for connection in (*idle, *self._lent):
            await self._end(connection, reason)


async def _set_level(connection: Lendable, peer: Peer, timeout_s: float) -> None:
    """What this client wants to hear; a server that does not log is not told."""
    if peer.log_level is None or b'"logging"' not in connection.facts.capabilities or connection.facts.era == "modern":
        return
    try:
        await connection.request(Ask("logging/setLevel", {"level": peer.log_level}, timeout_s))
    except HubError:
        pass  # the call itself will say what is wrong
