"""A server of the old HTTP+SSE transport for `HttpServer`: every event on its stream chosen by the test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_servers import INFO, SSE_HEAD, Seen, chunk, reply

POST_PATH = "/messages?session_id=s1"


def event(data: bytes, name: bytes = b"message") -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


def message(**members: Any) -> bytes:
    return event(json.dumps({"jsonrpc": "2.0"} | members).encode())


def text_of(id_: Any, text: str) -> bytes:
    """A result of one text."""
    return message(id=id_, result={"content": [{"type": "text", "text": text}]})


# What a tool does with a call: (the server, the request's id, its arguments).
Tool = Callable[["SseMcp", Any, dict[str, Any]], Awaitable[None]]


async def echo(server: "SseMcp", id_: Any, arguments: dict[str, Any]) -> None:
    server.write(text_of(id_, arguments["text"]))


async def forever(server: "SseMcp", id_: Any, arguments: dict[str, Any]) -> None:
    """Never answers."""


async def cut(server: "SseMcp", id_: Any, arguments: dict[str, Any]) -> None:
    server.cut()


@dataclass
class SseMcp:
    """What `HttpServer` asks; `opening` is what a new stream begins with, `taken` what a POST is answered by, `takes` that of a tool."""

    opening: bytes = event(POST_PATH.encode(), b"endpoint")
    taken: bytes = reply(202, b"Accepted", "text/plain")
    takes: dict[str, bytes] = field(default_factory=dict)
    version: str = "2024-11-05"
    capabilities: dict[str, Any] = field(default_factory=lambda: {"tools": {}})
    tools: dict[str, Tool] = field(default_factory=lambda: {"echo": echo, "forever": forever, "cut": cut})
    posted: list[Any] = field(default_factory=list)
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "GET":
            writer.write(SSE_HEAD + chunk(self.opening))
            self.streams.append(writer)
            await asyncio.Event().wait()
        if seen.target != POST_PATH:
            return reply(405)
        said = seen.json
        self.posted.append(said)
        if said.get("method") == "initialize":
            found = {"protocolVersion": self.version, "capabilities": self.capabilities, "serverInfo": INFO}
            self.write(message(id=said["id"], result=found))
        elif said.get("method") == "tools/call":
            name = said["params"]["name"]
            await self.tools[name](self, said["id"], said["params"].get("arguments", {}))
            return self.takes.get(name, self.taken)
        elif "id" in said and "method" in said:
            self.write(text_of(said["id"], said["method"]))
        return self.taken

    def write(self, data: bytes) -> None:
        """On the newest stream."""
        self.streams[-1].write(chunk(data))

    def cut(self) -> None:
        self.streams[-1].transport.abort()
