"""How long a failed server rests."""

import pytest

from plughub.upstream.backoff import Backoff
from tests.conftest import FakeClock


def waits(backoff: Backoff, clock: FakeClock, times: int, *, started: bool = False) -> list[float]:
    found = []
    for _ in range(times):
        backoff.failed("it broke", started=started)
        found.append(backoff.wait_s())
        clock.advance(found[-1])
        assert backoff.wait_s() == 0
    return found


@pytest.mark.requirement("upstream.restart-back-off")
def test_failures_in_a_row_wait_twice_as_long_each_time_up_to_the_bound() -> None:
    clock = FakeClock()
    backoff = Backoff(clock, 60)
    assert backoff.wait_s() == 0
    assert waits(backoff, clock, 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.reason == "it broke"


def test_a_healthy_run_ends_the_waiting() -> None:
    clock = FakeClock()
    backoff = Backoff(clock, 60)
    waits(backoff, clock, 5)
    backoff.succeeded()
    assert waits(backoff, clock, 2) == [1, 2]


def test_the_first_crash_after_a_start_is_free_and_the_next_are_not() -> None:
    clock = FakeClock()
    assert waits(Backoff(clock, 60), clock, 4, started=True) == [0, 2, 4, 8]


def test_thousands_of_failures_are_no_overflow() -> None:
    clock = FakeClock()
    assert waits(Backoff(clock, 5), clock, 5000)[-1] == 5
