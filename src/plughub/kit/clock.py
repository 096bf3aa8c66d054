"""Time, as something that tests can hold still."""

import time as system_time
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import Protocol


class Clock(Protocol):
    """Wall time in epoch seconds and monotonic time in seconds."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clock."""

    time = staticmethod(system_time.time)
    monotonic = staticmethod(system_time.monotonic)


def rfc3339(epoch_s: float) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    second = floor(epoch_s)
    rest_us = round((epoch_s - second) * 1_000_000)
    if rest_us == 1_000_000:
        second, rest_us = second + 1, 0
    return f"{_second(second)}.{rest_us // 1000:03}Z"


@lru_cache(4096)
def _second(epoch_s: int) -> str:
    # A list of a thousand things holds two thousand times, most of them alike to the second.
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def parse_rfc3339(text: str) -> float | None:
    """Epoch seconds of an RFC 3339 time that names its offset, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
