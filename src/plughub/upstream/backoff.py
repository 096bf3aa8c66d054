"""When a server that failed may be started again."""

from plughub.kit.clock import Clock

FIRST_S = 1.0
HEALTHY_S = 10.0


class Backoff:
    """1, 2, 4 … `most_s` seconds after failures in a row; none after a healthy run."""

    __slots__ = ("_clock", "_failures", "_most_s", "_until", "reason")

    def __init__(self, clock: Clock, most_s: float) -> None:
        self._clock = clock
        self._most_s = most_s
        self._failures = 0
        self._until = 0.0
        self.reason = ""

    def wait_s(self) -> float:
        """Seconds until the next try is allowed; 0 = now."""
        return max(0.0, self._until - self._clock.monotonic()) if self._failures else 0.0

    def failed(self, reason: str, *, started: bool = False) -> None:
        """A start failed; or, `started`, a run ended before it did anything: the first of those need not wait."""
        self.reason = reason
        wait_s = 0.0 if started and not self._failures else min(self._most_s, FIRST_S * 2.0**self._failures)
        self._until = self._clock.monotonic() + wait_s
        self._failures = min(self._failures + 1, 30)

    def succeeded(self) -> None:
        """A healthy run: the next start need not wait."""
        self._failures = 0
