"""The limits counted in a real Redis: by the same oracle, by several processes, and while Redis comes and goes."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from hypothesis import settings

from plughub.cluster.limits import Lease, pairs
from plughub.cluster.redis_limits import RedisLimits
from plughub.kit.caller import TIERS, Tier
from plughub.kit.errors import RateLimited
from plughub.kit.ids import new_id
from tests.cluster.oracle import SMALL, AgainstTheLog, admit
from tests.conftest import START_AT, FakeClock
from tests.fakes.redis_server import RedisServer

URL: dict[str, str] = {}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def redis_of_the_module(redis_server: RedisServer) -> None:
    URL["redis"] = redis_server.url


class InRedis(AgainstTheLog):
    made = staticmethod(lambda clock: RedisLimits(URL["redis"], clock, 100, own_clock=True))
    limits: RedisLimits

    def renewed(self) -> None:
        self.limits.renew()


TestAgainstTheLog: Any = pytest.mark.requirement("limits.hourly", "limits.burst", "limits.concurrency", "limits.refusal")(InRedis.TestCase)
TestAgainstTheLog.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@asynccontextmanager
async def sharing(clock: FakeClock, url: str = "", **given: Any) -> AsyncIterator[RedisLimits]:
    """One process's limits; by the test's clock."""
    limits = RedisLimits(url or URL["redis"], clock, 1000, **{"own_clock": True, **given})
    await limits.start()
    try:
        yield limits
    finally:
        await limits.aclose()


async def admitted(limits: RedisLimits, subject: str, tier: Tier, times: int, own: tuple[str, Tier] | None = None) -> list[Lease]:
    """The places of those that got in."""
    found = []
    for _ in range(times):
        try:
            found.append(await admit(limits, subject, tier, own=own))
        except RateLimited:
            pass
    return found


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def remaining(limits: RedisLimits, subject: str, tier: Tier) -> int:
    return (await limits.look(subject, tier)).left().hourly


@contextmanager
def hammers(subject: str, tier: Tier, clients: int, clock: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that are ready."""
    numbers = [str(number) for number in (tier.hourly, tier.burst, tier.concurrency, clients)]
    command = [sys.executable, "-m", "tests.cluster.hammer", URL["redis"], subject, *numbers, clock]
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            found.append(process)
        for process in found:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield found


