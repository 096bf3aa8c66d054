"""STDIO on one side, Streamable HTTP on the other: each line of stdin is one POST, what comes back is a line of stdout.

Messages pass as the bytes they are, in both eras of the protocol. The bridge reads of them only what HTTP wants to have in headers
(MCP 2026-07-28 "Transports": version, method, name, and the arguments that a tool's schema marks; before it the session and the
negotiated version), and answers in the hub's place when the hub cannot. Nothing but JSON-RPC is ever written to stdout.
"""

import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from plughub import __version__
from plughub.cli.screen import clean
from plughub.cli.session import LOOPBACK
from plughub.protocol.envelope import NAME_MEMBER
from plughub.protocol.param_headers import InvalidMark, Param, header_pairs, read_marks
from plughub.protocol.sse import SseEvent, SseParser, SseTooLarge
from plughub.protocol.versions import META_VERSION

_STDIN, _STDOUT = 0, 1
_READ_AHEAD = 64
_AT_ONCE = 256
_CONNECT_S = 10.0
# A stream may be quiet for long; the hub's heartbeats come oftener.
_READ_S = 330.0
_FAREWELL_S = 2.0
_LARGEST = 64 * 1024 * 1024
_AGAIN_S = 1.0
_SESSION = "mcp-session-id"
# Requests whose answer is a stream without an end.
_ENDLESS = frozenset({"subscriptions/listen"})
_INTERNAL_ERROR, _HEADER_MISMATCH = -32603, -32020
_MOST_PAGES, _MOST_MARKED = 50, 10_000
_INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


@dataclass(slots=True)
class _Message:
    """A line of stdin. `id` is its JSON, None for what wants no answer; `version` is that of a modern message."""

    raw: bytes
    id: bytes | None = None
    method: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None


def serve_stdio(url: str, key: str) -> bool:
    """Pass messages on until stdin ends and every request has its answer. False when nobody reads stdout any more."""
    return asyncio.run(_serve(url, key))


async def _serve(url: str, key: str) -> bool:
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "User-Agent": f"plughub/{__version__}",
    }
    timeout, limits = httpx2.Timeout(_READ_S, connect=_CONNECT_S, pool=None), httpx2.Limits(max_connections=None)
    # See `session`: a proxy is not for this machine, and without TLS there is nothing to verify.
    local = urlsplit(url).hostname in LOOPBACK
    async with httpx2.AsyncClient(
        headers=headers, timeout=timeout, limits=limits, trust_env=not local, verify=url.startswith("https:")
    ) as client:
        bridge = _Bridge(client, url)
        try:
            await bridge.run(_lines())
        except BrokenPipeError:
            return False
        return True


