"""Admission against an exact log: what was admitted, to the second, and what the three limits make of it."""

import re
import subprocess
import sys
from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plughub.cluster.limits import AddressLimits, InProcessLimits, pairs
from plughub.cluster.limits import InProcessMeter as Meter
from plughub.kit.caller import TIERS, Tier
from plughub.kit.errors import RateLimited
from tests.cluster.oracle import SMALL, AgainstTheLog
from tests.conftest import FakeClock


def admitted(meter: Meter, cost: int = 1) -> bool:
    """Try one call that ends at once."""
    if meter.admit(cost) is not None:
        return False
    meter.release()
    return True


def header(limits: InProcessLimits | Meter, name: bytes, subject: str = "org", tier: Tier = SMALL) -> str:
    headers = pairs(limits.lines() if isinstance(limits, Meter) else limits.peek(subject, tier).lines())
    return dict(headers)[name].decode()


class InProcess(AgainstTheLog):
    made = staticmethod(lambda clock: InProcessLimits(clock, 100))


TestAgainstTheLog = pytest.mark.requirement("limits.hourly", "limits.concurrency", "limits.burst", "limits.refusal")(InProcess.TestCase)
TestAgainstTheLog.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.requirement("limits.burst")
@pytest.mark.parametrize("name", TIERS)
def test_the_burst_is_exact_and_refills_in_a_minute(name: str, clock: FakeClock) -> None:
    tier = Tier(name, 10**9, min(TIERS[name].burst, 1000), 10**6)
    meter = Meter(tier, clock)
    assert [admitted(meter) for _ in range(tier.burst + 1)] == [True] * tier.burst + [False]
    clock.advance(60 / tier.burst + 1e-6)
    assert [admitted(meter), admitted(meter)] == [True, False]
    clock.advance(60.1)
    assert sum(admitted(meter) for _ in range(tier.burst + 10)) == tier.burst


@pytest.mark.requirement("limits.burst")
def test_a_cost_takes_that_much_of_the_burst(clock: FakeClock) -> None:
    meter = Meter(SMALL, clock)
    assert [admitted(meter, 4), admitted(meter, 2), admitted(meter, 1), admitted(meter, 1)] == [True, False, True, False]


@given(st.lists(st.floats(0, 400), min_size=1, max_size=120))
@settings(max_examples=150, deadline=None)
def test_no_rolling_hour_is_over_whatever_the_times(gaps: list[float]) -> None:
    clock = FakeClock()
    meter = Meter(Tier("t", hourly=10, burst=1_000, concurrency=1), clock)
    log: list[float] = []
    for gap in gaps:
        clock.advance(gap)
        if admitted(meter):
            log.append(clock.now)
        else:
            # Not refused while a whole minute's room is left.
            assert sum(at > clock.now - 3660 for at in log) >= 10
    for start in log:
        assert sum(start <= at < start + 3600 for at in log) <= 10


@pytest.mark.requirement("limits.hourly")
def test_the_hour_attacked_at_its_edge_stays_an_hour(clock: FakeClock) -> None:
    meter = Meter(Tier("t", hourly=100, burst=1000, concurrency=1), clock)
    clock.now = 1_800_000_059.9
    assert sum(admitted(meter) for _ in range(300)) == 100
    for _ in range(60):
        clock.advance(59.98)
        assert not admitted(meter)
    clock.now = 1_800_000_000 + 61 * 60
    assert sum(admitted(meter) for _ in range(300)) == 100


@pytest.mark.requirement("limits.refusal")
def test_the_longest_wait_is_the_one_that_is_told(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 10)
    tier = Tier("t", hourly=5, burst=5, concurrency=1)
    for _ in range(5):
        limits.admit("org", tier).release()
    with pytest.raises(RateLimited) as caught:
        limits.admit("org", tier)
    assert caught.value.details["policy"] == "hourly"
    assert caught.value.details["limit"] == 5
    clock.advance(caught.value.details["retry_after"])
    held = limits.admit("org", tier)
    with pytest.raises(RateLimited) as caught:
        limits.admit("org", tier)
    assert caught.value.details == {"policy": "concurrency", "limit": 1, "retry_after": 1}
    held.release()
    limits.admit("org", tier).release()


