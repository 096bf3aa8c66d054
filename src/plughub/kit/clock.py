"""Time, as something that tests can hold still."""

import time as system_time
from datetime import UTC, datetime
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
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> float | None:
    """Epoch seconds of an RFC 3339 time that names its offset, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
