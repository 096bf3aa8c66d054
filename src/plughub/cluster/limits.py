"""How much an organisation may do: one atomic admission of concurrency, burst and rolling hour (CONTRACT section 8).

Here is what both forms have in common, and the form that counts in this process; `redis_limits` counts in Redis, for all processes.

Concurrency is a lease. The burst is GCRA with capacity B, refilled at B per 60 s. The hour is 60 one-minute cells and the
expiring one counted in full: never over the limit in any rolling hour, at most one cell under it.
A refusal spends nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Protocol

from plughub.kit.caller import Tier
from plughub.kit.clock import Clock
from plughub.kit.errors import RateLimited

_CELLS = 61
_MINUTE_S = 60
_NS = 1_000_000_000
_BURST_WINDOW_NS = 60 * _NS
# Epoch seconds in a float are no finer; whoever waits as long as told must be let in.
_GRAIN_S = 1e-6
# A stream that rests costs a connection and little else (CONTRACT section 8).
STREAMS_PER_PLACE = 10
# Of the hour, in percent: what is told when a call that is counted reaches it, each at most once an hour; a refusal tells nothing.
ALARMS = (80, 100)
_ALARM_MINUTES = 60
_NEVER = 1 << 62
# What is left, when the hour's next grows, and each limit's rest and seconds.
STATE = b'x-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\nratelimit: "hour";r=%d;t=%d, "burst";r=%d;t=%d, "concurrency";r=%d\r\n'
Header = tuple[bytes, bytes]
# A key's own limit beside its organisation's: the name of its counters, and what it may use.
Own = tuple[str, Tier]
# Whose counters, how much of the hour is used (percent, of ALARMS), and the tier.
Alarm = Callable[[str, int, Tier], None]


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of each limit; `reset` is the epoch second when `hourly` next grows. `own`: of the key's own limit."""

    hourly: int
    reset: int
    burst: int
    concurrency: int
    own: "Left | None" = None


class Lease(Protocol):
    """A place that a request holds until its last byte, then gives back."""

    def release(self) -> None: ...


class Meter(Protocol):
    """The counters of one subject. `stale`: what is known of them here is old, and `Limits.look` knows better."""

    @property
    def stale(self) -> bool: ...

    def lines(self) -> bytes: ...

    def left(self) -> Left: ...


