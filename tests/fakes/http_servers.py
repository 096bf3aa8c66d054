"""HTTP servers under the test's control, in its own loop: real sockets, every byte of the answer chosen by the test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h11


@dataclass
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


Answerer = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]


def reply(status: int, body: bytes = b"", kind: str = "application/json", headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {kind}"] if body else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_reply(message: Any, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    return reply(status, json.dumps(message).encode(), headers=headers)


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse(*messages: Any) -> bytes:
    """A whole event stream."""
    events = b"".join(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n" for message in messages)
    return SSE_HEAD + chunk(events) + chunk(b"")


class HttpServer:
    """Answers each request by `answer`; `seen` keeps them. None from `answer`: it has written by itself."""

    def __init__(self, answer: Answerer) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections = 0
        self.closed: list[int] = []
        self.changed = asyncio.Event()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; looked at whenever something came or closed."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            await self._requests(reader, writer, number)
        except (ConnectionError, asyncio.CancelledError, h11.RemoteProtocolError):
            pass
        finally:
            self._tasks.discard(task)
            self.closed.append(number)
            self.changed.set()
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        parser = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                if not data:
                    return
                parser.receive_data(data)
            elif isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
                seen = Seen(head.method.decode(), head.target.decode(), headers, body, number)
                self.seen.append(seen)
                self.changed.set()
                answer = await self._answer_or_hang_up(seen, reader, writer)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                if writer.is_closing():
                    return
                parser = h11.Connection(h11.SERVER)
            else:
                return

    async def _answer_or_hang_up(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """The answer, unless the client hangs up before it is there."""
        answering = asyncio.ensure_future(self.answer(seen, writer))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not answering.done():
                raise ConnectionError
            return answering.result()
        finally:
            for future in (answering, gone):
                future.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)


INFO = {"name": "fake", "version": "1"}


@dataclass
class Mcp:
    """An MCP server behind `HttpServer`: `tools` maps a tool to what answers its call."""

    era: str = "legacy"
    sessions: bool = True
    tools: dict[str, Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    issued: int = 0
    forget_status: int = 404

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method != "POST":
            self.live.discard(seen.header("mcp-session-id") or "")
            return reply(200)
        message = seen.json
        if "id" not in message or "method" not in message:
            return reply(202)
        refusal = self._modern(seen) if self.era == "modern" else self._legacy(seen)
        if refusal is not None:
            return refusal
        if message["method"] == "tools/call":
            return await self.tools[message["params"]["name"]](seen, writer)
        return text_reply(seen, message["method"])

    def _legacy(self, seen: Seen) -> bytes | None:
        message = seen.json
        if message["method"] == "initialize":
            self.issued += 1
            session = f"session-{self.issued}"
            self.live.add(session)
            found = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": INFO}
            headers = {"Mcp-Session-Id": session} if self.sessions else {}
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": found}, headers=headers)
        if not self.sessions:
            return None if message["method"] != "server/discover" else error_reply(seen, -32601, "Method not found")
        if seen.header("mcp-session-id") is None:
            return json_reply({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Bad Request: Missing session ID"}}, 400)
        if seen.header("mcp-session-id") not in self.live:
            error = {"code": -32000, "message": "Bad Request: No valid session ID provided"}
            return json_reply({"jsonrpc": "2.0", "id": None, "error": error}, self.forget_status)
        return None

    def _modern(self, seen: Seen) -> bytes | None:
        message = seen.json
        meta = message.get("params", {}).get("_meta", {})
        if seen.header("mcp-protocol-version") != meta.get("io.modelcontextprotocol/protocolVersion", "?"):
            return error_reply(seen, -32020, "header mismatch", 400)
        if seen.header("mcp-method") != message["method"]:
            return error_reply(seen, -32020, "mcp-method header mismatch", 400)
        if message["method"] == "server/discover":
            info = {"io.modelcontextprotocol/serverInfo": INFO}
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete", "_meta": info}
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": found})
        return None


def text_message(seen: Seen, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": seen.json["id"], "result": {"content": [{"type": "text", "text": text}]}}


def text_reply(seen: Seen, text: str) -> bytes:
    return json_reply(text_message(seen, text))


def error_reply(seen: Seen, code: int, message: str, status: int = 200) -> bytes:
    return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "error": {"code": code, "message": message}}, status)
