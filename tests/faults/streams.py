"""Clients of the event stream below any HTTP library, and whoever makes events."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from plughub.protocol.sse import SseParser
from tests.flows.running_hub import RunningHub

BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError)
_AGAIN_S = 0.1
_LATE_S = 120.0


async def pause(seconds: float) -> None:
    """Give the others so much time."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, turn.set)
    await turn.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, not for ever: whoever waits looks at what there is then."""
    end = time.monotonic() + _LATE_S
    while not condition() and time.monotonic() < end:
        await pause(0.05)


class Place:
    """Where the hub is now: it may die and come back at another port."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub

    async def connect(self, limit: int = 2**16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        """A connection and the host it leads to. Raises OSError."""
        url = urlsplit(self.hub.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=limit)
        return reader, writer, url.netloc


class StreamClient:
    """Follows the stream as a browser does: whenever it is cut off it comes back with the last id. `frames` is every `(id, event)`."""

    def __init__(self, place: Place, key: str, query: str) -> None:
        self._place = place
        self._key = key
        self._query = query
        self.frames: list[tuple[str, str]] = []
        self.last_id = ""
        self.opened = 0
        self.refused = 0
        self.gaps = 0
        self._writer: asyncio.StreamWriter | None = None

    def drop(self) -> None:
        """The connection breaks."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self) -> None:
        """Until the hub refuses the key."""
        while not self.refused:
            with suppress(*BROKEN):
                await self._follow()
            self._writer = None
            await pause(_AGAIN_S)

    async def _follow(self) -> None:
        reader, writer, host = await self._place.connect()
        lines = [f"GET /api/events?{self._query} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {self._key}"]
        lines += [f"Last-Event-ID: {self.last_id}"] if self.last_id else []
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 200:
                self.refused = status if status in (401, 403, 410) else 0
                return
            self._writer, self.opened = writer, self.opened + 1
            parser = SseParser(2**22)
            while size := int((await reader.readline()).strip() or b"0", 16):
                chunk = await reader.readexactly(size + 2)
                for event in parser.feed(chunk[:-2]):
                    if event.event == b"stream.gap":
                        self.gaps += 1
                    elif event.id is not None:
                        self.frames.append((event.id.decode(), event.event.decode()))
                self.last_id = parser.last_id.decode() if parser.last_id else self.last_id
        finally:
            writer.transport.abort()


class Publisher:
    """Calls of a tool at a steady rate over a few connections; how long each answered one took."""

    def __init__(self, place: Place, server: str) -> None:
        self._place = place
        self._path = f"/api/servers/{server}/tools/echo/execute"
        self.seconds: list[float] = []

    async def run(self, rate: float, duration_s: float, connections: int = 4) -> None:
        """So many calls a second for so long; what fails is not tried again."""
        begin = time.monotonic()
        await asyncio.gather(*(self._steadily(rate / connections, begin, duration_s) for _ in range(connections)))

    async def _steadily(self, rate: float, begin: float, duration_s: float) -> None:
        body = json.dumps({"parameters": {"text": "hello"}}).encode()
        sent, connection = 0, None
        while (due := sent / rate) < duration_s:
            await pause(max(0.0, begin + due - time.monotonic()))
            sent += 1
            try:
                connection = connection or await self._place.connect()
                await self._call(*connection, body)
            except BROKEN:
                connection = None
        if connection is not None:
            connection[1].close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, body: bytes) -> None:
        began = time.monotonic()
        key = self._place.hub.key
        lines = [f"POST {self._path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {key}", "Content-Type: application/json"]
        writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        if head.split(b" ", 2)[1] == b"200":
            self.seconds.append(time.monotonic() - began)
