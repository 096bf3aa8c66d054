"""An MCP server over Streamable HTTP, as fast as Python allows: one uvloop protocol, plain JSON replies, no sessions.

`python -m benchmarks.upstream_http PORT`; POST to any path, GET answers 405, DELETE 200.
"""

import asyncio
import sys
from typing import cast

import httptools
import orjson
import uvloop

from benchmarks.answers import answer


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered in the order they came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        method = self.parser.get_method()
        if method != b"POST":
            self.reply(b"405 Method Not Allowed" if method == b"GET" else b"200 OK", b"")
            return
        try:
            reply = answer(orjson.loads(self.body))
        except ValueError:
            self.reply(b"400 Bad Request", b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}')
            return
        self.reply(b"202 Accepted", b"") if reply is None else self.reply(b"200 OK", orjson.dumps(reply))

    def reply(self, status: bytes, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


async def serve(port: int) -> None:
    """Serves until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