@pytest.mark.requirement("limits.headers")
def test_the_headers_count_down_by_one_and_are_numbers(clock: FakeClock) -> None:
    clock.now = 1_800_000_010.0
    limits = InProcessLimits(clock, 10)
    for number in range(1, 6):
        lease = limits.admit("org", SMALL)
        headers = {name.decode(): value.decode() for name, value in pairs(lease.lines())}
        assert headers["x-ratelimit-limit"] == "20"
        assert headers["x-ratelimit-remaining"] == str(20 - number)
        assert headers["x-ratelimit-reset"] == str(1_800_000_000 + 61 * 60)
        assert headers["ratelimit-policy"] == '"hour";q=20;w=3600, "burst";q=5;w=60, "concurrency";q=3;qu="concurrent-requests"'
        refill = ceil(number * 12)
        assert headers["ratelimit"] == f'"hour";r={20 - number};t=3650, "burst";r={5 - number};t={refill}, "concurrency";r=2'
        lease.release()
    assert header(limits, b"ratelimit").endswith('"concurrency";r=3')


@pytest.mark.requirement("limits.headers")
def test_reset_is_the_second_when_remaining_grows(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 10)
    limits.admit("org", SMALL).release()
    clock.advance(1000)
    limits.admit("org", SMALL).release()
    for remaining in (18, 19):
        reset = int(header(limits, b"x-ratelimit-reset"))
        clock.now = reset - 0.01
        assert header(limits, b"x-ratelimit-remaining") == str(remaining)
        clock.now = reset
        assert header(limits, b"x-ratelimit-remaining") == str(remaining + 1)


@pytest.mark.requirement("limits.headers")
def test_headers_after_a_long_silence_tell_the_present(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 10)
    lease = limits.admit("org", SMALL)
    clock.advance(100_000)
    for headers in (dict(pairs(lease.lines())), dict(pairs(limits.peek("org", SMALL).lines()))):
        assert headers[b"x-ratelimit-remaining"] == b"20"
        assert all(int(number) >= 0 for number in re.findall(r"[rt]=(-?\d+)", headers[b"ratelimit"].decode()))
        assert int(headers[b"x-ratelimit-reset"]) > clock.now


def test_a_lowered_tier_keeps_the_count_and_shows_no_negative_number(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 10)
    leases = [limits.admit("org", SMALL) for _ in range(3)]
    lower = Tier("lower", hourly=2, burst=2, concurrency=1)
    left = limits.peek("org", lower).left()
    assert (left.hourly, left.burst, left.concurrency) == (0, 0, 0)
    assert "-" not in header(limits, b"ratelimit", tier=lower).replace("concurrent-requests", "")
    assert header(limits, b"x-ratelimit-remaining", tier=lower) == "0"
    with pytest.raises(RateLimited) as caught:
        limits.admit("org", lower)
    for lease in leases:
        lease.release()
    clock.advance(caught.value.details["retry_after"])
    limits.admit("org", lower).release()


def test_a_clock_that_goes_back_neither_breaks_nor_gives_more(clock: FakeClock) -> None:
    meter = Meter(Tier("t", hourly=10, burst=1000, concurrency=1), clock)
    assert all(admitted(meter) for _ in range(10))
    clock.advance(-7200)
    assert not admitted(meter)
    assert meter.left().hourly == 0
    clock.advance(7200)
    assert not admitted(meter)


def test_subjects_have_meters_of_their_own_and_idle_ones_are_dropped(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 3)
    busy = limits.admit("busy", SMALL)
    for name in ("a", "b"):
        limits.admit(name, SMALL).release()
    clock.advance(4000)
    for name in ("c", "d"):
        limits.admit(name, SMALL).release()
    assert limits.peek("busy", SMALL).left().concurrency == 2, "a lease is never forgotten"
    assert limits.peek("c", SMALL).left().hourly == 19
    busy.release()
    assert limits.peek("busy", SMALL).left().concurrency == 3


