"""Many waits of which nearly none runs out, behind one timer.

A timer of the loop that is set and cancelled costs some 3 µs, a tenth of what a call may; an entry here costs a tenth of that.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_NEVER = float("inf")


class Waits(Generic[K]):
    """What is to be done for a key at a time of the loop, unless it is called off before. As exact as the loop's own timers.

    One timer runs, for the soonest wait that was known when it was set; what was called off meanwhile costs at most one look.
    """

    __slots__ = ("_at", "_due", "_loop", "_timer")

    def __init__(self) -> None:
        self._due: dict[K, tuple[float, Callable[[K], None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._at = _NEVER

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, until: float, call: Callable[[K], None]) -> None:
        """Call `call(key)` at `until` of the loop's time; in place of what was waited for under this key before."""
        self._due[key] = (until, call)
        if until < self._at:
            self._set(until)

    def discard(self, key: K) -> None:
        """Call it off, if it is not over."""
        self._due.pop(key, None)

    def close(self) -> None:
        """Call off everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._at = _NEVER

    def _set(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._at = until
        self._timer = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        assert self._loop is not None
        self._timer, self._at = None, _NEVER
        # A timer may fire a little early by its own resolution.
        now = self._loop.time() + 0.001
        over = [(key, call) for key, (until, call) in self._due.items() if until <= now]
        for key, call in over:
            if self._due.pop(key, None) is not None:
                call(key)
        soonest = min((until for until, _ in self._due.values()), default=_NEVER)
        if soonest < self._at:
            self._set(soonest)
