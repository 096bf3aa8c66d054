"""What is sent to an HTTP server beside the calls and wants no answer: notifications, replies, farewells."""

import asyncio
from collections.abc import Callable, Coroutine

from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.protocol.sse import SseEvent
from plughub.upstream.http_connection import Exchange
from plughub.upstream.http_connections import Connections
from plughub.upstream.noise import price_of

BESIDE_S = 5.0
MOST_BESIDE = 32


class Beside:
    """Requests whose answers are read and forgotten; at most `MOST_BESIDE` at once."""

    def __init__(self, connections: Connections, note: Callable[[str], None]) -> None:
        self._connections = connections
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def later(self, data: bytes) -> None:
        """Send a whole request, its answer not waited for; left out when there is too much of it already."""
        if len(self._tasks) < MOST_BESIDE and not self._connections.closed:
            self.run(self.exchange(data))

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside, whose number is bounded elsewhere, until the connection ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def exchange(self, data: bytes, timeout_s: float = BESIDE_S) -> None:
        """Send a whole request and wait until it is answered. Whether it arrives is nobody's concern but the server's."""
        exchange = Exchange(self._loop.create_future(), ignore)
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._connections.take() or await self._connections.connect()
                connection.send(exchange, data)
                await exchange.done
        except (TimeoutError, UpstreamUnreachable, UpstreamTimeout) as error:
            self._note(f"a notification was not taken: {error}")
        finally:
            exchange.release()

    def cancel(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()


def ignore(exchange: Exchange, event: SseEvent) -> None:
    """Hear an event that nobody waits for."""
    exchange.noise += price_of(len(event.data))
