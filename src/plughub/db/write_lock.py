"""The one lock of SQLite's writers."""

import asyncio
from collections import deque
from types import TracebackType


class WriteLock:
    """In the order that they came, but that those who ask for it go first: what runs seldom and without a request, and of which every
    request that waits makes more. So no writer starves.
    """

    def __init__(self) -> None:
        self._held = False
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, first: bool = False) -> None:
        """Wait for it."""
        if not self._held:
            self._held = True
            return
        waiter = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was handed over just now
                self.release()
            raise

    def release(self) -> None:
        """Hand it to the next."""
        for waiters in (self._first, self._others):
            while waiters:
                waiter = waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self._held = False

    def locked(self) -> bool:
        """Whether anybody has it."""
        return self._held

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
