"""The limits of all processes together, counted in Redis: one call of `limits.lua` an admission.

Redis is never the only holder of anything: each process also counts what it admits itself. While Redis cannot be asked a process keeps
to its part of every limit by those counts, and when it is back it is given what it has missed.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import structlog

from plughub.cluster.limits import (
    ALARMS,
    STATE,
    STREAMS_PER_PLACE,
    Alarm,
    Both,
    InProcessLimits,
    Lease,
    Left,
    Meter,
    Own,
    limited,
    stated,
)
from plughub.cluster.redis_link import LinkLost, RedisLink
from plughub.kit.caller import Tier
from plughub.kit.clock import Clock

# A place that nobody renews is free after a minute (`limits.lua`): a process that was killed holds nothing longer.
RENEW_S = 20.0
RETRY_S = 1.0
# What an answer that counts nothing shows of the counters may be so old.
FRESH_S = 1.0
_RENEWED_AT_ONCE = 1000
_US = 1_000_000
_SCRIPT = Path(__file__).with_name("limits.lua").read_text()
_log = structlog.get_logger("plughub.limits")

Doing = Literal["admit", "stream"]


@lru_cache(4096)
def part(tier: Tier, processes: int) -> Tier:
    """One process's part of a limit; at least one of everything."""
    return Tier(tier.name, max(1, tier.hourly // processes), max(1, tier.burst // processes), max(1, tier.concurrency // processes))


def keys_of(group: str, subject: str) -> list[str]:
    """The counts, the calls and the streams. The braces keep the counters of a key on the same node as its organisation's."""
    return [f"plughub:limits:{{{group}}}:{subject}{kind}" for kind in ("", ":calls", ":streams")]


class RedisMeter:
    """What this process heard last of the counters of one subject."""

    __slots__ = ("_ahead_us", "_burst", "_clock", "_hourly", "_reset", "_running", "_seen_at", "_skew_s", "_static", "keys", "tier")

    def __init__(self, group: str, subject: str, tier: Tier, clock: Clock) -> None:
        self.keys = keys_of(group, subject)
        self._clock = clock
        self._seen_at = float("-inf")
        self._skew_s = 0.0
        self._ahead_us = self._running = 0
        self.retune(tier)
        self._hourly, self._burst = tier.hourly, tier.burst
        self._reset = (int(clock.time()) // 60 + 61) * 60

    def retune(self, tier: Tier) -> None:
        """Take over a changed tier."""
        self.tier = tier
        self._static = stated(tier)

    @property
    def stale(self) -> bool:
        """See `Meter`."""
        return self._clock.monotonic() - self._seen_at > FRESH_S

    def saw(self, now_us: int, state: Sequence[Any]) -> None:
        """What the script told: see there."""
        self._seen_at = self._clock.monotonic()
        self._skew_s = now_us / _US - self._clock.time()
        self._hourly, self._reset, self._burst, self._ahead_us, self._running = (int(number) for number in state[:5])

    def ended(self) -> None:
        """A place was given back; it may have run out before."""
        self._running = max(0, self._running - 1)

    def left(self) -> Left:
        """See `Meter`."""
        return Left(self._hourly, self._reset, self._burst, max(0, self.tier.concurrency - self._running))

    def lines(self) -> bytes:
        """See `Meter`."""
        left, now_s = self.left(), self._clock.time() + self._skew_s
        ahead_us = max(0, self._ahead_us - int((self._clock.monotonic() - self._seen_at) * _US)) if self._ahead_us else 0
        hour = (left.hourly, left.reset, left.hourly, max(0, left.reset - int(now_s)))
        return self._static + STATE % (*hour, left.burst, -(-ahead_us // _US), left.concurrency)


class SharedLease:
    """A place in Redis, and in the counts of this process; given back once."""

    __slots__ = ("_id", "_limits", "_local", "_meters", "_places")

    def __init__(self, limits: "RedisLimits", id_: str, places: list[str], meters: list[RedisMeter], local: Lease) -> None:
        self._limits = limits
        self._id = id_
        self._places = places
        self._meters = meters
        self._local: Lease | None = local

    def release(self) -> None:
        """Give the place back."""
        local, self._local = self._local, None
        if local is not None:
            local.release()
            for meter in self._meters:
                meter.ended()
            self._limits.give_back(self._id, self._places)


class RedisLimits:
    """See `Limits`. `processes` says how many share the limits. `own_clock`: count by this process's clock, not by the server's.

    One task sends what admissions ask, renews the places that are held, and looks for Redis when it is lost.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        max_meters: int,
        *,
        processes: Callable[[], int] = lambda: 1,
        alarm: Alarm | None = None,
        own_clock: bool = False,
    ) -> None:
        self._url = url
        self._clock = clock
        self._max_meters = max_meters
        self._processes = processes
        self._alarm = alarm
        self._own_clock = own_clock
        self._node = os.urandom(6).hex()
        self._numbers = itertools.count()
        self._meters: dict[str, RedisMeter] = {}
        self._local = InProcessLimits(clock, max_meters)
        # Of the subjects counted here: the group that their keys in Redis are named by, and the whole tier.
        self._groups: dict[str, tuple[str, Tier]] = {}
        self._held: dict[str, set[str]] = {}
        self._link: RedisLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._since: str | None = None
        self._returning: str | None = None
        self._told_until: tuple[int, dict[str, int]] | None = None
        self._closing = False
        self.alone = True
        self.losses = 0

    async def start(self) -> None:
        """Connect; without an answer begin alone, and look again every second."""
        self._link = RedisLink(self._url, _SCRIPT)
        try:
            self._come_back(self._link, await self._link.connect())
        except LinkLost as error:
            self._told_alone(error)
        self._begin(self._link)

    def _begin(self, link: RedisLink) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(link))
        self._task.add_done_callback(lambda task: self._over(link, task))

    def _over(self, link: RedisLink, task: "asyncio.Task[None]") -> None:
        """The task has ended. Unless that was the end of all it was a fault of ours: nobody may wait for it, and another one begins."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("limits_failed", exc_info=error)
            self._told_alone(link.tell_lost(error))
            self._begin(link)

    async def aclose(self) -> None:
        """Send what waits, and let go."""
        self._closing = True
        if self._link is not None and self._task is not None:
            self._link.wake.set()
            await asyncio.wait([self._task])  # not cancelled: within a command the connection would be of no use
            self.alone = True
            await self._link.aclose()

    # ---- what admission asks

    def admit(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease | None:
        """See `Limits.admit`."""
        return self._alone("admit", subject, tier, cost, own) if self.alone else None

    async def admit_shared(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease:
        """See `Limits.admit_shared`."""
        return await self._ask("admit", subject, tier, cost, own)

    def open_stream(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease | None:
        """See `Limits.open_stream`."""
        return self._alone("stream", subject, tier, cost, own) if self.alone else None

    async def open_stream_shared(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease:
        """See `Limits.open_stream_shared`."""
        return await self._ask("stream", subject, tier, cost, own)

    def peek(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """See `Limits.peek`."""
        if self.alone:
            return self._local.peek(subject, self._part(tier), self._own_part(own))
        meters = self._known(subject, tier, own)
        return meters[0] if own is None else Both(*meters)

    async def look(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """See `Limits.look`."""
        if not self.alone and self._link is not None:
            meters = self._known(subject, tier, own)
            try:
                answer = await self._link.ask(*self._words("look", meters, 0, ""))
            except LinkLost:
                pass
            else:
                for meter, state in zip(meters, answer[1:], strict=True):
                    meter.saw(int(answer[0]), state)
        return self.peek(subject, tier, own)

    async def _ask(self, doing: Doing, subject: str, tier: Tier, cost: int, own: Own | None) -> Lease:
        if self.alone or self._link is None:
            return self._alone(doing, subject, tier, cost, own)
        meters, id_ = self._known(subject, tier, own), f"{self._node}:{next(self._numbers):x}"
        places = [meter.keys[1 if doing == "admit" else 2] for meter in meters]
        asked = self._link.ask(*self._words(doing, meters, cost, id_))
        try:
            answer = await asyncio.shield(asked)
        except LinkLost:
            return self._alone(doing, subject, tier, cost, own)
        except asyncio.CancelledError:
            # It may be admitted already, and nobody is left to give the place back.
            asked.add_done_callback(lambda done: self._abandon(done, id_, places))
            raise
        for meter, state in zip(meters, answer[1:], strict=True):
            meter.saw(int(answer[0]), state)
        self._refuse(meters, answer[1:])
        self._sound(subject, tier, int(answer[1][7]))
        local = self._local.note(subject, self._part(tier), cost, self._own_part(own), stream=doing == "stream")
        return self._lease(id_, places, meters if doing == "admit" else [], local)

    def _alone(self, doing: Doing, subject: str, tier: Tier, cost: int, own: Own | None) -> Lease:
        """By the counts of this process, within its part of the limits. Raises RateLimited."""
        meters = self._known(subject, tier, own)
        places = [meter.keys[1 if doing == "admit" else 2] for meter in meters]
        ask = self._local.admit if doing == "admit" else self._local.open_stream
        local = ask(subject, self._part(tier), cost, self._own_part(own))
        return self._lease(f"{self._node}:{next(self._numbers):x}", places, [], local)

    def _refuse(self, meters: list[RedisMeter], states: Sequence[Any]) -> None:
        refusals = [(int(state[6]), state[5].decode(), meter.tier) for meter, state in zip(meters, states, strict=True) if state[5]]
        if refusals:
            wait_us, policy, tier = max(refusals, key=lambda refusal: refusal[0])
            limit = {"hourly": tier.hourly, "burst": tier.burst, "concurrency": tier.concurrency}
            raise limited(policy, limit.get(policy, STREAMS_PER_PLACE * tier.concurrency), wait_us / _US)

    def _sound(self, subject: str, tier: Tier, alarms: int) -> None:
        for number, percent in enumerate(ALARMS):
            if self._alarm is not None and alarms & 1 << number:
                self._alarm(subject, percent, tier)

    def _words(self, doing: str, meters: list[RedisMeter], cost: int, id_: str) -> tuple[Any, ...]:
        """The script's keys, then its arguments."""
        numbers = [number for meter in meters for number in (meter.tier.hourly, meter.tier.burst, meter.tier.concurrency)]
        return [key for meter in meters for key in meter.keys], doing, self._now_us(), cost, id_, *numbers

    def _now_us(self) -> int:
        return int(self._clock.time() * _US) if self._own_clock else 0

    # ---- places

    def _lease(self, id_: str, places: list[str], meters: list[RedisMeter], local: Lease) -> SharedLease:
        for place in places:
            self._held.setdefault(place, set()).add(id_)
        return SharedLease(self, id_, places, meters, local)

    def give_back(self, id_: str, places: list[str]) -> None:
        """For `SharedLease.release`."""
        for place in places:
            held = self._held.get(place)
            if held is not None:
                held.discard(id_)
                if not held:
                    del self._held[place]
            if not self.alone and self._link is not None:
                self._link.give_back(place, id_)

    def _abandon(self, done: "asyncio.Future[list[Any]]", id_: str, places: list[str]) -> None:
        if done.exception() is None:
            self.give_back(id_, places)

    def renew(self) -> None:
        """Say that what is held is held. Every RENEW_S; what is not renewed runs out after a minute."""
        if self._link is not None and not self.alone:
            self._renew(self._link)

    def _renew(self, link: RedisLink) -> None:
        for place, ids in self._held.items():
            of_place = sorted(ids)
            for begin in range(0, len(of_place), _RENEWED_AT_ONCE):
                link.call([place], "renew", self._now_us(), 0, "", *of_place[begin : begin + _RENEWED_AT_ONCE])

    # ---- meters

    def _known(self, subject: str, tier: Tier, own: Own | None) -> list[RedisMeter]:
        meter = self._meter(subject, subject, tier)
        return [meter] if own is None else [meter, self._meter(subject, *own)]

    def _meter(self, group: str, subject: str, tier: Tier) -> RedisMeter:
        meter = self._meters.get(subject)
        if meter is None:
            if len(self._meters) >= self._max_meters:  # the counts are in Redis: nothing is lost with them
                self._meters.clear()
                self._groups = {name: held for name, held in self._groups.items() if name in self._local.meters()}
            self._groups[subject] = (group, tier)
            meter = self._meters[subject] = RedisMeter(group, subject, tier, self._clock)
        elif meter.tier is not tier:
            self._groups[subject] = (group, tier)
            meter.retune(tier)
        return meter

    def _part(self, tier: Tier) -> Tier:
        return part(tier, max(1, self._processes()))

    def _own_part(self, own: Own | None) -> Own | None:
        return None if own is None else (own[0], self._part(own[1]))

    # ---- Redis lost and found

    async def _run(self, link: RedisLink) -> None:
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while not self._closing:
            try:
                if self.alone:
                    await _within(link.wake.wait(), RETRY_S)  # nobody asks while it is lost: what wakes is the end
                    if self._closing:
                        return
                    self._come_back(link, await link.connect())
                await _within(link.wake.wait(), renewed_at + RENEW_S - loop.time())
                if loop.time() - renewed_at >= RENEW_S:
                    renewed_at = loop.time()
                    self.renew()
                await link.flush()
                if self._returning is not None:
                    self._since, self._returning, self._told_until = self._returning, None, None
            except LinkLost as error:
                if not self.alone:
                    self._told_alone(error)

    def _told_alone(self, error: LinkLost) -> None:
        """Redis is lost: from here on by the counts of this process. What they hold of the running minute Redis has counted."""
        self.alone = True
        self.losses += 1
        minute = int(self._clock.time()) // 60
        if self._told_until is None:
            counted = {subject: meter.counts().get(minute, 0) for subject, meter in self._local.meters().items()}
            self._told_until = (minute, counted)
        _log.warning("limits_alone", error=str(error), processes=self._processes())

    def _come_back(self, link: RedisLink, since: str) -> None:
        """Redis answers. It is told what it has missed: all of this process's hour when it lost what it held, else the time without it.

        Each process adds what it alone has counted, so the sum is everybody's. Nothing here awaits: what is admitted next goes behind
        this, on the same connection.
        """
        from_minute, before = self._told_until or (0, {})
        if since != self._since:
            from_minute, before = 0, {}
        for subject, meter in self._local.meters().items():
            counts = {minute: count for minute, count in meter.counts().items() if minute >= from_minute}
            if from_minute in counts:
                counts[from_minute] -= before.get(subject, 0)
            used = meter.used_of_burst()
            if used or any(counts.values()):
                group, tier = self._groups[subject]
                pairs = [number for pair in counts.items() for number in pair]
                numbers = (tier.hourly, tier.burst, tier.concurrency)
                link.call(keys_of(group, subject), "merge", self._now_us(), f"{used:.3f}", "", *numbers, *pairs)
        self._renew(link)
        self._returning = since
        self.alone = False
        if self.losses:
            _log.info("limits_shared", since=self.losses)


async def _within(waiting: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await waiting
    except TimeoutError:
        pass
