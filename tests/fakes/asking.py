"""Servers that ask their client in the middle of a call, as the arguments of the call say; over HTTP of either era, STDIO and HTTP+SSE.

The tool `ask` takes `rounds`, each a list of [method, params] that are asked at once, and `mark`, which comes back with the answers.
`end`: what comes after the rounds instead of a result: `hang`, `die`, `pages` (the error -32042), `late` (a question after the result).
`withdraw`: the questions of the first round are cancelled by the server. `hasty`: it does not wait for the answers.
Other tools: `tell` sends a log message and a progress step, `report` tells what the server has heard. The list of tools depends on
what the client declared, as that of the reference server does.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_servers import INFO, SSE_HEAD, Seen, chunk, error_reply, json_reply, reply
from tests.fakes.sse_servers import SseMcp
from tests.fakes.sse_servers import message as sse_message

Json = dict[str, Any]
META = "io.modelcontextprotocol/"
CAPABILITIES = {"tools": {}, "logging": {}, "prompts": {}, "resources": {}}
PAGES = {
    "code": -32042,
    "message": "go there first",
    "data": {"elicitations": [{"mode": "url", "elicitationId": "e1", "url": "https://example.com/a", "message": "Sign in"}]},
}


def tools_for(capabilities: Json) -> list[Json]:
    schema = {"type": "object"}
    return [{"name": name, "inputSchema": schema} for name in ("ask", "tell", "report", *(f"only-{each}" for each in sorted(capabilities)))]


def said(mark: str, answers: list[Any]) -> Json:
    return {"content": [{"type": "text", "text": json.dumps({"mark": mark, "answers": answers})}]}


@dataclass
class Client:
    """One connection of a client, as a server of the handshake revisions keeps it. `send` writes a message to it."""

    send: Callable[[Json], None]
    capabilities: Json = field(default_factory=dict)
    level: str | None = None
    waiting: dict[Any, asyncio.Future[Json]] = field(default_factory=dict)
    answers: list[Json] = field(default_factory=list)
    cancelled: list[Any] = field(default_factory=list)
    asked: int = 0
    calls: int = 0
    most_at_once: int = 0

    def hear(self, message: Json) -> None:
        """A response or a notification."""
        if "method" not in message:
            self.answers.append(message)
            future = self.waiting.pop(message["id"], None)
            if future is not None and not future.done():
                future.set_result(message)
        elif message["method"] == "notifications/cancelled":
            self.cancelled.append(message["params"]["requestId"])

    async def ask(self, questions: list[list[Any]], send: Callable[[Json], None], *, hasty: bool, withdraw: bool) -> list[Any]:
        ids = []
        for method, params in questions:
            self.asked += 1
            ids.append(f"s-{self.asked}")
            self.waiting[ids[-1]] = asyncio.get_running_loop().create_future()
            send({"jsonrpc": "2.0", "id": ids[-1], "method": method, "params": params})
        futures = [self.waiting[id_] for id_ in ids]
        if hasty:
            return []
        if withdraw:
            for id_ in ids:
                send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})
            return ["withdrawn"]
        return [each.get("result", each.get("error")) for each in await asyncio.gather(*futures)]

    async def run(self, arguments: Json, send: Callable[[Json], None]) -> Json:
        """The members of the response to a call of `ask`."""
        self.calls += 1
        self.most_at_once = max(self.most_at_once, self.calls)
        answers: list[Any] = []
        try:
            for questions in arguments.get("rounds", ()):
                flags = {name: bool(arguments.get(name)) for name in ("hasty", "withdraw")}
                answers += await self.ask(questions, send, **flags)
            if arguments.get("end") == "hang":
                await asyncio.Event().wait()
        finally:
            self.calls -= 1
        return {"error": PAGES} if arguments.get("end") == "pages" else {"result": said(arguments.get("mark", ""), answers)}

    def respond(self, message: Json) -> Json:
        """To all but calls."""
        method, params = message["method"], message.get("params", {})
        if method == "initialize":
            self.capabilities = params["capabilities"]
            return {"result": {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": INFO}}
        if method == "tools/list":
            return {"result": {"tools": tools_for(self.capabilities)}}
        if method == "logging/setLevel":
            self.level = params["level"]
            return {"result": {}}
        return {"error": {"code": -32601, "message": "Method not found"}}

    def report(self) -> Json:
        found = {"answers": self.answers, "cancelled": self.cancelled, "capabilities": self.capabilities, "level": self.level}
        return {"content": [{"type": "text", "text": json.dumps(found)}]}


class AskingHttp:
    """Behind `HttpServer`. `clients`: by session, those that have ended too; `modern`: the requests of a 2026-07-28 one.

    With `own_streams` a legacy one asks on the stream of GET, not on that of the call.
    """

    def __init__(self, era: str = "legacy") -> None:
        self.era = era
        self.clients: dict[str, Client] = {}
        self.live: set[str] = set()
        self.modern: list[Seen] = []
        self.own_streams = False

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method != "POST":
            if seen.method == "GET":
                return await self._own_stream(seen, writer)
            self.live.discard(seen.header("mcp-session-id") or "")
            return reply(200)
        message = seen.json
        if self.era == "modern":
            return self._modern(seen, message) if "id" in message else reply(202)
        if message.get("method") == "initialize":
            return self._initialize(seen, message)
        client = self.clients.get(seen.header("mcp-session-id") or "")
        if client is None:
            return error_reply(seen, -32601, "Method not found", 400) if "id" in message else reply(400)
        if "id" not in message or "method" not in message:
            client.hear(message)
            return reply(202)
        return await self._legacy(client, seen, message, writer)

    async def _own_stream(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        client = self.clients.get(seen.header("mcp-session-id") or "")
        if client is None or not self.own_streams:
            return reply(405)
        writer.write(SSE_HEAD)
        client.send = lambda out: writer.write(chunk(b"event: message\ndata: " + json.dumps(out).encode() + b"\n\n"))
        await asyncio.Event().wait()
        return None

    def _initialize(self, seen: Seen, message: Json) -> bytes:
        session = f"session-{len(self.clients) + 1}"
        self.clients[session] = Client(lambda _: None, message["params"]["capabilities"])
        self.live.add(session)
        found = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": INFO}
        return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": found}, headers={"Mcp-Session-Id": session})

    async def _legacy(self, client: Client, seen: Seen, message: Json, writer: asyncio.StreamWriter) -> bytes | None:
        method, params = message["method"], message.get("params", {})
        if method == "tools/list":
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools_for(client.capabilities)}})
        if method == "logging/setLevel":
            client.level = params["level"]
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        if method not in ("tools/call", "prompts/get", "resources/read"):
            return error_reply(seen, -32601, "Method not found")

        def send(out: Json) -> None:
            writer.write(chunk(b"event: message\ndata: " + json.dumps(out).encode() + b"\n\n"))

        writer.write(SSE_HEAD)
        outcome = await answer_call(client, params, client.send if self.own_streams else send)
        if outcome is None:
            writer.transport.abort()
            return None
        send({"jsonrpc": "2.0", "id": message["id"], **outcome})
        writer.write(chunk(b""))
        return None

    def _modern(self, seen: Seen, message: Json) -> bytes:
        params = message.get("params", {})
        meta = params.get("_meta", {})
        if META + "protocolVersion" not in meta:
            return error_reply(seen, -32022, "modern only", 400)
        if message["method"] == "server/discover":
            own = {"ttlMs": 0, "cacheScope": "private", "_meta": {META + "serverInfo": INFO}}
            found = {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES, "resultType": "complete", **own}
        elif message["method"] == "tools/list":
            found = {"tools": tools_for(meta[META + "clientCapabilities"]), "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        else:
            self.modern.append(seen)
            found = {**said("", []), "resultType": "complete"} if params.get("name") == "report" else self._round(params)
        return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": found})

    def _round(self, params: Json) -> Json:
        """Stateless: what was answered in earlier rounds is in the state, which must come back as it was."""
        arguments = params.get("arguments", {})
        rounds, mark, answers = arguments.get("rounds", []), arguments.get("mark", ""), []
        if "requestState" in params:
            text = params["requestState"]
            assert text.startswith("server state: "), text
            answers = json.loads(text.removeprefix("server state: "))
            given = params["inputResponses"]
            answers += [given[f"k{number}"] for number in range(len(rounds[min(params_round(answers, rounds), len(rounds) - 1)]))]
        number = params_round(answers, rounds)
        if number < len(rounds) or arguments.get("end") == "endless":
            asked = rounds[number % len(rounds)]
            requests = {f"k{place}": {"method": method, "params": each} for place, (method, each) in enumerate(asked)}
            return {"resultType": "input_required", "inputRequests": requests, "requestState": "server state: " + json.dumps(answers)}
        return {**said(mark, answers), "resultType": "complete"}


def params_round(answers: list[Any], rounds: list[Any]) -> int:
    """Which round comes after so many answers."""
    count = 0
    for number, questions in enumerate(rounds):
        if len(answers) < count + len(questions):
            return number
        count += len(questions)
    return len(rounds)


async def answer_call(client: Client, params: Json, send: Callable[[Json], None]) -> Json | None:
    """What a call comes to; None: the server dies."""
    arguments, name = params.get("arguments", {}), params.get("name") or params.get("uri", "")
    if name == "report":
        return {"result": client.report()}
    if name == "tell":
        token = params.get("_meta", {}).get("progressToken")
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": f"at {client.level}"}})
        if token is not None:
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    for step in range(arguments.get("flood", 0)):
        token = params.get("_meta", {}).get("progressToken")
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
    found = await client.run(arguments, send)
    return None if arguments.get("end") == "die" else found


class AskingSse(SseMcp):
    """Of the older transport: one client a stream, and only the newest is spoken to."""

    def __init__(self) -> None:
        super().__init__(version="2025-06-18", tools=dict.fromkeys(("ask", "tell", "report"), self._call))
        self.client = Client(self._send)

    def _send(self, out: Json) -> None:
        self.write(sse_message(**{name: value for name, value in out.items() if name != "jsonrpc"}))

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST":
            said_by_client = seen.json
            if said_by_client.get("method") == "initialize":
                self.client = Client(self._send, said_by_client["params"]["capabilities"])
            if "method" not in said_by_client or "id" not in said_by_client:
                self.client.hear(said_by_client)
            if said_by_client.get("method") == "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]
                self._send({"id": said_by_client["id"], "result": {"tools": tools}})
                return self.taken
        return await super().__call__(seen, writer)

    async def _call(self, server: SseMcp, id_: Any, arguments: Json) -> None:
        self._running = asyncio.create_task(self._answer(id_, arguments))

    async def _answer(self, id_: Any, arguments: Json) -> None:
        outcome = {"result": self.client.report()} if "report" in arguments else await self.client.run(arguments, self._send)
        self._send({"id": id_, **outcome})


async def stdio() -> None:
    """The same over the pipes: `python -m tests.fakes.asking`."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def send(*out: Json) -> None:
        sys.stdout.write("".join(json.dumps(each) + "\n" for each in out))
        sys.stdout.flush()

    client, running = Client(send), set()

    async def answer(message: Json) -> None:
        outcome = await answer_call(client, message["params"], send)
        if outcome is None:
            os._exit(3)
        late = message["params"].get("arguments", {}).get("end") == "late"
        more = [{"jsonrpc": "2.0", "id": "late", "method": "elicitation/create", "params": {"message": "late"}}] if late else []
        send({"jsonrpc": "2.0", "id": message["id"], **outcome}, *more)

    while line := await reader.readline():
        message = json.loads(line)
        method = message.get("method")
        if method is None or "id" not in message:
            client.hear(message)
            if method == "notifications/initialized" and "eager" in sys.argv and "roots" in client.capabilities:
                send({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"})
        elif method in ("tools/call", "prompts/get", "resources/read"):
            task = asyncio.create_task(answer(message))
            running.add(task)
            task.add_done_callback(running.discard)
        else:
            send({"jsonrpc": "2.0", "id": message["id"], **client.respond(message)})


if __name__ == "__main__":
    asyncio.run(stdio())