@pytest.mark.requirement("limits.unauthenticated-by-address")
def test_an_address_has_sixty_a_minute_and_an_honest_wait(clock: FakeClock) -> None:
    addresses = AddressLimits(clock, 60, 100)
    for number in range(1, 61):
        headers, refused = addresses.count("a")
        assert refused is None
        assert dict(headers)[b"x-ratelimit-remaining"] == b"%d" % (60 - number)
    headers, refused = addresses.count("a")
    assert refused is not None
    assert (refused.details["policy"], refused.details["limit"]) == ("address", 60)
    assert dict(headers)[b"x-ratelimit-remaining"] == b"0"
    assert addresses.count("b")[1] is None
    assert refused.details["retry_after"] in (1, 2)
    clock.advance(1.001)
    assert addresses.count("a")[1] is None
    assert addresses.count("a")[1] is not None


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("ab")), max_size=200))
@settings(max_examples=60, deadline=None)
def test_an_address_waits_as_long_as_it_is_told(steps: list[tuple[float, str]]) -> None:
    clock = FakeClock()
    addresses = AddressLimits(clock, 6, 100)
    for gap, address in steps:
        clock.advance(gap)
        _, refused = addresses.count(address)
        if refused is not None:
            clock.advance(refused.details["retry_after"])
            assert addresses.count(address)[1] is None


def test_addresses_are_bounded(clock: FakeClock) -> None:
    addresses = AddressLimits(clock, 1, 10)
    for number in range(1000):
        assert addresses.count(str(number))[1] is None
    assert addresses.count("999")[1] is not None
    assert len(addresses._tats) <= 10


@pytest.mark.requirement("limits.stream-cap")
def test_streams_have_places_of_their_own_ten_times_the_concurrency(clock: FakeClock) -> None:
    limits, tier = InProcessLimits(clock, 100), TIERS["free"]
    places = [limits.open_stream("a", tier) for _ in range(20)]
    with pytest.raises(RateLimited) as refused:
        limits.open_stream("a", tier)
    assert refused.value.details == {"policy": "streams", "limit": 20, "retry_after": 1}
    limits.admit("a", tier).release()
    limits.open_stream("b", tier)
    for _ in range(2):
        places[0].release()
    places[0] = limits.open_stream("a", tier)
    with pytest.raises(RateLimited):
        limits.open_stream("a", tier)
    assert limits.peek("a", tier).left().concurrency == 2 and not limits.peek("a", tier).idle


@pytest.mark.requirement("keys.rate-overrides", "limits.refusal")
def test_a_key_beside_its_organisation_is_all_or_nothing_and_the_longer_wait_is_told(clock: FakeClock) -> None:
    limits, own = InProcessLimits(clock, 100), ("key:k", Tier("key", hourly=4, burst=2, concurrency=1))
    lease = limits.admit("org", SMALL, own=own)
    with pytest.raises(RateLimited) as refused:
        limits.admit("org", SMALL, own=own)
    assert refused.value.details == {"policy": "concurrency", "limit": 1, "retry_after": 1}
    lease.release()
    lease.release()
    left = limits.peek("org", SMALL, own).left()
    assert left.own is not None
    assert (left.hourly, left.concurrency, left.own.hourly, left.own.concurrency) == (19, 3, 3, 1)
    limits.admit("org", SMALL, own=own).release()
    for cost, policy, wait_s in ((1, "burst", 30), (3, "hourly", 3660)):
        before = limits.peek("org", SMALL, own).left()
        with pytest.raises(RateLimited) as refused:
            limits.admit("org", SMALL, cost, own)
        assert (refused.value.details["policy"], refused.value.details["retry_after"]) == (policy, pytest.approx(wait_s, abs=1))
        assert limits.peek("org", SMALL, own).left() == before
    clock.advance(30.1)
    limits.admit("org", SMALL, own=own).release()
    for _ in range(2):
        limits.admit("org", SMALL).release()
    with pytest.raises(RateLimited) as refused:
        limits.admit("org", SMALL, 4, own)
    assert refused.value.details["limit"] == 4, "the hour of the key lasts longer than the burst of the organisation"


