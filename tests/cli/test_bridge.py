"""`plughub connect` towards a server of the older era that keeps sessions and speaks of its own accord."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.fakes.http_servers import HttpServer, Seen, chunk, json_reply, reply, sse

pytestmark = pytest.mark.anyio
PLUGHUB = str(Path(sys.executable).parent / "plughub")
VERSION = "2025-11-25"


class Old:
    """Says `asked` on the GET stream, and answers `tools/list` by a stream that breaks off when told to."""

    def __init__(self) -> None:
        self.breaks = False
        self.session = "session-1"
        self.gone = asyncio.Event()

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "DELETE":
            self.gone.set()
            return reply(204)
        if seen.method == "GET":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            asked = b'id: 7\ndata: {"jsonrpc":"2.0","id":"s1",\ndata: "method":"roots/list"}\n\n'
            writer.write(chunk(asked))
            await writer.drain()
            await self.gone.wait()
            return None
        message = seen.json
        if message.get("method") == "initialize":
            result = {"protocolVersion": VERSION, "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers={"Mcp-Session-Id": self.session})
        if seen.header("mcp-session-id") not in (None, self.session):
            error = {"code": -32001, "message": "Session not found"}
            return json_reply({"jsonrpc": "2.0", "id": None, "error": error}, 404)
        if "id" not in message or "method" not in message:
            return reply(202)
        if message["method"] == "nothing":
            return reply(500, b"<html>", "text/html")
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
        answer = [] if self.breaks else [{"jsonrpc": "2.0", "id": message["id"], "result": {"tools": []}}]
        return sse(note, *answer)


class Talk:
    """A client by hand."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def say(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(await self.process.stdout.readline())

    async def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        assert await self.process.stdout.read() == b""
        return await self.process.wait()


@asynccontextmanager
async def talking(server: HttpServer) -> AsyncIterator[Talk]:
    pipe = asyncio.subprocess.PIPE
    words = ("connect", "--hub", server.url, "--key", "some-key")
    process = await asyncio.create_subprocess_exec(PLUGHUB, *words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    try:
        with anyio.fail_after(30):
            yield Talk(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.requirement("cli.connect")
async def test_a_session_is_kept_listened_to_and_ended() -> None:
    old = Old()
    async with HttpServer(old) as server, talking(server) as talk:
        talk.say({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": VERSION}})
        assert (await talk.hear())["result"]["protocolVersion"] == VERSION
        talk.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert await talk.hear() == {"jsonrpc": "2.0", "id": "s1", "method": "roots/list"}
        talk.say({"jsonrpc": "2.0", "id": "s1", "result": {"roots": []}})
        talk.say({"jsonrpc": "2.0", "id": 0, "method": "tools/list"})
        assert (await talk.hear())["method"] == "notifications/progress"
        assert (await talk.hear())["id"] == 0
        assert await talk.end() == 0
        assert old.gone.is_set()
        first, *later = server.seen
        assert first.header("mcp-session-id") is None and first.header("authorization") == "Bearer some-key"
        assert [seen.method for seen in later] == ["POST", "GET", "POST", "POST", "DELETE"]
        assert {seen.header("mcp-session-id") for seen in later} == {"session-1"}
        assert {seen.header("mcp-protocol-version") for seen in later} == {VERSION}
        assert later[2].body == b'{"jsonrpc": "2.0", "id": "s1", "result": {"roots": []}}', "the very bytes"


@pytest.mark.requirement("cli.connect")
async def test_an_answer_that_never_comes_is_an_error_with_the_request_s_id() -> None:
    old = Old()
    old.breaks = True
    async with HttpServer(old) as server, talking(server) as talk:
        talk.say({"jsonrpc": "2.0", "id": "a", "method": "tools/list"})
        assert (await talk.hear())["method"] == "notifications/progress"
        broken = await talk.hear()
        assert broken["id"] == "a" and "broke off" in broken["error"]["message"]
        talk.say({"jsonrpc": "2.0", "id": "b", "method": "nothing"})
        strange = await talk.hear()
        assert strange["id"] == "b" and "HTTP status 500" in strange["error"]["message"]
        assert await talk.end() == 0


@pytest.mark.requirement("cli.connect")
async def test_a_session_that_the_hub_has_forgotten_is_begun_anew_without_the_client() -> None:
    old = Old()
    async with HttpServer(old) as server, talking(server) as talk:
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": VERSION}}
        talk.say(hello)
        await talk.hear()
        old.session = "session-2"
        for id_ in (1, 2):
            talk.say({"jsonrpc": "2.0", "id": id_, "method": "tools/list"})
            while (heard := await talk.hear()).get("id") != id_:
                pass  # progress, and what the server asks of its own accord
            assert "result" in heard
        assert [seen.json for seen in server.seen if b'initialize"' in seen.body] == [hello, hello]
        assert await talk.end() == 0


class Marked:
    """A server of 2026-07-28 with one tool whose `region` goes into a header, on the second page of its list."""

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        message = seen.json
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "tools/list":
            schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
            second = message["params"].get("cursor") == "2"
            result = {"tools": [{"name": "where", "inputSchema": schema}]} if second else {"tools": [], "nextCursor": "2"}
            return json_reply({**answer, "result": result})
        if seen.header("mcp-param-region") != "=?base64?w6k=?=":
            return json_reply({**answer, "error": {"code": -32020, "message": "Mcp-Param-Region"}}, 400)
        return json_reply({**answer, "result": {"content": []}})


def modern(id_: int, method: str, **params: Any) -> Any:
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in (("protocolVersion", "2026-07-28"), ("clientCapabilities", {}))}
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": {**params, "_meta": {**meta, "progressToken": 1}}}


@pytest.mark.requirement("cli.connect", "mcp.param-headers-sent")
@pytest.mark.parametrize("listed", [True, False], ids=["listed before", "called at once"])
async def test_arguments_that_a_schema_marks_go_into_headers(listed: bool) -> None:
    async with HttpServer(Marked()) as server, talking(server) as talk:
        for id_, params in ((1, {}), (2, {"cursor": "2"})) if listed else ():
            talk.say(modern(id_, "tools/list", **params))
            await talk.hear()
        for id_ in (3, 4):
            talk.say(modern(id_, "tools/call", name="where", arguments={"region": "\u00e9"}))
            assert await talk.hear() == {"jsonrpc": "2.0", "id": id_, "result": {"content": []}}
        talk.say(modern(5, "tools/call", name="where", arguments={"region": "e"}))
        assert (await talk.hear())["error"]["code"] == -32020, "the server finds nothing that a second try would mend"
        calls = [seen.json["id"] for seen in server.seen if seen.json["method"] == "tools/call"]
        assert calls == ([3, 4, 5, 5] if listed else [3, 3, 4, 5, 5])
        assert await talk.end() == 0
