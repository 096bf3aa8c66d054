"""An exact log of what was admitted, and what the three limits make of it: the oracle of both forms of the limits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plughub.cluster.limits import Lease, Left, Limits
from plughub.kit.caller import Tier
from plughub.kit.errors import RateLimited
from plughub.kit.ids import new_id
from tests.conftest import FakeClock

T = TypeVar("T")
SMALL = Tier("small", hourly=20, burst=5, concurrency=3)


async def admit(limits: Limits, subject: str, tier: Tier, cost: int = 1, own: tuple[str, Tier] | None = None) -> Lease:
    """As admission does it."""
    return limits.admit(subject, tier, cost, own) or await limits.admit_shared(subject, tier, cost, own)


class AgainstTheLog(RuleBasedStateMachine):
    """Admits, releases and lets time pass. `made` makes the form under test; `renewed` stands for its owner's renewing what it holds."""

    made: ClassVar[Callable[[FakeClock], Limits]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.clock.now += 17.3
        self.limits = type(self).made(self.clock)
        self.subject = new_id()
        self.run(self.limits.start())
        self.log: list[tuple[float, int]] = []
        self.held: list[Lease] = []

    def teardown(self) -> None:
        assert not self.limits.alone
        self.run(self.limits.aclose())
        self.loop.close()

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def renewed(self) -> None:
        """For forms whose places run out."""

    def admit(self, cost: int) -> Lease:
        return self.run(admit(self.limits, self.subject, SMALL, cost))

    def left(self) -> Left:
        return self.run(self.limits.look(self.subject, SMALL)).left()

    @rule(cost=st.sampled_from([1, 1, 1, 2, 4]), keep=st.booleans())
    def call(self, cost: int, keep: bool) -> None:
        before = self.left()
        try:
            lease = self.admit(cost)
        except RateLimited as refused:
            assert self.left() == before, "a refusal spends nothing"
            self._refused(refused, cost)
            return
        self.log.append((self.clock.now, cost))
        if keep:
            self.held.append(lease)
        else:
            lease.release()
        after = self.left()
        assert after.hourly == before.hourly - cost
        assert before.burst - cost - 1 <= after.burst <= before.burst - cost + 1

    def _refused(self, refused: RateLimited, cost: int) -> None:
        now, details = self.clock.now, refused.details
        assert details["retry_after"] == int(refused.headers["retry-after"]) >= 1
        # Room by the exact log, with the one cell (a minute) that the rolling hour may be early, means no refusal.
        hour = sum(c for at, c in self.log if at > now - 3600 - 60) + cost > SMALL.hourly
        busy = len(self.held) >= SMALL.concurrency
        spent, last = 0.0, 0.0
        for at, c in self.log:  # a leaking bucket of `burst`, refilled at burst / 60 s
            spent = max(0.0, spent - (at - last) * SMALL.burst / 60) + c
            last = at
        burst = max(0.0, spent - (now - last) * SMALL.burst / 60) + cost > SMALL.burst - 1e-6
        assert {"hourly": hour, "concurrency": busy, "burst": burst}[details["policy"]], (details, hour, busy, burst)
        self._waits_honestly(int(details["retry_after"]), cost)

    def _waits_honestly(self, seconds: int, cost: int) -> None:
        """Whoever waits that long, alone, is let in (once the calls that run have ended)."""
        for lease in self.held:
            lease.release()
        self.held.clear()
        self.clock.advance(seconds)
        self.admit(cost).release()
        self.log.append((self.clock.now, cost))

    @precondition(lambda self: self.held)
    @rule()
    def end_a_call(self) -> None:
        self.held.pop().release()

    @rule(seconds=st.sampled_from([0.0, 0.001, 1.0, 7.77, 12.0, 59.9, 60.0, 600.0, 3541.0, 3600.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.renewed()

    @invariant()
    def never_over_a_limit(self) -> None:
        now = self.clock.now
        for start, _ in self.log:
            assert sum(c for at, c in self.log if start <= at < start + 3600) <= SMALL.hourly
        assert len(self.held) <= SMALL.concurrency
        left = self.left()
        assert left.concurrency == SMALL.concurrency - len(self.held)
        exact = SMALL.hourly - sum(c for at, c in self.log if at > now - 3600)
        careful = SMALL.hourly - sum(c for at, c in self.log if at > now - 3660)
        assert careful <= left.hourly <= exact
        self.log = [(at, c) for at, c in self.log if at > now - 8000]
