"""A receiver of webhooks for load: one process, any number of paths, one a webhook. Checks every signature.

Prints its port. `GET /report` answers what came since the last `GET /reset`: per path the deliveries, the different ids, the bad
signatures, and the milliseconds between the event's own time and its arrival.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
import time
from datetime import datetime
from typing import Any, cast

import httptools
import uvloop

SECRET = "a secret for load"
_TIME = re.compile(rb'"timestamp":"([^"]+)"')
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Tally:
    """What came over one path. `names`: how often each id came; `late`: of the first arrival of each."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.bad = 0
        self.late_ms: list[float] = []

    def take(self, headers: dict[bytes, bytes], body: bytes) -> None:
        """One delivery."""
        id_ = headers[b"webhook-id"].decode()
        if id_ not in self.names:
            found = _TIME.search(body)
            assert found is not None
            self.late_ms.append((time.time() - datetime.fromisoformat(found[1].decode()).timestamp()) * 1000)
        self.names[id_] = self.names.get(id_, 0) + 1
        signed = b"%b.%b.%b" % (headers[b"webhook-id"], headers[b"webhook-timestamp"], body)
        wanted = b"v1," + base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256))
        self.bad += wanted not in headers[b"webhook-signature"].split(b" ")

    def report(self) -> dict[str, Any]:
        """In figures."""
        late = sorted(self.late_ms)
        of = {f"p{share}_ms": round(late[min(len(late) - 1, len(late) * share // 100)], 1) if late else 0 for share in (50, 95, 99)}
        return {"deliveries": sum(self.names.values()), "unique": len(self.names), "bad": self.bad, "max_ms": max(late, default=0), **of}


TALLIES: dict[str, Tally] = {}


class Connection(asyncio.Protocol):
    """One connection of the hub's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.headers, self.parts = b"", dict[bytes, bytes](), list[bytes]()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.url in (b"/report", b"/reset"):
            body = json.dumps({path: tally.report() for path, tally in TALLIES.items()}).encode()
            if self.url == b"/reset":
                TALLIES.clear()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        TALLIES.setdefault(self.url.decode(), Tally()).take(self.headers, b"".join(self.parts))
        self.transport.write(_OK)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
