"""A proxy that adds a key, for clients that cannot send one: the conformance suite has no option for headers.

    python -m tests.conformance.shim --to http://localhost:12005 --key-file operator.key --port 13000

Everything else passes byte for byte. Of requests only the end of the head and of the body are looked for, because each request on a
connection gets its header; answers are not looked at. So Host and Origin arrive as sent, frames leave as they come, and when either side
goes, the other is let go at once.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

READ_BYTES = 64 * 1024
HEAD_BYTES = 64 * 1024
FLUSH_S = 5


class Shim:
    """`url` is where it listens, on 127.0.0.1; the path of a request stays what it is."""

    def __init__(self, to: str, key: str) -> None:
        parts = urlsplit(to)
        assert parts.hostname and parts.port, f"an address with a port, not {to}"
        self._to = (parts.hostname, parts.port)
        self._header = f"Authorization: Bearer {key}\r\n".encode()
        self._links: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[None]:
        """Open the port for as long as the block runs; the connections end with it."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", port, limit=HEAD_BYTES)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link
        self._links.add(link)
        try:
            await self._link(reader, writer)
        finally:
            self._links.discard(link)
            await _closed(writer)

    async def _link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            hub, to_hub = await asyncio.open_connection(*self._to)
        except OSError:
            return
        ways = {asyncio.create_task(self._requests(client, to_hub)), asyncio.create_task(_answers(hub, to_client))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_hub.transport.abort()

    async def _requests(self, client: asyncio.StreamReader, to_hub: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                to_hub.write(head[:-2] + self._header + b"\r\n")
                async for piece in _body(client, head):
                    to_hub.write(piece)
                    await to_hub.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Let go of the client; what the hub said last may still wait to be sent."""
    writer.close()
    with contextlib.suppress(ConnectionError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), FLUSH_S)
    writer.transport.abort()


async def _answers(hub: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await hub.read(READ_BYTES):
            to_client.write(piece)
            await to_client.drain()


async def _body(client: asyncio.StreamReader, head: bytes) -> AsyncIterator[bytes]:
    """What follows a head, as it stands on the wire."""
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        while True:
            size = await client.readuntil(b"\r\n")
            yield size
            length = int(size.split(b";")[0], 16)
            if length == 0:
                break
            yield await client.readexactly(length + 2)
        while (trailer := await client.readuntil(b"\r\n")) != b"\r\n":
            yield trailer
        yield trailer
        return
    left = int(headers.get(b"content-length", b"0"))
    while left:
        piece = await client.read(min(left, READ_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _serve(to: str, key: str, port: int) -> None:
    shim = Shim(to, key)
    async with shim.listening(port):
        sys.stdout.write(f"{shim.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, help="the hub's address")
    parser.add_argument("--key-file", required=True, type=Path)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.to, given.key_file.read_text().strip(), given.port))


if __name__ == "__main__":
    main()
