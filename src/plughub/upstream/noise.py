"""What a server may say that nobody asked for: so much a second, so that one of them cannot keep the hub busy."""

import asyncio

# Bytes a second; a burst of one second is free.
RATE = 256 * 1024
# A notification is of use to somebody, so its bytes are cheaper than those of garbage.
NOTIFICATION_DISCOUNT = 4
# What one message costs besides its bytes: handling it takes longer than reading it.
MESSAGE_PRICE = 32
NOTE_PRICE = 200


def price_of(size: int) -> int:
    """What a notification of `size` bytes, or a request of the server's own, costs."""
    return size // NOTIFICATION_DISCOUNT + MESSAGE_PRICE


class Budget:
    """A bucket of noise; it may go below nothing, and then there is a time to wait."""

    __slots__ = ("_at", "_left", "_loop", "_rate")

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: int = RATE) -> None:
        self._loop = loop
        self._rate = rate
        self._left = float(rate)
        self._at = loop.time()

    def spend(self, count: int) -> float:
        """Count noise; the seconds that it is ahead of the rate, 0 when it is not."""
        now = self._loop.time()
        self._left = min(float(self._rate), self._left + (now - self._at) * self._rate) - count
        self._at = now
        return max(0.0, -self._left / self._rate)
