"""An event loop without threads, sockets and waiting: one seed, one history.

Time is virtual: when nothing is ready, it jumps to the next timer. What the hub gives to threads (the SQLite driver, executors,
FastAPI's plain functions) runs in the loop's own thread, one piece a turn. Connections lead through memory, with delays and
cuts that the seed decides. So every await of the hub that waits ends a turn of the loop, and `at_turn` can strike between any two.
"""

import asyncio
import contextvars
import heapq
import itertools
import random
import selectors
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiosqlite.core
import anyio.to_thread
import pytest

from plughub.db.writer import RowsRefused
from plughub.kit.errors import HubError

START_AT = 1_800_000_000.0
# Loops that never rest are a fault of the hub; no history here is nearly so long.
MAX_TURNS = 5_000_000


class Stuck(Exception):
    """Nothing is ready, no timer runs: whoever waits waits for ever."""


class _Selector(selectors.DefaultSelector):
    """Never waits: tells the loop that a turn begins, and how long it could rest."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.turn_over(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`turn` counts the turns; `observers` are called between them; `complaints` is what nobody caught."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.turn = 0
        self.rng = random.Random(seed)
        self.observers: list[Callable[[], None]] = []
        self._strikes: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._dialled: dict[socket.socket, int] = {}
        self._ports: dict[int, Callable[[], asyncio.BaseProtocol]] = {}
        self._next_port = 20_000
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.complaints: list[str] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(f"{context['message']}: {context.get('exception')!r}"))

    # ---- time

    def time(self) -> float:
        return self.now

    def turn_over(self, timeout: float | None) -> None:
        """Between two turns."""
        self.turn += 1
        if self.turn > MAX_TURNS:
            raise Stuck(f"the loop went round {MAX_TURNS} times")
        for observe in self.observers:
            observe()
        struck = False
        while self._strikes and self._strikes[0][0] <= self.turn:
            self.call_soon(heapq.heappop(self._strikes)[2])
            struck = True
        if struck or timeout == 0:
            return
        if timeout is None:
            raise Stuck("nothing is ready and no timer runs")
        self.now += timeout

    def at_turn(self, turn: int, strike: Callable[[], None]) -> None:
        """Call `strike` when that turn begins."""
        heapq.heappush(self._strikes, (turn, next(self._order), strike))

    def pass_time(self, seconds: float) -> asyncio.Future[None]:
        """Done when so much virtual time has passed."""
        passed = self.create_future()
        self.call_later(seconds, lambda: passed.done() or passed.set_result(None))
        return passed

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Every timer that will still fire."""
        return [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    # ---- what would be a thread

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        self.call_soon(_perform, done, partial(func, *args), True)
        return done

    # ---- the network

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:  # type: ignore[override]
        await self.pass_time(0.0001)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self.pass_time(self.rng.choice((0.0002, 0.001, 0.02)))
        if address[1] not in self._ports:
            raise ConnectionRefusedError(111, "Connection refused")
        self._dialled[sock] = address[1]

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:  # type: ignore[override]
        port = self._dialled.pop(sock)
        sock.close()
        if port not in self._ports:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = Wire(self, protocol_factory()), Wire(self, self._ports[port]())
        ours.peer, theirs.peer = theirs, ours
        for wire in (ours, theirs):
            self.call_soon(wire.protocol.connection_made, wire)
        await self.pass_time(0.0001)
        return ours, ours.protocol

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        if not port:
            self._next_port += 1
            port = self._next_port
        self._ports[port] = protocol_factory
        return _Listening(self._ports, port)


class _Listening:
    """What `create_server` gives."""

    def __init__(self, ports: dict[int, Any], port: int) -> None:
        self._ports, self._port = ports, port
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def close(self) -> None:
        self._ports.pop(self._port, None)


class Wire(asyncio.Transport):
    """One end of a connection in memory. What is written arrives later, in order, sometimes in pieces."""

    peer: "Wire"

    def __init__(self, loop: VirtualLoop, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = loop
        self._closing = self._lost = self._paused = False
        self._held: list[bytes | None] = []
        self._arrives_at = 0.0

    def write(self, data: Any) -> None:
        data = bytes(data)
        if self._closing or not data:
            return
        rng = self._loop.rng
        cut = rng.randrange(len(data)) if rng.random() < 0.1 else 0
        for part in (data[:cut], data[cut:]):
            if part:
                self._send(self.peer._arrived, part)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send(self.peer._arrived, None)
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for part in held:
            self._arrived(part)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def _send(self, arrive: Callable[..., None], part: bytes | None) -> None:
        # Strictly later than what went before: timers of one moment fire in no order.
        delay_s = self._loop.rng.choice((0.0001, 0.0001, 0.0005, 0.003))
        self._arrives_at = max(self._arrives_at + 1e-6, self._loop.now + delay_s)
        self._loop.call_at(self._arrives_at, arrive, part)

    def _arrived(self, part: bytes | None) -> None:
        if self._closing:
            return
        if self._paused:
            self._held.append(part)
        elif part is not None:
            self.protocol.data_received(part)
        elif not self.protocol.eof_received():
            self.close()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)


class VirtualClock:
    """The hub's clock: the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return START_AT + self._loop.now

    def monotonic(self) -> float:
        return self._loop.now


# ---- the threads of others


# As long as the hub lets SQLite wait for a lock (`db.engine.BUSY_TIMEOUT_MS`); here it waits in virtual time.
_BUSY_S = 10.0
_BUSY_STEP_S = 0.001
# What the pieces raise; anything else becomes a complaint of the loop.
_RAISED = (sqlite3.Error, OSError, ValueError, LookupError, RuntimeError, HubError, RowsRefused)


def _perform(done: asyncio.Future[Any] | None, function: Callable[[], Any], skip_cancelled: bool, busy_s: float = 0.0) -> None:
    if done is not None and done.cancelled() and skip_cancelled:  # an executor would not begin it any more
        return
    try:
        result = function()
    except _RAISED as error:
        if done is not None and busy_s < _BUSY_S and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            done.get_loop().call_later(_BUSY_STEP_S, _perform, done, function, False, busy_s + _BUSY_STEP_S)
            return
        if done is not None and not done.done():
            done.set_exception(error)
        return
    if done is not None and not done.done():
        done.set_result(result)


class _Queue:
    """The SQLite driver's queue to its thread: what is put in runs in the next turn, in order, cancelled or not."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = item
        if future is None:
            _perform(None, function, False)
        else:
            future.get_loop().call_soon(_perform, future, function, False)


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Any:
        return super().execute("SELECT 1" if "busy_timeout" in sql else sql, *parameters)


class _Connection(sqlite3.Connection):
    """Never waits for a lock: the holder's next statement runs in the same thread."""

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_Cursor)

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().execute(sql, *parameters)


def _connect(path: Any, *args: Any, **given: Any) -> sqlite3.Connection:
    return _real_connect(path, *args, **{**given, "timeout": 0, "factory": _Connection})


_real_connect = sqlite3.connect


class _Thread:
    """A thread that is none."""

    daemon = True

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


async def _run_sync(func: Callable[..., Any], *args: Any, **_: Any) -> Any:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, partial(contextvars.copy_context().run, func, *args))


@contextmanager
def without_threads() -> Iterator[None]:
    """While this is open, the SQLite driver and anyio start no threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiosqlite.core, "SimpleQueue", _Queue)
        patch.setattr(aiosqlite.core, "Thread", _Thread)
        patch.setattr(anyio.to_thread, "run_sync", _run_sync)
        patch.setattr(sqlite3, "connect", _connect)
        yield


def simulate(seed: int, main: Callable[[VirtualLoop], Any]) -> Any:
    """Run `main(loop)` on a loop of its own; its result."""
    loop = VirtualLoop(seed)
    random.seed(seed)  # what the hub spreads in time, it spreads alike
    with without_threads(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
