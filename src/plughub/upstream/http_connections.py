"""The connections to one HTTP server: made when needed, kept open, bounded."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable

from plughub.kit.dial import Allowed, DialRefused, Tls, dial
from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.upstream.http_address import Address
from plughub.upstream.http_connection import KEPT_S, HttpConnection
from plughub.upstream.noise import Budget


class Connections:
    """The open connections to one address: at most `most`, the last used first."""

    def __init__(self, address: Address, allowed: Allowed, tls: Tls, *, most: int, max_bytes: int, timeout_s: float) -> None:
        self._address = address
        self._allowed = allowed
        self._tls = tls
        self._most = most
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._idle: list[HttpConnection] = []
        self._all: set[HttpConnection] = set()
        self._dialling = 0
        self._waiters: deque[asyncio.Future[HttpConnection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False
        self.beyond = 0  # places over `most`, for streams that stay open
        # What the servers' streams bring unasked, all connections together; `on_slow` hears once that they have to wait.
        self.on_slow: Callable[[], None] = lambda: None
        self._budget = Budget(self._loop)
        self._slow = False

    def spend(self, noise: int) -> float:
        """Count noise; the seconds that whoever brought it has to wait."""
        wait_s = self._budget.spend(noise)
        if wait_s and not self._slow:
            self._slow = True
            self.on_slow()
        return wait_s

    @property
    def open(self) -> int:
        """How many connections are open or being made."""
        return len(self._all) + self._dialling

    def take(self) -> HttpConnection | None:
        """An open connection, if one is free."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.abort()
        return None

    async def connect(self) -> HttpConnection:
        """A new connection, or the next one that gets free. Raises UpstreamUnreachable or UpstreamTimeout (nothing was sent)."""
        while self.open >= self._most + self.beyond and not self.closed:
            waiter: asyncio.Future[HttpConnection | None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                connection = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and (given := waiter.result()) is not None:
                    self.give_back(given)
                raise
            if connection is not None:
                return connection
        if self.closed:
            raise UpstreamUnreachable("the connection was closed", executed="no")
        self._dialling += 1
        connection = None
        try:
            connection = await self._dial()
            return connection
        finally:
            self._dialling -= 1
            if connection is None:
                self._wake()

    async def _dial(self) -> HttpConnection:
        address = self._address
        try:
            context = await self._tls.context() if address.tls else None
            _, connection = await dial(
                address.host,
                address.port,
                lambda: HttpConnection(self, self._max_bytes),
                allowed=self._allowed,
                ssl=context,
                timeout_s=self._timeout_s,
            )
        except TimeoutError as error:
            raise UpstreamTimeout(f"no connection within {self._timeout_s:g} s", executed="no") from error
        except OSError as error:
            raise UpstreamUnreachable(dial_failure(error, address), executed="no") from error
        if self.closed:  # meanwhile
            connection.abort()
            raise UpstreamUnreachable("the connection was closed", executed="no")
        self._all.add(connection)
        return connection

    def give_back(self, connection: HttpConnection) -> None:
        """The connection is free again."""
        connection.idle_since = self.time()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEPT_S, self._sweep)

    def lost(self, connection: HttpConnection) -> None:
        """The connection is closed."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def _wake(self) -> None:
        """Somebody who waits may open a connection of their own now."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        self._sweeper = None
        for connection in [connection for connection in self._idle if not connection.reusable]:
            self._idle.remove(connection)
            connection.abort()
        if self._idle:
            self._sweeper = self._loop.call_later(KEPT_S, self._sweep)

    def close(self, reason: str) -> None:
        """Close every connection; exchanges under way fail with `reason`."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._all):
            exchange = connection.exchange
            connection.abort()
            if exchange is not None:
                exchange.fail(UpstreamUnreachable(reason, executed="unknown"))
        self._idle.clear()
        while self._waiters:
            self._wake()


def dial_failure(error: OSError, address: Address) -> str:
    """Why a connection could not be made, in words."""
    where = f"{address.host}:{address.port}"
    if isinstance(error, DialRefused):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {where}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the TLS certificate of {where} is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with {where} failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"host name not found: {address.host}"
    if isinstance(error, ConnectionError):
        return f"{'TLS with' if address.tls else 'connecting to'} {where} failed: the connection was closed"
    return f"{where}: {error.strerror or error}"
