"""Clients of the event stream that never read: they are cut, and neither the hub's memory nor anybody else suffers."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults.board import Board, percentile
from tests.faults.streams import BROKEN, Place, Publisher, StreamClient, until
from tests.flows.running_hub import RunningHub

_RECEIVES = 4096
_CUT_S = 15.0


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """100 of 1,000 clients never read, under 40 events a second for 20 s; 20 of 60 under 300 for 6 s without `full`."""
    clients, slow, rate, seconds = (1000, 100, 40.0, 20.0) if full else (60, 20, 300.0, 6.0)
    place = Place(hub)
    server = hub.api("GET", "/api/servers").json()["servers"][0]["uuid"]
    following = [StreamClient(place, hub.key, "type=tool.executed") for _ in range(clients - slow)]
    running = [asyncio.create_task(client.run()) for client in following]
    try:
        await until(lambda: all(client.opened for client in following))
        before = Publisher(place, server)
        await before.run(rate, seconds)
        held = _rss(hub)
        sockets = [await _never_reads(hub) for _ in range(slow)]
        beside = Publisher(place, server)
        await beside.run(rate, seconds)
        board.at_most("memory per client that never reads", (_rss(hub) - held) / slow / 1024, 1024, " KiB")
        board.none("such clients that were not cut", [one for one in await asyncio.gather(*map(_is_open, sockets)) if one])
        p99 = [percentile(publisher.seconds, 0.99) * 1000 for publisher in (before, beside)]
        board.note("p99 of calls", f"{p99[0]:.1f} ms before, {p99[1]:.1f} ms beside them")
        # In CI the machine has other tenants, and a few milliseconds are all that is measured.
        board.at_most("p99 of calls beside them", p99[1], p99[0] * (1.2 if full else 2.0) + 5, " ms")
        board.none("other clients that were cut", [client for client in following if client.opened > 1])
        wanted = 2 * (len(before.seconds) + len(beside.seconds))
        await until(lambda: all(len(client.frames) >= wanted for client in following))
        board.none("clients that have not heard every event twice", [client for client in following if len(client.frames) != wanted])
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _never_reads(hub: RunningHub) -> socket.socket:
    url = urlsplit(hub.url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVES)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (url.hostname, url.port))
    head = f"GET /api/events?type=tool.executed HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {hub.key}\r\n\r\n"
    await loop.sock_sendall(made, head.encode())
    return made


async def _is_open(made: socket.socket) -> bool:
    """Whether the connection is still there when all that was sent is read."""
    loop = asyncio.get_running_loop()
    with made:
        try:
            async with asyncio.timeout(_CUT_S):
                with suppress(*BROKEN[:1]):
                    while await loop.sock_recv(made, 2**16):
                        pass
        except TimeoutError:
            return True
    return False


def _rss(hub: RunningHub) -> int:
    """Bytes."""
    pages = int(Path(f"/proc/{hub.process.pid}/statm").read_text().split()[1])
    return pages * 4096
