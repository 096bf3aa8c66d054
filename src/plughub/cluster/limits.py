"""How much an organisation may do: one atomic admission of concurrency, burst and rolling hour (CONTRACT section 8).

Concurrency is a lease. The burst is GCRA with capacity B, refilled at B per 60 s. The hour is 60 one-minute cells and the
expiring one counted in full: never over the limit in any rolling hour, at most one cell under it.
A refusal spends nothing.
"""

from dataclasses import dataclass
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
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of each limit; `reset` is the epoch second when `hourly` next grows."""

    hourly: int
    reset: int
    burst: int
    concurrency: int


class Lease(Protocol):
    """A place that a request holds until its last byte, then gives back."""

    def release(self) -> None: ...


class Meter(Lease, Protocol):
    """The counters of one subject. An admitted request holds a place in them until its last byte, then calls `release`."""

    def headers(self) -> list[Header]: ...

    def left(self) -> Left: ...


class Limits(Protocol):
    """The two forms, in process and shared, answer the same way."""

    def admit(self, subject: str, tier: Tier, cost: int = 1) -> Meter:
        """Count `cost` calls and take one place. Raises RateLimited."""
        ...

    def peek(self, subject: str, tier: Tier) -> Meter:
        """The counters, for an answer that counts nothing (or was refused)."""
        ...

    def open_stream(self, subject: str, tier: Tier) -> Lease:
        """Take one of the places for streams that rest between their events. Raises RateLimited."""
        ...


@dataclass(slots=True)
class _Refusal:
    policy: str
    limit: int
    retry_after_s: float


class InProcessMeter:
    """The counters of one organisation in one environment; the form of `Meter` that lives in this process."""

    __slots__ = (
        "_cells",
        "_clock",
        "_interval_ns",
        "_minute",
        "_reset",
        "_static",
        "_tolerance_ns",
        "_total",
        "in_flight",
        "streams",
        "tat_ns",
        "tier",
    )

    def __init__(self, tier: Tier, clock: Clock) -> None:
        self._clock = clock
        self._cells = [0] * _CELLS
        self._minute = int(clock.time()) // _MINUTE_S
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
        policy = f'"hour";q={tier.hourly};w=3600, "burst";q={tier.burst};w=60, "concurrency";q={tier.concurrency};qu="concurrent-requests"'
        self._static: list[Header] = [(b"x-ratelimit-limit", b"%d" % tier.hourly), (b"ratelimit-policy", policy.encode())]

    def admit(self, cost: int) -> _Refusal | None:
        """Take one place and count `cost`, or say what stands against it."""
        tier, now_s = self.tier, self._clock.time()
        now_ns = int(now_s * _NS)
        self._turn(int(now_s) // _MINUTE_S)
        tat = self.tat_ns if self.tat_ns > now_ns else now_ns
        last = tat + (cost - 1) * self._interval_ns
        if self.in_flight >= tier.concurrency or last - now_ns > self._tolerance_ns or self._total + cost > tier.hourly:
            return self._refusal(cost, now_s, (last - self._tolerance_ns - now_ns) / _NS + _GRAIN_S)
        self.tat_ns = last + self._interval_ns
        self._cells[self._minute % _CELLS] += cost
        self._total += cost
        self.in_flight += 1
        return None

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

    def headers(self) -> list[Header]:
        """The state after this request, for every answer to an authenticated caller."""
        tier, now_s = self.tier, self._clock.time()
        self._turn(int(now_s) // _MINUTE_S)
        # Never below zero: a tier that was lowered may have less room than is taken.
        left, reset = max(0, tier.hourly - self._total), self._next_free()
        ahead_ns = max(0, self.tat_ns - int(now_s * _NS))
        state = b'"hour";r=%d;t=%d, "burst";r=%d;t=%d, "concurrency";r=%d' % (
            left,
            reset - int(now_s),
            max(0, self._tolerance_ns + self._interval_ns - ahead_ns) // self._interval_ns,
            -(-ahead_ns // _NS),
            max(0, tier.concurrency - self.in_flight),
        )
        return [*self._static, (b"x-ratelimit-remaining", b"%d" % left), (b"x-ratelimit-reset", b"%d" % reset), (b"ratelimit", state)]

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
        self._reset = 0

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


class InProcessLimits:
    """Meters in memory, bounded: idle ones go first, and a meter that holds a count is never dropped."""

    def __init__(self, clock: Clock, max_meters: int) -> None:
        self._clock = clock
        self._max_meters = max_meters
        self._meters: dict[str, InProcessMeter] = {}

    def admit(self, subject: str, tier: Tier, cost: int = 1) -> InProcessMeter:
        """See `Limits.admit`."""
        meter = self.peek(subject, tier)
        refusal = meter.admit(cost)
        if refusal is None:
            return meter
        raise _limited(refusal.policy, refusal.limit, refusal.retry_after_s)

    def peek(self, subject: str, tier: Tier) -> InProcessMeter:
        """See `Limits.peek`; made on first use."""
        meter = self._meters.get(subject)
        if meter is None:
            if len(self._meters) >= self._max_meters:
                self._meters = {name: held for name, held in self._meters.items() if not held.idle}
            meter = self._meters[subject] = InProcessMeter(tier, self._clock)
        elif meter.tier is not tier:
            meter.retune(tier)
        return meter

    def open_stream(self, subject: str, tier: Tier) -> StreamPlace:
        """See `Limits.open_stream`."""
        meter, most = self.peek(subject, tier), STREAMS_PER_PLACE * tier.concurrency
        if meter.streams >= most:
            raise _limited("streams", most, 1)
        return StreamPlace(meter)


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
        return headers, _limited("address", self._limit, tat - now_s - self._tolerance_s + _GRAIN_S) if refused else None


def _limited(policy: str, limit: int, retry_after_s: float) -> RateLimited:
    wait_s = max(1, ceil(retry_after_s))
    return RateLimited(policy=policy, limit=limit, retry_after=wait_s, headers={"retry-after": str(wait_s)})
