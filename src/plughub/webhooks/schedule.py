"""When a delivery is tried again, and when an endpoint is given up. Pure."""

from collections.abc import Callable

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
# After the first attempt, and each that follows: CONTRACT section 7.
RETRIES_S = (MINUTE_S, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 12 * HOUR_S)
JITTER = 0.1
# An endpoint whose every attempt has failed for so long is switched off.
DISABLED_AFTER_S = 5 * DAY_S
# What a receiver may ask for with Retry-After: of one delivery, and of all that go to it.
MOST_RETRY_AFTER_S = DAY_S
MOST_PAUSE_S = 10 * MINUTE_S


def next_attempt(now: float, tries: int, retry_after_s: float | None, rolled: Callable[[float, float], float]) -> float | None:
    """When to try again after `tries` failed attempts; None: no more. `rolled(low, high)` gives the jitter.

    Retry-After makes it later, never sooner, by a day at most.
    """
    if tries > len(RETRIES_S):
        return None
    planned = RETRIES_S[tries - 1] * rolled(1 - JITTER, 1 + JITTER)
    return now + max(planned, min(retry_after_s or 0.0, MOST_RETRY_AFTER_S))


def gives_up(failing_since: float | None, now: float) -> bool:
    """Whether an endpoint that has failed once more has done so for too long."""
    return failing_since is not None and now - failing_since >= DISABLED_AFTER_S