async def _lines() -> AsyncIterator[bytes]:
    """The lines of stdin. They are read in a thread: stdin may be a pipe, a file or a terminal."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(_READ_AHEAD)

    def read() -> None:
        with os.fdopen(_STDIN, "rb", closefd=False) as stdin:
            while line := stdin.readline():
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
        asyncio.run_coroutine_threadsafe(queue.put(b""), loop).result()

    threading.Thread(target=read, daemon=True).start()
    while line := await queue.get():
        yield line


class _Bridge:
    """The messages between one client and the hub. Owns a task for each request that is not answered yet."""

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._session: str | None = None
        self._hello = b""
        self._greeting = asyncio.Lock()
        self._version: str | None = None
        self._running: dict[bytes, tuple[asyncio.Task[None], _Message]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._listening: asyncio.Task[None] | None = None
        self._marks: dict[str, tuple[Param, ...]] = {}
        self._writing = asyncio.Lock()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Until the lines end. Raises BrokenPipeError."""
        reading = asyncio.ensure_future(self._read(lines))
        try:
            await asyncio.wait({reading, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            await reading
        finally:
            reading.cancel()
            await self._end()

    async def _read(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            if line.strip():
                await self._take(_message(line.rstrip(b"\r\n")))
        while waited := [task for task, message in self._running.values() if message.method not in _ENDLESS]:
            await asyncio.wait(waited)

    async def _take(self, message: _Message) -> None:
        if message.method == "notifications/cancelled" and self._cancelled(message):
            return
        if message.id is None or message.method == "initialize":
            # In order: the hub must know of them before what comes after.
            await self._exchange(message)
            return
        await self._room.acquire()
        task = asyncio.ensure_future(self._exchange(message))
        self._running[message.id] = (task, message)
        task.add_done_callback(lambda done: self._done(message, done))

    def _done(self, message: _Message, task: asyncio.Task[None]) -> None:
        self._room.release()
        if message.id is not None and self._running.get(message.id, (None,))[0] is task:
            del self._running[message.id]

    def _cancelled(self, message: _Message) -> bool:
        """Since 2026-07-28 a request over HTTP is cancelled by closing its connection; before, by telling the server."""
        id_ = json.dumps(message.params.get("requestId")).encode()
        task, request = self._running.get(id_, (None, None))
        if task is None or request is None or request.version is None:
            return False
        task.cancel()
        return True

    async def _exchange(self, message: _Message) -> None:
        session = self._session
        try:
            if not await self._post(message, last=False):
                await (self._greet_again(session) if message.version is None else self._list_tools(message))
                await self._post(message, last=True)
        except (httpx2.TransportError, httpx2.InvalidURL, SseTooLarge) as error:
            await self._refuse(message, f"Plughub at {self._url} cannot be reached: {error or type(error).__name__}")
        except BrokenPipeError as error:
            self._break(error)
        if message.method == "notifications/initialized":
            self._listen()

    async def _post(self, message: _Message, *, last: bool) -> bool:
        """Send a message and pass on what comes back.

        False, unless `last`: the hub has forgotten the session, or misses headers; nothing was passed on.
        """
        async with self._client.stream("POST", self._url, content=message.raw, headers=self._headers(message)) as answer:
            if message.method == "initialize":
                self._session, self._hello = answer.headers.get(_SESSION), message.raw
            elif answer.status_code == 404 and not last and message.version is None and self._session is not None:
                return False
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                await self._pass_stream(message, answer)
            else:
                body = await answer.aread()
                if not last and answer.status_code == 400 and _misses_headers(message, body):
                    return False
                await self._pass_body(message, answer.status_code, body)
            return True

    async def _greet_again(self, lost: str | None) -> None:
        """A hub that was started anew knows no sessions; the client need not notice. Its own handshake is sent once more."""
        async with self._greeting:
            if self._session != lost:
                return  # another request has done it
            answer = await self._client.post(self._url, content=self._hello)
            if answer.status_code == 200:
                self._session = answer.headers.get(_SESSION)
                await self._client.post(self._url, content=_INITIALIZED, headers=self._headers(_Message(_INITIALIZED)))
                self._listen()

    async def _list_tools(self, message: _Message) -> None:
        """A client over STDIO need not list tools before it calls one, nor know what of its arguments goes into headers."""
        meta = {name: value for name, value in message.params["_meta"].items() if name != "progressToken"}
        params: dict[str, Any] = {"_meta": meta}
        for _ in range(_MOST_PAGES):
            body = json.dumps({"jsonrpc": "2.0", "id": "plughub", "method": "tools/list", "params": params}).encode()
            asked = _message(body)
            answer = await self._client.post(self._url, content=body, headers=self._headers(asked))
            result = _result(_parsed(answer.content))
            self._learn(result)
            if not isinstance(cursor := result.get("nextCursor"), str):
                return
            params = {"_meta": meta, "cursor": cursor}

    def _learn(self, result: Mapping[str, Any]) -> None:
        """Note what the tools of a list want to have in headers."""
        tools = result.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if not isinstance(tool, dict) or not isinstance(name := tool.get("name"), str):
                continue
            self._marks.pop(name, None)
            try:
                marks = read_marks(json.dumps(tool.get("inputSchema")).encode())
            except InvalidMark:
                continue
            if marks and len(self._marks) < _MOST_MARKED:
                self._marks[name] = marks

    def _headers(self, message: _Message) -> dict[str, str]:
        if message.version is not None:
            headers = {"MCP-Protocol-Version": _header(message.version)}
            if message.method:
                headers["Mcp-Method"] = _header(message.method)
            name = message.params.get(NAME_MEMBER.get(message.method, ""))
            if isinstance(name, str):
                headers["Mcp-Name"] = _header(name)
                if message.method == "tools/call" and name in self._marks:
                    arguments = json.dumps(message.params.get("arguments")).encode()
                    headers |= {key.decode(): value.decode() for key, value in header_pairs(self._marks[name], arguments)}
            return headers
        if message.method == "initialize":
            return {}
        known = {"MCP-Protocol-Version": self._version, _SESSION: self._session}
        return {name: value for name, value in known.items() if value is not None}

    async def _pass_stream(self, message: _Message, answer: httpx2.Response) -> None:
        answered = False
        async for event in _events(answer):
            answered = answered or self._answers(message, _parsed(event.data))
            await self._write(event.data)
        if message.id is not None and not answered:
            await self._refuse(message, "The answer of Plughub broke off; the request may have been carried out")

    async def _pass_body(self, message: _Message, status: int, body: bytes) -> None:
        found = _parsed(body)
        if self._answers(message, found):
            await self._write(body)
        elif isinstance(found, dict) and found.get("jsonrpc") == "2.0" and isinstance(error := found.get("error"), dict):
            # The hub could not tell which request it refuses; here it is known.
            if message.id is not None or not message.method:
                await self._write(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (message.id or b"null", json.dumps(error).encode()))
            else:
                self._note(f"{message.method}: {error.get('message')}")
        elif status >= 300 or message.id is not None:
            await self._refuse(message, f"Plughub at {self._url} gave no answer of MCP (HTTP status {status})")

    def _answers(self, message: _Message, found: Any) -> bool:
        """Whether `found` is the response to the message; notes the revision that a handshake ends with."""
        if message.id is None or not isinstance(found, dict) or "method" in found or json.dumps(found.get("id")).encode() != message.id:
            return False
        if message.method == "tools/list" and message.version is not None:
            self._learn(_result(found))
        if message.method == "initialize" and isinstance(result := found.get("result"), dict):
            version = result.get("protocolVersion")
            self._version = version if isinstance(version, str) and version.isascii() and version.isprintable() else None
        return True

    async def _refuse(self, message: _Message, text: str) -> None:
        self._note(text)
        if message.id is not None:
            error = json.dumps({"code": _INTERNAL_ERROR, "message": text}).encode()
            await self._write(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (message.id, error))

    def _listen(self) -> None:
        if self._session is not None and (self._listening is None or self._listening.done()):
            self._listening = asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        """What a server of the older era says of its own accord, while it has a session with us and offers such a stream."""
        last_id = b""
        while True:
            headers = {"Accept": "text/event-stream", **self._headers(_Message(b""))}
            if last_id:
                headers["Last-Event-ID"] = _header(last_id.decode(errors="replace"))
            try:
                async with self._client.stream("GET", self._url, headers=headers) as answer:
                    if answer.status_code != 200:
                        return
                    async for event in _events(answer):
                        last_id = event.id if event.id is not None else last_id
                        await self._write(event.data)
            except (httpx2.TransportError, SseTooLarge):
                pass  # opened again below
            except BrokenPipeError as error:
                self._break(error)
                return
            await asyncio.sleep(_AGAIN_S)

    async def _write(self, message: bytes) -> None:
        line = message.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        async with self._writing:
            # In a thread: a client that is slow to read must not keep us from reading what it writes.
            await asyncio.to_thread(_write_all, line)

    def _break(self, error: BrokenPipeError) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    def _note(self, text: str) -> None:
        sys.stderr.write(f"plughub: {clean(text)}\n")
        sys.stderr.flush()

    async def _end(self) -> None:
        """Let go of what still runs, and of the session."""
        left = [task for task, _ in self._running.values()] + ([self._listening] if self._listening is not None else [])
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        if self._session is not None:
            try:
                await self._client.delete(self._url, headers=self._headers(_Message(b"")), timeout=_FAREWELL_S)
            except httpx2.TransportError:
                pass  # the hub forgets the session by itself


def _message(line: bytes) -> _Message:
    found = _parsed(line)
    if not isinstance(found, dict):
        return _Message(line)
    method, params = found.get("method"), found.get("params")
    params = params if isinstance(params, dict) else {}
    meta = params.get("_meta")
    version = meta.get(META_VERSION) if isinstance(meta, dict) else None
    is_request = isinstance(method, str) and isinstance(found.get("id"), str | int | float)
    return _Message(
        raw=line,
        id=json.dumps(found["id"]).encode() if is_request else None,
        method=method if isinstance(method, str) else "",
        params=params,
        version=version if isinstance(version, str) else None,
    )


def _parsed(data: bytes) -> Any:
    """The JSON of `data`, or None where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _result(found: Any) -> Mapping[str, Any]:
    """The result of a response; empty where there is none."""
    result = found.get("result") if isinstance(found, dict) else None
    return result if isinstance(result, dict) else {}


def _misses_headers(message: _Message, body: bytes) -> bool:
    found = _parsed(body) if message.method == "tools/call" and message.version is not None else None
    error = found.get("error") if isinstance(found, dict) else None
    return isinstance(error, dict) and error.get("code") == _HEADER_MISMATCH


def _header(text: str) -> str:
    """`text` as a header can carry it: as it is, or `=?base64?…?=` (MCP 2026-07-28 "Transports")."""
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode(errors='replace')).decode()}?="


async def _events(answer: httpx2.Response) -> AsyncIterator[SseEvent]:
    parser = SseParser(_LARGEST)
    async for piece in answer.aiter_raw():
        for event in parser.feed(piece):
            yield event


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(_STDOUT, data) :]