def counted(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Let them loose together; how many each let in."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(process.stdout.readline()) for process in processes if process.stdout is not None]


@pytest.mark.requirement("limits.across-replicas", "limits.exact-under-load")
@pytest.mark.parametrize(
    ("tier", "clock", "wanted"),
    [
        (Tier("t", 1_000_000, 700, 10_000), str(START_AT), 700),
        (Tier("t", 700, 2000, 10_000), "server", 700),
        (Tier("t", 1_000_000, 2000, 700), "server", 700),
    ],
    ids=["burst", "hourly", "concurrency"],
)
def test_two_processes_of_64_clients_let_in_exactly_what_the_tier_allows(tier: Tier, clock: str, wanted: int) -> None:
    with hammers(new_id(), tier, 64, clock) as processes:
        counts = counted(processes)
    assert sum(counts) == wanted
    assert min(counts) > 0, "both had a part in it"


@pytest.mark.anyio
@pytest.mark.requirement("limits.across-replicas", "limits.concurrency")
async def test_places_of_a_killed_process_are_free_within_a_minute_and_those_of_a_live_one_are_not(clock: FakeClock) -> None:
    subject, tier = new_id(), Tier("t", 1_000_000, 1_000_000, 20)
    with hammers(subject, tier, 4, str(START_AT)) as processes:
        assert sum(counted(processes[:1])) == 20
        processes[0].send_signal(signal.SIGKILL)
        async with sharing(clock) as limits:
            clock.now = START_AT + 59.9
            assert await admitted(limits, subject, tier, 1) == []
            clock.now = START_AT + 60.1
            own = await admitted(limits, subject, tier, 25)
            assert len(own) == 20
            for _ in range(5):
                clock.advance(40)
                limits.renew()
            assert await admitted(limits, subject, tier, 1) == []
            for lease in own:
                lease.release()
                lease.release()  # given back once, however often it is said
            assert (await limits.look(subject, tier)).left().concurrency == 20
            assert len(await admitted(limits, subject, tier, 25)) == 20


@pytest.mark.anyio
@pytest.mark.requirement("limits.hourly", "limits.across-replicas")
async def test_the_hour_attacked_at_its_edge_by_two_processes_stays_an_hour(clock: FakeClock) -> None:
    subject, tier = new_id(), Tier("t", 100, 1000, 1000)
    async with sharing(clock) as one, sharing(clock) as other:

        async def attack(times: int) -> int:
            found = await admitted(one, subject, tier, times) + await admitted(other, subject, tier, times)
            for lease in found:
                lease.release()
            return len(found)

        clock.now = START_AT + 59.9
        assert await attack(80) == 100
        for _ in range(60):
            clock.advance(59.98)
            assert await attack(2) == 0
        clock.now = START_AT + 61 * 60
        assert await attack(80) == 100


@pytest.mark.anyio
@pytest.mark.requirement("limits.headers", "limits.across-replicas")
async def test_the_headers_count_what_every_process_admits(clock: FakeClock) -> None:
    clock.now = START_AT + 10.0
    subject = new_id()
    async with sharing(clock) as one, sharing(clock) as other:
        for number in range(1, 5):
            limits = one if number % 2 else other
            lease = await admit(limits, subject, SMALL)
            headers = {name.decode(): value.decode() for name, value in pairs(limits.peek(subject, SMALL).lines())}
            assert headers["x-ratelimit-limit"] == "20"
            assert headers["x-ratelimit-remaining"] == str(20 - number)
            assert headers["x-ratelimit-reset"] == str(int(START_AT) + 61 * 60)
            assert headers["ratelimit-policy"] == '"hour";q=20;w=3600, "burst";q=5;w=60, "concurrency";q=3;qu="concurrent-requests"'
            assert headers["ratelimit"] == f'"hour";r={20 - number};t=3650, "burst";r={5 - number};t={12 * number}, "concurrency";r=2'
            lease.release()
        assert not one.peek(subject, SMALL).stale
        clock.advance(1.1)
        assert one.peek(subject, SMALL).stale
        clock.advance(100_000)
        headers = {name.decode(): value.decode() for name, value in pairs((await other.look(subject, SMALL)).lines())}
        assert headers["x-ratelimit-remaining"] == "20"
        assert all(int(number) >= 0 for number in re.findall(r"[rt]=(-?\d+)", headers["ratelimit"]))


@pytest.mark.anyio
@pytest.mark.requirement("limits.across-replicas")
async def test_a_clock_that_is_wrong_in_one_process_changes_nothing(clock: FakeClock) -> None:
    subject, wrong = new_id(), FakeClock()
    wrong.now -= 86_400
    async with sharing(clock, own_clock=False) as one, sharing(wrong, own_clock=False) as other:
        for limits in (one, other):
            assert len(await admitted(limits, subject, TIERS["pro"], 5)) == 5
        assert await remaining(one, subject, TIERS["pro"]) == await remaining(other, subject, TIERS["pro"]) == 990
        shown = [dict(pairs(limits.peek(subject, TIERS["pro"]).lines()))[b"ratelimit"].decode() for limits in (one, other)]
        seconds = [[int(number) for number in re.findall(r"t=(\d+)", text)] for text in shown]
        assert all(abs(a - b) <= 1 for a, b in zip(*seconds, strict=True))
        assert 3540 <= seconds[0][0] <= 3660


@pytest.mark.anyio
@pytest.mark.requirement("limits.stream-cap", "limits.across-replicas")
async def test_streams_have_places_of_their_own_over_all_processes(clock: FakeClock) -> None:
    subject, tier = new_id(), TIERS["free"]
    async with sharing(clock) as one, sharing(clock) as other:
        places = [await limits.open_stream_shared(subject, tier) for limits in (one, other) for _ in range(10)]
        with pytest.raises(RateLimited) as refused:
            await one.open_stream_shared(subject, tier)
        assert refused.value.details == {"policy": "streams", "limit": 20, "retry_after": 1}
        assert (await one.look(subject, tier)).left().concurrency == 2
        places.pop().release()
        await other.look(subject, tier)
        places.append(await one.open_stream_shared(subject, tier, 1))
        assert await remaining(other, subject, tier) == 99


@pytest.mark.anyio
@pytest.mark.requirement("keys.rate-overrides", "limits.refusal", "limits.across-replicas")
async def test_a_key_beside_its_organisation_is_all_or_nothing_in_redis_too(clock: FakeClock) -> None:
    subject, own = new_id(), ("key:k", Tier("key", hourly=4, burst=2, concurrency=1))
    async with sharing(clock) as one, sharing(clock) as other:
        lease = await admit(one, subject, SMALL, own=own)
        with pytest.raises(RateLimited) as refused:
            await admit(other, subject, SMALL, own=own)
        assert refused.value.details == {"policy": "concurrency", "limit": 1, "retry_after": 1}
        lease.release()
        await remaining(one, subject, SMALL)
        (await admit(other, subject, SMALL, own=own)).release()
        for cost, policy, wait_s in ((1, "burst", 30), (3, "hourly", 3660)):
            before = (await other.look(subject, SMALL, own)).left()
            assert before.own is not None
            assert (before.hourly, before.own.hourly, before.own.burst) == (18, 2, 0)
            with pytest.raises(RateLimited) as refused:
                await admit(other, subject, SMALL, cost, own)
            assert (refused.value.details["policy"], refused.value.details["retry_after"]) == (policy, pytest.approx(wait_s, abs=1))
            assert (await other.look(subject, SMALL, own)).left() == before


@pytest.mark.anyio
@pytest.mark.requirement("limits.alarms", "limits.across-replicas")
async def test_one_process_alone_is_told_that_much_of_the_hour_is_used_once_an_hour(clock: FakeClock) -> None:
    told: list[tuple[str, int]] = []
    subject, tier = new_id(), Tier("t", hourly=10, burst=1000, concurrency=100)
    given: dict[str, Any] = {"alarm": lambda name, percent, _: told.append((name, percent))}
    async with sharing(clock, **given) as one, sharing(clock, **given) as other:
        for hours in range(2):
            for limits in (one, other) * 7:
                await admitted(limits, subject, tier, 1)
            assert told == [(subject, 80), (subject, 100)] * (hours + 1)
            clock.advance(3700)


@pytest.mark.anyio
@pytest.mark.requirement("limits.concurrency")
async def test_a_request_that_is_cancelled_while_it_asks_holds_no_place(clock: FakeClock) -> None:
    subject, tier = new_id(), Tier("t", 1000, 1000, 5)
    async with sharing(clock) as limits:
        for _ in range(20):
            asking = asyncio.ensure_future(limits.admit_shared(subject, tier))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        await remaining(limits, subject, tier)
        assert (await limits.look(subject, tier)).left().concurrency == 5


@pytest.mark.anyio
@pytest.mark.requirement("limits.redis-lost")
async def test_redis_killed_and_back_leaves_each_process_its_part_and_forgets_nothing(clock: FakeClock, own_redis: RedisServer) -> None:
    subject, tier = new_id(), Tier("t", 100, 1000, 20)
    given: dict[str, Any] = {"processes": lambda: 2}
    async with sharing(clock, own_redis.url, **given) as one, sharing(clock, own_redis.url, **given) as other:
        assert len(await admitted(one, subject, tier, 9)) == 9
        assert len(await admitted(other, subject, tier, 1)) == 1
        own_redis.kill()
        with structlog.testing.capture_logs() as told:
            # Half of everything, and what a process has admitted and holds already counts: never open, never an error.
            held = [await admitted(limits, subject, tier, 30) for limits in (one, other)]
            assert [len(found) for found in held] == [1, 9]
            assert one.alone and other.alone
            for lease in held[1]:
                lease.release()
            with pytest.raises(RateLimited) as refused:
                for _ in range(100):
                    (await admit(other, subject, tier)).release()
            assert (refused.value.details["policy"], refused.value.details["limit"]) == ("hourly", 50)
        lines = [line for line in told if line["log_level"] == "warning"]
        assert [line["event"] for line in lines] == ["limits_alone"] * 2, "one line each"
        assert "127.0.0.1" not in str(lines) or "@" not in str(lines)
        own_redis.start()
        await until(lambda: not one.alone and not other.alone)
        # 9 + 1 of one, 50 of the other, though Redis came back empty; and the places that are held are held again.
        assert await remaining(one, subject, tier) == await remaining(other, subject, tier) == 100 - 10 - 50
        assert (await other.look(subject, tier)).left().concurrency == 20 - 10 - 1
        assert (one.losses, other.losses) == (1, 1)


@pytest.mark.anyio
@pytest.mark.requirement("limits.redis-lost")
async def test_what_was_counted_while_redis_was_silent_is_added_once(clock: FakeClock, own_redis: RedisServer) -> None:
    subject, tier = new_id(), Tier("t", 100, 1000, 100)
    async with sharing(clock, own_redis.url) as limits:
        await admitted(limits, subject, tier, 10)
        own_redis.hold()
        await admitted(limits, subject, tier, 5)  # the first of them waits for Redis in vain
        assert limits.alone
        clock.advance(120)
        await admitted(limits, subject, tier, 7)
        own_redis.go_on()
        await until(lambda: not limits.alone)
        # The one that waited may have been counted there as well: never less than what was admitted.
        assert await remaining(limits, subject, tier) in (100 - 22, 100 - 23)
        for lease in await admitted(limits, subject, tier, 3):
            lease.release()
        assert await remaining(limits, subject, tier) in (100 - 25, 100 - 26)


@pytest.mark.anyio
@pytest.mark.requirement("limits.redis-lost")
async def test_a_hub_that_starts_without_redis_counts_alone_until_it_comes(clock: FakeClock, own_redis: RedisServer) -> None:
    own_redis.kill()
    subject = new_id()
    async with sharing(clock, own_redis.url) as limits:
        assert limits.alone
        assert len(await admitted(limits, subject, SMALL, 10)) == 3
        own_redis.start()
        await until(lambda: not limits.alone)
        assert await remaining(limits, subject, SMALL) == 17
        assert len(await admitted(limits, subject, SMALL, 10)) == 0, "the places are held in Redis too"


@pytest.mark.anyio
@pytest.mark.requirement("limits.redis-lost")
async def test_an_emptied_cache_of_scripts_is_filled_again(clock: FakeClock) -> None:
    subject = new_id()
    async with sharing(clock) as limits:
        assert len(await admitted(limits, subject, SMALL, 1)) == 1
        assert limits._link is not None
        await limits._link._client.script_flush()
        assert len(await admitted(limits, subject, SMALL, 1)) == 1
        assert not limits.alone


@pytest.mark.anyio
@pytest.mark.requirement("limits.redis-lost")
async def test_a_fault_of_our_own_leaves_nobody_waiting(clock: FakeClock) -> None:
    subject, tier = new_id(), Tier("t", 100, 1000, 100)
    async with sharing(clock) as limits:
        assert limits._link is not None
        await admitted(limits, subject, tier, 3)
        limits._link._waiting.append(((object(), "not a command"), None))
        with anyio.fail_after(5), structlog.testing.capture_logs() as told:
            assert len(await asyncio.gather(*[admit(limits, subject, tier) for _ in range(5)])) == 5
            assert limits.alone
            assert "limits_alone" in [line["event"] for line in told]
        await until(lambda: not limits.alone)
        assert await remaining(limits, subject, tier) == 100 - 8


@pytest.mark.anyio
async def test_nothing_is_kept_longer_than_it_counts(clock: FakeClock) -> None:
    subject = new_id()
    async with sharing(clock) as limits:
        lease = await admit(limits, subject, SMALL, own=("key:k", SMALL))
        await limits.open_stream_shared(subject, SMALL)
        assert limits._link is not None
        client = limits._link._client
        times = {key.decode().rpartition("}:")[2]: await client.ttl(key) for key in await client.keys(f"*{{{subject}}}*")}
        assert set(times) == {subject, f"{subject}:calls", f"{subject}:streams", "key:k", "key:k:calls"}
        assert all(0 < seconds <= 3720 for seconds in times.values())
        lease.release()
        assert limits._held.keys() == {f"plughub:limits:{{{subject}}}:{subject}:streams"}
