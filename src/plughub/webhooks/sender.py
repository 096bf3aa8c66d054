"""One attempt: a signed POST over the hub's own connections, through the guarded dialler, in 15 s with all that comes back."""

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus

from plughub.kit.dial import Allowed, Tls
from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.upstream.http_address import Address, address_of
from plughub.upstream.http_connection import Exchange
from plughub.upstream.http_connections import Connections

TOTAL_S = 15.0
_CONNECT_S = 5.0
# Of a receiver's answer so much is read, and so much kept. A larger one is a failure: it is no receiver's answer.
MAX_ANSWER = 64 * 1024
EXCERPT = 1000
AT_ONCE = 10
# The receiver wants no more, ever.
GONE = 410
_JSON = b"Content-Type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt: `error` is None for a 2xx that was read to its end."""

    status: int | None
    excerpt: str | None
    error: str | None
    duration_ms: int
    retry_after_s: float | None = None


class _Post(Exchange):
    """An exchange that keeps the beginning of the body, whatever ends it."""

    __slots__ = ("kept",)

    def __init__(self, done: asyncio.Future[None]) -> None:
        super().__init__(done, lambda _exchange, _event: None)
        self.kept = b""

    def fail(self, error: Exception) -> None:
        self.keep()
        super().fail(error)

    def keep(self) -> None:
        """Of the body that has come."""
        self.kept = self.kept or b"".join(self.body)[:EXCERPT]


class Receiver:
    """The connections to one address; closed by its owner. Raises UpstreamUnreachable for an address that cannot be read."""

    def __init__(self, url: str, allowed: Allowed, tls: Tls) -> None:
        self._address: Address = address_of(url, {})
        self._connections = Connections(self._address, allowed, tls, most=AT_ONCE, max_bytes=MAX_ANSWER, timeout_s=_CONNECT_S)
        self._busy = 0
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._head = b"POST %b HTTP/1.1\r\n%b%b" % (self._address.path, self._address.head, _JSON)

    def close(self) -> None:
        """Close every connection; attempts under way fail."""
        self._connections.close("the hub stops")

    def retire(self) -> None:
        """Close when the attempts under way are done."""
        self._retired = True
        if not self._busy:
            self.close()

    async def post(self, headers: bytes, body: bytes) -> Answer:
        """Send, and read the answer to its end. Never raises but when cancelled."""
        self._busy += 1
        try:
            return await self._post(headers, body)
        finally:
            self._busy -= 1
            if self._retired and not self._busy:
                self.close()

    async def _post(self, headers: bytes, body: bytes) -> Answer:
        began = time.monotonic()
        data = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, headers, len(body), body)
        post = _Post(self._loop.create_future())
        try:
            async with asyncio.timeout(TOTAL_S):
                post = await self._exchange(post, data)
        except TimeoutError:
            return self._answer(post, began, f"no complete answer within {TOTAL_S:g} s")
        except UpstreamUnreachable as error:
            return self._answer(post, began, error.reason)
        except UpstreamTimeout as error:
            return self._answer(post, began, error.text)
        finally:
            post.release()
        return self._answer(post, began, _refusal(post.status))

    async def _exchange(self, post: _Post, data: bytes) -> _Post:
        while True:
            connection = self._connections.take() or await self._connections.connect()
            reused = not connection.fresh
            connection.send(post, data)
            try:
                await post.done
                return post
            except UpstreamUnreachable:
                # Closed just as it was used again: nobody has seen the request, or seen it by the same id.
                if not reused or post.touched:
                    raise
                post.done = self._loop.create_future()

    @staticmethod
    def _answer(post: _Post, began: float, error: str | None) -> Answer:
        post.keep()
        excerpt = post.kept.decode("utf-8", "replace").replace("\0", "\ufffd") if post.status else None
        took_ms = round((time.monotonic() - began) * 1000)
        return Answer(post.status or None, excerpt, error, took_ms, _seconds(post.retry_after))


def _refusal(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "?"
    return f"the receiver answered HTTP {status} {phrase}" + (" (redirects are not followed)" if 300 <= status < 400 else "")


def _seconds(retry_after: bytes) -> float | None:
    """Retry-After in seconds; its other form, a date, is left to the schedule."""
    text = retry_after.strip()
    return float(text) if text.isdigit() and len(text) < 10 else None
