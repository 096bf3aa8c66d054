"""Servers of the simulation: each puts the mark of its space and of the call into whatever it says, and misbehaves when asked to."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.http_servers import SSE_HEAD, HttpServer, Seen, chunk, error_reply, reply
from tests.serving import FakeMcp, Json
from tests.simulation.loop import VirtualLoop

TOOLS = ("alpha", "beta", "gamma")
# What a server may be asked to do with a call, by the argument `do`. The first ones end well.
GOOD = ("answer", "tool_error", "late", "progress", "stray", "echo_id")
BAD = ("rpc_error", "hang", "die", "wrong_id", "progress_die", "status", "garbage", "half", "double", "forget")
DEEDS = GOOD + BAD
# The tool that asks its client something before it answers; called by clients that declared that they can be asked.
ASKS = "asks"


@dataclass
class Upstream(FakeMcp):
    """`mark` is in every answer. `ran` counts the calls that were run, by their token."""

    mark: str = ""
    loop: VirtualLoop | None = None
    sessions: bool = False
    down: bool = False
    ran: Counter[str] = field(default_factory=Counter)
    seen_ids: list[int] = field(default_factory=list)
    waiting: dict[str, asyncio.Future[Json]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema = {"type": "object"}
        self.tools = [{"name": name, "description": f"says {self.mark}", "inputSchema": schema} for name in TOOLS]
        self.info = {"name": self.mark, "version": "1"}
        self.session = 1
        self.server = HttpServer(self)

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method != "POST":  # the end of a session
            return reply(200)
        if "method" not in seen.json:
            return self._answered(seen.json)
        if not self.sessions or self.era == "modern" or "id" not in seen.json:
            return await super().__call__(seen, writer)
        if seen.json["method"] == "initialize":
            answer = await super().__call__(seen, writer)
            assert answer is not None
            return answer.replace(b"\r\n", b"\r\nMcp-Session-Id: s-%d\r\n" % self.session, 1)
        if seen.json["method"] != "server/discover" and seen.header("mcp-session-id") != f"s-{self.session}":
            return reply(404)
        return await super().__call__(seen, writer)

    async def _call(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        params = seen.json["params"]
        if params["name"] == ASKS:
            return await self._ask(seen, writer, params)
        token, do = params["arguments"]["token"], params["arguments"]["do"]
        self.ran[token] += 1
        self.seen_ids.append(seen.json["id"])
        deed = getattr(self, f"_do_{do}", None)
        if deed is not None:
            done: bytes | None = await deed(seen, writer, token)
            return done
        return self._said(seen, token)

    def _answered(self, message: Json) -> bytes:
        waiting = self.waiting.pop(message["id"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        return reply(202)

    async def _ask(self, seen: Seen, writer: asyncio.StreamWriter, params: Json) -> bytes | None:
        """Ask for the call's own token; the result is what was answered."""
        token = params["arguments"]["token"]
        question = {"message": f"{self.mark} {token}", "requestedSchema": {"type": "object"}}
        if self.era == "modern":
            responses = params.get("inputResponses")
            if responses is not None:
                return self._said(seen, responses["k"]["content"]["token"])
            asked = {"k": {"method": "elicitation/create", "params": question}}
            return self._reply(seen, {"resultType": "input_required", "inputRequests": asked, "requestState": f"{self.mark} {token}"})
        waiting = self.waiting[token] = asyncio.get_running_loop().create_future()
        writer.write(SSE_HEAD)
        request = {"jsonrpc": "2.0", "id": token, "method": "elicitation/create", "params": question}
        writer.write(chunk(b"event: message\ndata: " + json.dumps(request).encode() + b"\n\n"))
        try:
            answer = await waiting
        finally:
            self.waiting.pop(token, None)
        writer.write(
            chunk(self._message(seen.json["id"], answer["result"]["content"]["token"] if "result" in answer else "none")) + chunk(b"")
        )
        return None

    def _said(self, seen: Seen, token: str, **more: object) -> bytes:
        return self._reply(seen, self.result(token, **more))

    def result(self, token: str, **more: object) -> Json:
        """What a call with this token is answered."""
        modern = {"resultType": "complete"} if self.era == "modern" else {}
        return {"content": [{"type": "text", "text": f"{self.mark} {token}"}], **modern, **more}

    def _message(self, id_: object, token: str) -> bytes:
        return b"event: message\ndata: " + json.dumps({"jsonrpc": "2.0", "id": id_, "result": self.result(token)}).encode() + b"\n\n"

    async def _do_tool_error(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        return self._said(seen, token, isError=True)

    async def _do_late(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        assert self.loop is not None
        await self.loop.pass_time(self.loop.rng.choice((0.05, 0.9, 1.5, 4.0, 20.0)))
        return self._said(seen, token)

    async def _do_progress(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        await self._tell(seen, writer, token, 4)
        writer.write(chunk(self._message(seen.json["id"], token)) + chunk(b""))

    async def _do_progress_die(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        await self._tell(seen, writer, token, 2)
        writer.close()

    async def _tell(self, seen: Seen, writer: asyncio.StreamWriter, token: str, steps: int) -> None:
        assert self.loop is not None
        writer.write(SSE_HEAD)
        params = {"progressToken": seen.json["params"].get("_meta", {}).get("progressToken"), "message": f"{self.mark} {token}"}
        for step in range(steps):
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {**params, "progress": step}}
            writer.write(chunk(b"event: message\ndata: " + json.dumps(note).encode() + b"\n\n"))
            await self.loop.pass_time(self.loop.rng.choice((0.001, 0.3, 2.0)))

    async def _do_stray(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        """Answers of other calls first: none of them may reach a client."""
        strays = b"".join(self._message(id_, "TOKEN-0") for id_ in self.seen_ids[-4:] if id_ != seen.json["id"])
        writer.write(SSE_HEAD + chunk(strays + self._message(seen.json["id"], token)) + chunk(b""))

    async def _do_rpc_error(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        return error_reply(seen, -32000, f"{self.mark} {token}")

    async def _do_hang(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        await asyncio.Event().wait()

    async def _do_die(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        writer.close()

    async def _do_wrong_id(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        return self._reply(Seen("", "", [], json.dumps({"id": seen.json["id"] - 1}).encode(), 0), self.result(token))

    async def _do_status(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        return reply(500, f"{self.mark} {token}".encode(), "text/plain")

    async def _do_garbage(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        return reply(200, f"{{{self.mark} {token}".encode())

    async def _do_half(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> None:
        writer.write(self._said(seen, token)[:-5])
        writer.close()

    async def _do_double(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        """A second answer that nobody asked for: it must not become the next call's."""
        return self._said(seen, token) + self._reply(
            Seen("", "", [], json.dumps({"id": seen.json["id"] + 1}).encode(), 0), {"stray": "TOKEN-0"}
        )

    async def _do_forget(self, seen: Seen, writer: asyncio.StreamWriter, token: str) -> bytes:
        """Answers, then loses every session."""
        self.session += 1
        return self._said(seen, token)