def test_the_headers_of_a_key_are_of_what_has_less_of_its_hour_left(clock: FakeClock) -> None:
    limits, own = InProcessLimits(clock, 100), ("key:k", Tier("key", hourly=15, burst=100, concurrency=3))
    large = Tier("large", hourly=20, burst=100, concurrency=3)
    for count in range(1, 4):
        limits.admit("org", large, own=own).release()
        headers = dict(pairs(limits.peek("org", large, own).lines()))
        assert (headers[b"x-ratelimit-limit"], headers[b"x-ratelimit-remaining"]) == (b"15", b"%d" % (15 - count))
    limits.admit("org", large, 10).release()
    headers = dict(pairs(limits.peek("org", large, own).lines()))
    assert (headers[b"x-ratelimit-limit"], headers[b"x-ratelimit-remaining"]) == (b"20", b"7")


@pytest.mark.requirement("limits.stream-cap", "limits.refusal")
def test_a_stream_that_is_refused_by_the_hour_holds_no_place_and_one_of_a_key_holds_both(clock: FakeClock) -> None:
    limits, tier = InProcessLimits(clock, 100), Tier("t", hourly=3, burst=100, concurrency=2)
    own = ("key:k", Tier("key", hourly=3, burst=100, concurrency=1))
    place = limits.open_stream("org", tier, 3, own)
    with pytest.raises(RateLimited) as refused:
        limits.open_stream("org", tier, 1)
    assert refused.value.details["policy"] == "hourly"
    assert (limits.meters()["org"].streams, limits.meters()["key:k"].streams) == (1, 1)
    places = [limits.open_stream("org", tier, 0, own) for _ in range(9)]
    with pytest.raises(RateLimited) as refused:
        limits.open_stream("org", tier, 0, own)
    assert refused.value.details == {"policy": "streams", "limit": 10, "retry_after": 1}
    for each in (place, *places):
        each.release()
    assert (limits.meters()["org"].streams, limits.meters()["key:k"].streams) == (0, 0)


@pytest.mark.requirement("limits.alarms")
@given(st.lists(st.tuples(st.sampled_from([0.0, 30.0, 700.0, 3540.0, 3600.0]), st.integers(1, 4)), max_size=60))
@example([(0.0, 4), (0.0, 4), (3540.0, 1)])
# Eight are still used when the alarm of an hour ago may come again, but the call is refused: a limit is reached by what is counted.
@example([(700.0, 3), (0.0, 4), (3600.0, 1), (30.0, 2), (0.0, 3), (30.0, 3), (3600.0, 4)])
@settings(max_examples=100, deadline=None)
def test_an_alarm_goes_off_when_it_is_reached_and_at_most_once_an_hour(steps: list[tuple[float, int]]) -> None:
    clock, told = FakeClock(), list[tuple[float, int]]()
    limits = InProcessLimits(clock, 10, lambda _, percent, tier: told.append((clock.now, percent)))
    tier = Tier("t", hourly=10, burst=1000, concurrency=1)
    for gap, cost in steps:
        clock.advance(gap)
        before = len(told)
        try:
            limits.admit("org", tier, cost).release()
        except RateLimited:
            assert len(told) == before
            continue
        used = 10 - limits.peek("org", tier).left().hourly
        assert all(used * 10 >= percent for _, percent in told[before:])
        for percent in (80, 100):
            lately = [at for at, what in told if what == percent and at > clock.now - 3600]
            assert lately or used * 10 < percent
            assert len([at for at in lately if at >= clock.now - 3540]) <= 1


def test_a_key_and_a_hub_without_an_ear_raise_no_alarm(clock: FakeClock) -> None:
    told: list[str] = []
    limits = InProcessLimits(clock, 10, lambda subject, percent, tier: told.append(f"{subject} {percent} {tier.name}"))
    own = ("key:k", Tier("key", hourly=1, burst=5, concurrency=1))
    limits.admit("org", SMALL, own=own).release()
    InProcessLimits(clock, 10).admit("org", Tier("t", 1, 1, 1)).release()
    assert told == []
    limits.admit("org", Tier("t", 2, 10, 10)).release()
    assert told == ["org 80 t", "org 100 t"]


def test_a_hub_without_redis_never_loads_its_client() -> None:
    code = "import sys, plughub.app; print([name for name in sys.modules if name.partition('.')[0] == 'redis'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
