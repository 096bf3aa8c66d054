"""Bytes of a pipe as lines, bounded."""

import asyncio
from collections.abc import Callable
from typing import cast

from plughub.upstream.noise import Budget

KEPT = 4096
# Skipping a byte is cheaper than reporting one, and a line costs more than its bytes.
SKIP_DISCOUNT = 64
LINE_PRICE = 64


class Lines(asyncio.Protocol):
    """Calls `on_line` with each line without its end; of a longer one than `max_bytes` only `on_long(head, tail, size)` hears."""

    __slots__ = ("_chunks", "_head", "_kept", "_max_bytes", "_on_end", "_on_line", "_on_long", "_size", "_tail", "throttle", "transport")

    def __init__(
        self,
        max_bytes: int,
        on_line: Callable[[bytes], None],
        on_long: Callable[[bytes, bytes, int], None],
        on_end: Callable[[], None],
        kept: int = KEPT,
    ) -> None:
        self._max_bytes = max_bytes
        self._kept = kept
        self._on_line = on_line
        self._on_long = on_long
        self._on_end = on_end
        self._chunks: list[bytes] = []
        self._size = 0
        self._head = b""  # set while a line that is too long goes by
        self._tail = b""
        self.throttle: Throttle | None = None
        self.transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.ReadTransport, transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._finish(data[start:end])
            start = end + 1
        if start < len(data):
            self._keep(data[start:] if start else data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._size:
            self._finish(b"")
        self._on_end()

    def _finish(self, last: bytes) -> None:
        if not self._size and len(last) <= self._max_bytes:
            self._on_line(last)
            return
        self._keep(last)
        chunks, head, tail, size = self._chunks, self._head, self._tail, self._size
        self._chunks, self._head, self._tail, self._size = [], b"", b"", 0
        if head:
            self._on_long(head, tail, size)
        else:
            self._on_line(b"".join(chunks))

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._head:
            if self.throttle is not None:
                self.throttle.spend(len(part) // SKIP_DISCOUNT)
            self._tail = part[-self._kept :] if len(part) >= self._kept else (self._tail + part)[-self._kept :]
            return
        self._chunks.append(part)
        if self._size > self._max_bytes:
            whole = b"".join(self._chunks)
            self._head, self._tail = whole[: self._kept], whole[-self._kept :]
            self._chunks = []


class Throttle:
    """Pauses a pipe whose noise is over `rate` bytes a second, for as long as it is ahead of that."""

    __slots__ = ("_budget", "_lines", "_loop", "_paused", "noted")

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: int) -> None:
        self._loop = loop
        self._budget = Budget(loop, rate)
        self._paused = False
        self._lines: Lines | None = None
        self.noted = False

    def watch(self, lines: Lines) -> None:
        """Name the pipe to pause."""
        self._lines = lines
        lines.throttle = self

    def spend(self, count: int) -> bool:
        """Count noise; True when that is the first time that the pipe had to be paused."""
        ahead_s = self._budget.spend(count)
        if not ahead_s or self._paused or self._lines is None or self._lines.transport is None:
            return False
        self._paused = True
        self._lines.transport.pause_reading()
        self._loop.call_later(0.1 + ahead_s, self._resume)
        first, self.noted = not self.noted, True
        return first

    def _resume(self) -> None:
        self._paused = False
        transport = self._lines.transport if self._lines else None
        if transport is not None and not transport.is_closing():
            transport.resume_reading()


class NoisyLines(Lines):
    """Lines of which every byte is noise: stderr. Of a longer one than `most` bytes the rest is left out."""

    __slots__ = ("_on_pause", "_throttle")

    def __init__(self, throttle: Throttle, most: int, on_line: Callable[[bytes], None], on_pause: Callable[[], None]) -> None:
        super().__init__(most, on_line, lambda head, tail, size: on_line(head), lambda: None, kept=most)
        throttle.watch(self)
        self.throttle = None  # everything is counted below
        self._throttle = throttle
        self._on_pause = on_pause

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._throttle.spend(len(data) + LINE_PRICE * data.count(b"\n")):
            self._on_pause()
