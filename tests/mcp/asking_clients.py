"""Clients of both eras that can be asked something, and the servers that ask them, registered."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.lowlevel import checkpoint

from tests.fakes.asking import AskingHttp, AskingSse
from tests.fakes.http_servers import HttpServer
from tests.serving import META, Json, RawCall, Served, events_of

ROOT = Path(__file__).resolve().parents[2]
ALL: Json = {"sampling": {}, "elicitation": {}, "roots": {}}
FORM = ["elicitation/create", {"message": "Your name?", "requestedSchema": {"type": "object"}}]
PAGE = ["elicitation/create", {"mode": "url", "message": "Go there", "url": "https://example.com/a"}]
SAMPLE = ["sampling/createMessage", {"messages": [], "maxTokens": 5}]
ROOTS = ["roots/list", {}]
# A client's answer to a question: a result, an error object (with `code`), or None: it never answers.
Answers = Callable[[str, Json], Json | None]


def answering(mark: str) -> Answers:
    """Says who it is in whatever it answers."""

    def answer(method: str, params: Json) -> Json:
        if method == "elicitation/create":
            return {"action": "accept", "content": {"name": mark}}
        return {"roots": [{"uri": f"file:///{mark}"}]} if method == "roots/list" else {"role": "assistant", "model": mark}

    return answer


def answers_in(result: Json) -> Json:
    """What the tool `ask` says it was answered."""
    found: Json = json.loads(result["content"][0]["text"])
    return found


class Legacy:
    """A client of 2025-11-25 in a session. `asked` and `told` are what the server sent it."""

    modern = False

    def __init__(self, lite: Served, path: str, session: str, answers: Answers, key: str) -> None:
        self.lite, self.path, self.answers, self.key = lite, path, answers, key
        self.asked: list[tuple[str, Json]] = []
        self.told: list[Json] = []
        self.headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
        self.calls: list[RawCall] = []

    @classmethod
    async def open(cls, lite: Served, path: str, answers: Answers, capabilities: Json | None = None, key: str | None = None) -> "Legacy":
        declared = ALL if capabilities is None else capabilities
        params = {"protocolVersion": "2025-11-25", "capabilities": declared, "clientInfo": {"name": "c", "version": "1"}}
        answer = await lite.rpc("initialize", params, path=path, key=key)
        assert answer.status_code == 200, answer.text
        return cls(lite, path, answer.headers["mcp-session-id"], answers, key or lite.key)

    async def call(self, name: str, arguments: Json, *, id_: Any = 1, method: str = "tools/call", **more: Any) -> Json:
        """The response to a call, its questions answered on the way."""
        raw = self.start(name, arguments, id_=id_, method=method, **more)
        running = raw.start()
        seen: list[Json] = []
        while True:
            await raw.answer.until(lambda: raw.answer.complete or len(events(raw)) > len(seen))
            for message in events(raw)[len(seen) :]:
                seen.append(message)
                if "method" in message and "id" in message:
                    await self._answer(message)
                elif "method" in message:
                    self.told.append(message)
            if raw.answer.complete:
                await running
                found: Json = events(raw)[-1]
                return found

    def start(self, name: str, arguments: Json, *, id_: Any = 1, method: str = "tools/call", **more: Any) -> RawCall:
        """The request alone, not yet running."""
        body = {"jsonrpc": "2.0", "id": id_, "method": method, "params": {"name": name, "arguments": arguments, **more}}
        given = {"accept": "application/json, text/event-stream", "content-type": "application/json", **self.headers}
        raw = RawCall(self.lite, "POST", self.path, given, self.key).piece(json.dumps(body).encode())
        self.calls.append(raw)
        return raw

    async def _answer(self, message: Json) -> None:
        self.asked.append((message["method"], message["params"]))
        answer = self.answers(message["method"], message["params"])
        if answer is not None:
            await self.say({"id": message["id"], ("error" if "code" in answer else "result"): answer})

    async def say(self, message: Json) -> httpx2.Response:
        """A message without an answer."""
        return await self.lite.call("POST", self.path, {"jsonrpc": "2.0", **message}, headers=self.headers, key=self.key)


def events(raw: RawCall) -> list[Json]:
    """The messages that a request was sent so far."""
    if len(raw.answer.messages) < 2:
        return []
    if raw.answer.headers["content-type"] == "application/json":
        return [json.loads(raw.answer.body)]
    whole = raw.answer.body.rpartition(b"\n\n")[0]
    return [message for _, message in events_of(whole)] if whole else []


class Modern:
    """A client of 2026-07-28. `rounds` counts the times that it was asked."""

    modern = True

    def __init__(self, lite: Served, path: str, answers: Answers, capabilities: Json | None = None, key: str | None = None) -> None:
        self.lite, self.path, self.answers, self.key = lite, path, answers, key
        self.capabilities = ALL if capabilities is None else capabilities
        self.asked: list[tuple[str, Json]] = []
        self.rounds = 0

    async def request(self, name: str, arguments: Json, *, method: str = "tools/call", **more: Any) -> httpx2.Response:
        """One request; `more` are members of its params."""
        meta = {META + "clientCapabilities": self.capabilities, **more.pop("meta", {})}
        params = {"name": name, "arguments": arguments, "_meta": meta, **more}
        return await self.lite.rpc(method, params, path=self.path, modern=True, key=self.key)

    async def call(self, name: str, arguments: Json, *, method: str = "tools/call", **more: Any) -> Json:
        """The response to a call, sent again with answers as often as need be."""
        given: Json = dict(more)
        while True:
            answer = await self.request(name, arguments, method=method, **given)
            found: Json = answer.json()
            result = found.get("result", {})
            if result.get("resultType") != "input_required":
                return found
            self.rounds += 1
            assert self.rounds < 50
            given = {**more, **self.reply_to(result)}

    def reply_to(self, result: Json) -> Json:
        """The params that answer a result."""
        responses = {}
        for key, question in result["inputRequests"].items():
            self.asked.append((question["method"], question["params"]))
            answer = self.answers(question["method"], question["params"])
            if answer is not None:
                responses[key] = answer
        return {"inputResponses": responses, **({"requestState": result["requestState"]} if "requestState" in result else {})}


async def client(modern: bool, lite: Served, path: str, answers: Answers, capabilities: Json | None = None) -> Legacy | Modern:
    """A client of either era."""
    return Modern(lite, path, answers, capabilities) if modern else await Legacy.open(lite, path, answers, capabilities)


@asynccontextmanager
async def asking(lite: Served, kind: str, *flags: str, **config: Any) -> AsyncIterator[tuple[Any, Json]]:
    """A server that asks, registered: of `legacy` or `modern` HTTP, `stdio` or `sse`; what is behind it (None for STDIO) and its record."""
    if kind == "stdio":
        env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        body = {"command": sys.executable, "args": ["-m", "tests.fakes.asking", *flags], "env": env, **config}
        async with registered(lite, "STDIO", body) as made:
            yield None, made
        return
    behind: Any = AskingSse() if kind == "sse" else AskingHttp(kind)
    transport = "SSE" if kind == "sse" else "STREAMABLE_HTTP"
    async with HttpServer(behind) as server, registered(lite, transport, {"url": server.url, **config}) as made:
        yield behind, made


@asynccontextmanager
async def registered(lite: Served, transport: str, config: Json) -> AsyncIterator[Json]:
    """A server, gone again afterwards."""
    answer = await lite.call("POST", "/api/servers", {"name": "asking", "type": transport, "config": config})
    assert answer.status_code == 201, answer.text
    try:
        yield answer.json()
    finally:
        await lite.call("DELETE", f"/api/servers/{answer.json()['uuid']}")


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Let the loop turn until the condition holds."""
    with anyio.fail_after(seconds):
        while not condition():
            await checkpoint()


def at_rest(lite: Served) -> bool:
    """Whether nothing waits: no parked request, no call under way, no connection lent."""
    pool = lite.app.hub.pool
    return (
        len(lite.app.hub.parking) == 0
        and pool.snapshot().in_flight == 0
        and not any(s.lending.in_flight for s in pool._supervisors.values())
    )
