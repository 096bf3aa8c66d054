"""A webhook as this process delivers to it."""

import asyncio
from collections import deque
from collections.abc import Callable

from plughub.webhooks.outbox import Held
from plughub.webhooks.schemas import Webhook
from plughub.webhooks.sender import AT_ONCE, Receiver
from plughub.webhooks.signing import Signer

# After so many failures in a row one attempt at a time shows whether the receiver is back.
OPENS_AFTER = 5
_AHEAD = 256
_PROBES = 4
# Of a slow webhook no more is leased than goes out within a part of the lease.
_PACED_S = 8.0


class Endpoint:
    """What is leased for it, how many attempts are under way, and how it has fared. One a webhook, made anew by no change of it.

    `hungry`: there may be more to lease than it has. `failures`: in a row, by this process alone.
    """

    __slots__ = (
        "_previous",
        "_secret",
        "_slot",
        "failing_since",
        "failures",
        "from_seq",
        "hungry",
        "in_flight",
        "of_project",
        "paused_until",
        "queue",
        "receiver",
        "told",
        "webhook",
    )

    def __init__(self, webhook: Webhook, receiver: Receiver) -> None:
        self.webhook = webhook
        self.receiver = receiver
        self.from_seq = 0
        self.of_project: frozenset[str] = frozenset()
        self.queue: deque[Held] = deque()
        self.in_flight = 0
        self.failures = 0
        self.failing_since: float | None = None
        self.hungry = True
        self.paused_until = 0.0
        self.told = True  # false: it is switched off or gone
        self._secret = ""
        self._previous: str | None = None
        self._slot = 0.0

    def sign_with(self, secret: str, previous: str | None) -> None:
        """From now on with these."""
        self._secret, self._previous = secret, previous

    def signer(self, now: float) -> Signer:
        """The keys that are valid now (epoch seconds)."""
        overlaps = self.webhook.previous_until is not None and now < self.webhook.previous_until
        return Signer.of(self._secret, self._previous if overlaps else None)

    @property
    def most(self) -> int:
        """Attempts at once."""
        return 1 if self.webhook.ordered or self.failures >= OPENS_AFTER else AT_ONCE

    def room(self) -> int:
        """How many more may be leased for it now."""
        if not self.told or (self.webhook.ordered and (self.queue or self.in_flight)):
            return 0
        if self.paused_until - asyncio.get_running_loop().time() > _PACED_S:
            return 0
        ahead = _PROBES if self.failures >= OPENS_AFTER else _AHEAD
        if self.webhook.rate_per_minute is not None:
            ahead = max(1, min(ahead, int(self.webhook.rate_per_minute * _PACED_S / 60)))
        return max(0, ahead - len(self.queue))

    def wait_s(self, share: Callable[[], int]) -> float:
        """How long the next attempt has to wait: a pause that the receiver asked for, and the rate, of which each process has a share.

        The place is taken.
        """
        now = asyncio.get_running_loop().time()
        at = max(now, self.paused_until)
        if self.webhook.rate_per_minute is not None:
            at = max(at, self._slot)
            self._slot = at + 60 * share() / self.webhook.rate_per_minute
        return at - now