class Limits(Protocol):
    """The two forms, in process and shared, answer the same way. `own` is judged with the rest, in one step: all or nothing.

    What can be told without waiting is told at once, so that the form in this process costs no await; where `admit` and
    `open_stream` say None, `admit_shared` and `open_stream_shared` have to be asked.
    """

    @property
    def alone(self) -> bool:
        """Whether processes that should share their counts do not: each keeps to its part of the limits."""

    def admit(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease | None:
        """Count `cost` calls and take one place. Raises RateLimited."""

    async def admit_shared(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease:
        """The same, wherever the counts are."""

    def open_stream(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease | None:
        """Count `cost` calls and take one of the places for streams that rest between their events. Raises RateLimited."""

    async def open_stream_shared(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease:
        """The same, wherever the counts are."""

    def peek(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """The counters as this process knows them, for an answer that counts nothing (or was refused)."""

    async def look(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """The counters as they are."""

    async def start(self) -> None:
        """Begin to share; a count that cannot be shared is no reason not to start."""

    async def aclose(self) -> None:
        """Give back what is held, let go of everything."""


@dataclass(slots=True)
class _Refusal:
    policy: str
    limit: int
    retry_after_s: float


class InProcessMeter:
    """The counters of one organisation in one environment; the form of `Meter` that lives in this process."""

    __slots__ = (
        "_alarm_at",
        "_cells",
        "_clock",
        "_interval_ns",
        "_minute",
        "_reset",
        "_static",
        "_tell",
        "_time",
        "_told",
        "_tolerance_ns",
        "_total",
        "_turns_at",
        "in_flight",
        "streams",
        "tat_ns",
        "tier",
    )

    stale = False

    def __init__(self, tier: Tier, clock: Clock, tell: Callable[[int, Tier], None] | None = None) -> None:
        self._clock = clock
        self._time = clock.time
        self._tell = tell
        self._told = [-_ALARM_MINUTES] * len(ALARMS)
        self._cells = [0] * _CELLS
        self._minute = int(clock.time()) // _MINUTE_S
        self._turns_at = (self._minute + 1) * _MINUTE_S
        self._total = 0
        self._reset = 0
        self.in_flight = 0
        self.streams = 0
        self.tat_ns = 0
        self.retune(tier)

    def retune(self, tier: Tier) -> None:
        """Take over a changed tier; what was counted stays counted."""
        self.tier = tier
        self._interval_ns = _BURST_WINDOW_NS // tier.burst
        self._tolerance_ns = (tier.burst - 1) * self._interval_ns
        self._static = stated(tier)
        self._arm()

    def admit(self, cost: int) -> _Refusal | None:
        """Take one place and count `cost`, or say what stands against it."""
        tier, now_s = self.tier, self._time()
        now_ns = int(now_s * _NS)
        if now_s >= self._turns_at:
            self._turn(int(now_s) // _MINUTE_S)
        tat = self.tat_ns if self.tat_ns > now_ns else now_ns
        last = tat + (cost - 1) * self._interval_ns
        if self.in_flight >= tier.concurrency or last - now_ns > self._tolerance_ns or self._total + cost > tier.hourly:
            return self._refusal(cost, now_s, (last - self._tolerance_ns - now_ns) / _NS + _GRAIN_S)
        self.tat_ns = last + self._interval_ns
        self._cells[self._minute % _CELLS] += cost
        self._total += cost
        self.in_flight += 1
        if self._total >= self._alarm_at:
            self._sound()
        return None

    def judge(self, cost: int) -> _Refusal | None:
        """What stands against `cost` more and a place; nothing is counted."""
        now_s = self._clock.time()
        now_ns = int(now_s * _NS)
        self._turn(int(now_s) // _MINUTE_S)
        last = max(self.tat_ns, now_ns) + (cost - 1) * self._interval_ns
        if self.in_flight >= self.tier.concurrency or last - now_ns > self._tolerance_ns or self._total + cost > self.tier.hourly:
            return self._refusal(cost, now_s, (last - self._tolerance_ns - now_ns) / _NS + _GRAIN_S)
        return None

    def take(self, cost: int) -> None:
        """Count `cost` and a place, whatever stands against it."""
        now_s = self._clock.time()
        self._turn(int(now_s) // _MINUTE_S)
        self.tat_ns = max(self.tat_ns, int(now_s * _NS)) + cost * self._interval_ns
        self._cells[self._minute % _CELLS] += cost
        self._total += cost
        self.in_flight += 1
        if self._total >= self._alarm_at:
            self._sound()

    def _refusal(self, cost: int, now_s: float, burst_wait_s: float) -> _Refusal:
        """Of the limits that stand against it the one that does so longest: only its wait is an honest one."""
        tier, found = self.tier, _Refusal("burst", self.tier.burst, burst_wait_s)
        if self._total + cost > tier.hourly and (wait_s := self._free_at(cost) - now_s) > found.retry_after_s:
            found = _Refusal("hourly", tier.hourly, wait_s)
        if self.in_flight >= tier.concurrency and found.retry_after_s <= 1:
            found = _Refusal("concurrency", tier.concurrency, 1)
        return found

    def release(self) -> None:
        """Give the place back."""
        self.in_flight -= 1

    def left(self) -> Left:
        """What is left now."""
        now_s = self._clock.time()
        self._turn(int(now_s) // _MINUTE_S)
        ahead_ns = max(0, self.tat_ns - int(now_s * _NS))
        burst = max(0, self._tolerance_ns + self._interval_ns - ahead_ns) // self._interval_ns
        hourly, concurrency = max(0, self.tier.hourly - self._total), max(0, self.tier.concurrency - self.in_flight)
        return Left(hourly, self._next_free(), burst, concurrency)

    def lines(self) -> bytes:
        """The state after this request as lines of headers, for every answer to an authenticated caller."""
        tier, now_s = self.tier, self._time()
        if now_s >= self._turns_at:
            self._turn(int(now_s) // _MINUTE_S)
        # Never below zero: a tier that was lowered may have less room than is taken.
        left, reset, ahead_ns = tier.hourly - self._total, self._reset or self._next_free(), self.tat_ns - int(now_s * _NS)
        burst, places = self._tolerance_ns + self._interval_ns - ahead_ns, tier.concurrency - self.in_flight
        if left < 0 or ahead_ns < 0 or burst < 0 or places < 0:
            left, ahead_ns, places = max(0, left), max(0, ahead_ns), max(0, places)
            burst = max(0, self._tolerance_ns + self._interval_ns - ahead_ns)
        return self._static + STATE % (left, reset, left, reset - int(now_s), burst // self._interval_ns, -(-ahead_ns // _NS), places)

    @property
    def idle(self) -> bool:
        """Nothing is held and nothing would be forgotten by dropping this meter."""
        self._turn(int(self._clock.time()) // _MINUTE_S)
        return self.in_flight == 0 and self.streams == 0 and self._total == 0

    def _turn(self, minute: int) -> None:
        steps = minute - self._minute
        if steps <= 0:  # the same minute, or a clock that went back: stay
            return
        for step in range(1, min(steps, _CELLS) + 1):
            cell = (self._minute + step) % _CELLS
            self._total -= self._cells[cell]
            self._cells[cell] = 0
        self._minute = minute
        self._turns_at = (minute + 1) * _MINUTE_S
        self._reset = 0
        self._arm()

    def _arm(self) -> None:
        """When the next alarm goes off: looked at once a minute, so that a call compares one number."""
        self._alarm_at = _NEVER
        if self._tell is not None:
            waiting = [_reached_at(self.tier, percent) for percent, told in zip(ALARMS, self._told, strict=True) if self._may_tell(told)]
            self._alarm_at = min(waiting, default=_NEVER)

    def _may_tell(self, told: int) -> bool:
        return self._minute - told >= _ALARM_MINUTES

    def _sound(self) -> None:
        for number, percent in enumerate(ALARMS):
            if self._tell is not None and self._may_tell(self._told[number]) and self._total >= _reached_at(self.tier, percent):
                self._told[number] = self._minute
                self._tell(percent, self.tier)
        self._arm()

    def counts(self) -> dict[int, int]:
        """What the hour holds: calls by the number of the minute."""
        self._turn(int(self._clock.time()) // _MINUTE_S)
        minutes = range(self._minute - _CELLS + 1, self._minute + 1)
        return {minute: self._cells[minute % _CELLS] for minute in minutes if self._cells[minute % _CELLS]}

    def used_of_burst(self) -> float:
        """How many calls of the burst have not come back yet."""
        return max(0, self.tat_ns - int(self._clock.time() * _NS)) / self._interval_ns

    def _next_free(self) -> int:
        """When the oldest count falls out; found once a minute, for only a new minute can change it."""
        if not self._total:
            return (self._minute + _CELLS) * _MINUTE_S
        if not self._reset:
            self._reset = self._free_at(1)
        return self._reset

    def _free_at(self, cost: int) -> int:
        """The epoch second at which `cost` more fit into the hour (the oldest cells fall out first)."""
        wanted = max(1, self._total + cost - self.tier.hourly)
        for age in range(_CELLS - 1, -1, -1):
            minute = self._minute - age
            wanted -= self._cells[minute % _CELLS]
            if wanted <= 0:
                return (minute + _CELLS) * _MINUTE_S
        return (self._minute + _CELLS) * _MINUTE_S


class StreamPlace:
    """The place of one stream; given back once."""

    __slots__ = ("_meter",)

    def __init__(self, meter: InProcessMeter) -> None:
        self._meter: InProcessMeter | None = meter
        meter.streams += 1

    def release(self) -> None:
        """Give the place back."""
        if self._meter is not None:
            self._meter.streams -= 1
            self._meter = None


class Both:
    """An organisation's counters and those of one of its keys; the headers are of the one that has less of its hour left."""

    __slots__ = ("_own", "_whole")

    def __init__(self, whole: Meter, own: Meter) -> None:
        self._whole = whole
        self._own = own

    @property
    def stale(self) -> bool:
        """See `Meter`."""
        return self._whole.stale or self._own.stale

    def lines(self) -> bytes:
        """See `Meter`."""
        nearer = self._own if self._own.left().hourly <= self._whole.left().hourly else self._whole
        return nearer.lines()

    def left(self) -> Left:
        """See `Meter`."""
        return replace(self._whole.left(), own=self._own.left())


class Leases:
    """Several places that are given back together, once."""

    __slots__ = ("_held",)

    def __init__(self, *held: Lease) -> None:
        self._held: tuple[Lease, ...] = held

    def release(self) -> None:
        """Give them back."""
        held, self._held = self._held, ()
        for lease in held:
            lease.release()


class InProcessLimits:
    """Meters in memory, bounded: idle ones go first, and a meter that holds a count is never dropped. `alarm` hears of organisations."""

    alone = False

    def __init__(self, clock: Clock, max_meters: int, alarm: Alarm | None = None) -> None:
        self._clock = clock
        self._max_meters = max_meters
        self._meters: dict[str, InProcessMeter] = {}
        self._alarm = alarm

    def admit(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease:
        """See `Limits.admit`."""
        meter = self._meters.get(subject)
        if meter is None or meter.tier is not tier:
            meter = self._meter(subject, tier)
        if own is not None:
            of_key = self._judged(meter, cost, own)
            meter.take(cost)
            of_key.take(cost)
            return Leases(meter, of_key)
        refusal = meter.admit(cost)
        if refusal is None:
            return meter
        raise limited(refusal.policy, refusal.limit, refusal.retry_after_s)

    async def admit_shared(self, subject: str, tier: Tier, cost: int = 1, own: Own | None = None) -> Lease:
        """See `Limits.admit_shared`."""
        return self.admit(subject, tier, cost, own)

    def peek(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """See `Limits.peek`."""
        meter = self._meters.get(subject)
        if meter is None or meter.tier is not tier:
            meter = self._meter(subject, tier)
        return meter if own is None else Both(meter, self._meter(*own, of_key=True))

    async def look(self, subject: str, tier: Tier, own: Own | None = None) -> Meter:
        """See `Limits.look`."""
        return self.peek(subject, tier, own)

    def open_stream(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease:
        """See `Limits.open_stream`."""
        meters = [self._meter(subject, tier)] if own is None else [self._meter(subject, tier), self._meter(*own, of_key=True)]
        for meter in meters:
            if meter.streams >= STREAMS_PER_PLACE * meter.tier.concurrency:
                raise limited("streams", STREAMS_PER_PLACE * meter.tier.concurrency, 1)
        self.admit(subject, tier, cost, own).release()
        return Leases(*map(StreamPlace, meters))

    async def open_stream_shared(self, subject: str, tier: Tier, cost: int = 0, own: Own | None = None) -> Lease:
        """See `Limits.open_stream_shared`."""
        return self.open_stream(subject, tier, cost, own)

    async def start(self) -> None:
        """Nothing to share."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def note(self, subject: str, tier: Tier, cost: int, own: Own | None, *, stream: bool) -> Lease:
        """Count what was admitted elsewhere."""
        meters = [self._meter(subject, tier)] if own is None else [self._meter(subject, tier), self._meter(*own, of_key=True)]
        for meter in meters:
            meter.take(cost)
        if not stream:
            return Leases(*meters)
        for meter in meters:
            meter.release()
        return Leases(*map(StreamPlace, meters))

    def meters(self) -> dict[str, InProcessMeter]:
        """Every meter there is, by its subject."""
        return self._meters

    def _judged(self, meter: InProcessMeter, cost: int, own: Own) -> InProcessMeter:
        """The meter of the key, when nothing stands against the call there or in `meter`. Raises RateLimited with the longer wait."""
        of_key = self._meter(*own, of_key=True)
        refusals = [refusal for each in (meter, of_key) if (refusal := each.judge(cost)) is not None]
        if refusals:
            longest = max(refusals, key=lambda refusal: refusal.retry_after_s)
            raise limited(longest.policy, longest.limit, longest.retry_after_s)
        return of_key

    def _meter(self, subject: str, tier: Tier, *, of_key: bool = False) -> InProcessMeter:
        """Made on first use."""
        meter = self._meters.get(subject)
        if meter is None:
            if len(self._meters) >= self._max_meters:
                self._meters = {name: held for name, held in self._meters.items() if not held.idle}
            tell = None if of_key or self._alarm is None else partial(self._alarm, subject)
            meter = self._meters[subject] = InProcessMeter(tier, self._clock, tell)
        elif meter.tier is not tier:
            meter.retune(tier)
        return meter


class AddressLimits:
    """So many requests a minute from one address without a good key, by GCRA; bounded, the longest quiet are forgotten first."""

    def __init__(self, clock: Clock, per_minute: int, max_addresses: int) -> None:
        self._clock = clock
        self._limit = per_minute
        self._interval_s = _MINUTE_S / per_minute
        self._tolerance_s = _MINUTE_S - self._interval_s
        self._max_addresses = max_addresses
        self._tats: dict[str, float] = {}

    def count(self, address: str) -> tuple[list[Header], RateLimited | None]:
        """Count one request: the limit headers, and the refusal when it is one too many."""
        now_s = self._clock.time()
        tat = max(self._tats.pop(address, 0.0), now_s)
        refused = tat - now_s > self._tolerance_s
        after = tat if refused else tat + self._interval_s
        if len(self._tats) >= self._max_addresses:
            del self._tats[next(iter(self._tats))]
        self._tats[address] = after
        left = int((self._tolerance_s + self._interval_s - (after - now_s)) / self._interval_s + 1e-6)
        headers = [
            (b"x-ratelimit-limit", b"%d" % self._limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, left)),
            (b"x-ratelimit-reset", b"%d" % ceil(after - self._tolerance_s if left <= 0 else now_s + self._interval_s)),
            (b"ratelimit-policy", b'"address";q=%d;w=60' % self._limit),
            (b"ratelimit", b'"address";r=%d;t=%d' % (max(0, left), ceil(after - now_s))),
        ]
        return headers, limited("address", self._limit, tat - now_s - self._tolerance_s + _GRAIN_S) if refused else None


def limited(policy: str, limit: int, retry_after_s: float) -> RateLimited:
    """The refusal: which limit, and after how many whole seconds it lets the caller in."""
    wait_s = max(1, ceil(retry_after_s))
    return RateLimited(policy=policy, limit=limit, retry_after=wait_s, headers={"retry-after": str(wait_s)})


def stated(tier: Tier) -> bytes:
    """The lines of headers that say what the limits are."""
    policy = f'"hour";q={tier.hourly};w=3600, "burst";q={tier.burst};w=60, "concurrency";q={tier.concurrency};qu="concurrent-requests"'
    return b"x-ratelimit-limit: %d\r\nratelimit-policy: %b\r\n" % (tier.hourly, policy.encode())


def pairs(lines: bytes) -> list[Header]:
    """Lines of headers, each with its end, as pairs of name and value."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]


def _reached_at(tier: Tier, percent: int) -> int:
    return -(-tier.hourly * percent // 100)
