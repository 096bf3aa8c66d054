"""The whole hub in the test's own loop: built as `plughub serve` builds it, driven through ASGI, without a socket of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
import structlog
from starlette.types import Message, Scope

from plughub.app import Application, create_app
from plughub.data_dir import Secrets
from plughub.db.engine import Database
from plughub.identity.people import insert_membership, insert_person
from plughub.identity.roles import Role
from plughub.identity.service import Organization, create_organization, get_organization
from plughub.identity.sessions import Visit, open_session
from plughub.keys.schemas import KeyCreate
from plughub.keys.service import Peppers, create_key
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.settings import Settings
from tests.conftest import FakeClock, empty
from tests.fakes.http_servers import SSE_HEAD, HttpServer, Seen, chunk, error_reply, json_reply, reply

BASE = "http://localhost"
# Of everybody who is made for a test.
PASSWORD = "correct horse battery"
Json = dict[str, Any]
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"


class Lifespan:
    """The lifespan protocol of ASGI, driven by hand: enter waits for the start, leave for the stop."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(self._run(scope))
        await self._step("lifespan.startup")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._step("lifespan.shutdown")
        await self._task

    async def _run(self, scope: Scope) -> None:
        await self._app(scope, self._to_app.get, self._from_app.put)

    async def _step(self, kind: str) -> None:
        await self._to_app.put({"type": kind})
        answering = asyncio.ensure_future(self._from_app.get())
        with anyio.fail_after(20):
            await asyncio.wait({answering, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            self._task.result()
        answer = answering.result()
        assert answer["type"] == f"{kind}.complete", answer


@dataclass(frozen=True)
class Browser:
    """Somebody who is logged in: given in the place of a key."""

    user_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": f"plughub={self.token}", "Origin": BASE}


def shown(key: str | Browser) -> dict[str, str]:
    """The headers of whoever asks."""
    if isinstance(key, Browser):
        return key.headers
    return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass
class Served:
    """A running hub. `key` is the operator's; `get`, `post` and so on speak with it unless told otherwise."""

    app: Application
    clock: FakeClock
    secrets: Secrets
    key: str
    client: httpx2.AsyncClient
    password_hash: str | None = None

    @property
    def database(self) -> Database:
        return self.app.hub.database

    @property
    def demo_id(self) -> str:
        assert self.app.first is not None and self.app.first.demo_id is not None
        return self.app.first.demo_id

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | Browser | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One request as the operator, or with another key ("" = none), or from a browser. `body`: bytes as they are, else as JSON."""
        key = self.key if key is None else key
        given = {
            **shown(key),
            **({"Content-Type": "application/json"} if body is not None else {}),
        }
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.client.cookies.clear()  # whoever logs in is one of many here
        return await self.client.request(method, path, content=content, headers={**given, **(headers or {})})

    async def settled(self) -> None:
        """Wait until the demo server is connected and its tools are counted."""
        await self.call("GET", f"/api/servers/{self.demo_id}/tools")
        with anyio.fail_after(5):
            while (await self.call("GET", f"/api/servers/{self.demo_id}")).json()["tools_count"] is None:
                pass

    async def organization(self, name: str, tier: str = "enterprise", **given: Any) -> Organization:
        """Another organisation."""
        async with self.database.unit_of_work() as uow:
            return await create_organization(uow, name, tier, **given)

    async def operator(self) -> Organization:
        """The operator's organisation."""
        entry = self.app.hub.keys.find(self.key) or await self.app.hub.keys.resolve(self.key)
        assert entry is not None
        async with self.database.read() as connection:
            return await get_organization(connection, entry.caller.organization_id)

    async def browser(self, organization: Organization, role: Role = "owner", email: str | None = None) -> Browser:
        """A person of the organisation who is logged in."""
        if self.password_hash is None:
            self.password_hash = await self.app.hub.accounts.passwords.hash(PASSWORD)
        async with self.database.unit_of_work() as uow:
            made = await insert_person(uow, email or f"{new_id()}@example.com", "Ada", self.password_hash, verified=True)
            await insert_membership(uow, organization.id, made.id, role)
            _, token = await open_session(uow, made.id, organization.id, Visit("127.0.0.1", "test"), 86_400)
        return Browser(made.id, token)

    async def key_of(self, organization: Organization, environment: str = "live", **given: Any) -> str:
        """A new key's secret; with all scopes unless told otherwise."""
        body = KeyCreate(**{"name": "test", "scopes": ["admin"], **given})
        async with self.database.unit_of_work() as uow:
            _, secret = await create_key(uow, organization.founder(environment), body, self.secrets.peppers)  # type: ignore[arg-type]
        return secret

    async def register(self, name: str, url: str, *, key: str | None = None, **config: Any) -> Json:
        """A Streamable HTTP server."""
        body = {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": url, **config}}
        answer = await self.call("POST", "/api/servers", body, key=key)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made

    async def rpc(
        self,
        method: str,
        params: Json | None = None,
        *,
        path: str = "/mcp",
        id_: Any = 1,
        modern: bool = False,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """One JSON-RPC request in either era."""
        given = {"Accept": "application/json, text/event-stream", **(headers or {})}
        params = dict(params or {})
        if modern:
            meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, META + "clientInfo": {"name": "t", "version": "1"}}
            params["_meta"] = {**meta, **params.get("_meta", {})}
            given = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **given}
            if isinstance(params.get("name"), str):
                given.setdefault("Mcp-Name", params["name"])
        return await self.call("POST", path, {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}, key=key, headers=given)


@asynccontextmanager
async def serving(
    url: str, data_dir: Path, *, clock: FakeClock | None = None, secrets: Secrets | None = None, **given: Any
) -> AsyncIterator[Served]:
    """Run a hub on the database of `url`; a PostgreSQL one is emptied first unless `secrets` of an earlier run are given."""
    clock = clock or FakeClock()
    if secrets is None:
        secrets = Secrets(Peppers({1: os.urandom(32)}), Sealer({1: os.urandom(32)}))
        if not url.startswith("sqlite"):
            database = Database(url, clock)
            await empty(database)
            await database.aclose()
    fast = {"address_limit_per_minute": 1_000_000, "credential_attempts": 1_000_000, "stop_grace_s": 1, "event_flush_ms": 10}
    fast["probe_interval_s"] = 0  # time stands still here: tests go round themselves
    settings = Settings(data_dir=data_dir, database_url=url, **{**fast, **given})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    app = create_app(settings, secrets, clock)
    async with Lifespan(app.asgi):
        assert app.first is not None
        transport = httpx2.ASGITransport(app=app.asgi, raise_app_exceptions=True)  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url=BASE, timeout=20) as client:
            yield Served(app, clock, secrets, app.first.operator_key or "", client)


@dataclass
class RawAnswer:
    """What an ASGI application sent, message by message."""

    messages: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has been sent satisfies the condition."""
        with anyio.fail_after(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class RawCall:
    """A request below HTTP: the test decides which pieces of the body come when, and when the client leaves."""

    def __init__(self, served: Served, method: str, path: str, headers: Mapping[str, str] | None = None, key: str | None = None) -> None:
        self.answer = RawAnswer()
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        key = served.key if key is None else key
        given = {"host": "localhost", **({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
            "client": ("127.0.0.1", 40000),
            "server": ("localhost", 80),
            "state": {},
        }
        self._app = served.app.asgi
        self.sends: Callable[[Message], Awaitable[None]] = self._send

    def piece(self, body: bytes, *, more: bool = False) -> Self:
        """A part of the body comes in."""
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> None:
        """The client closes the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> RawAnswer:
        """The whole answer."""
        with anyio.fail_after(20):
            await self._app(self.scope, self._incoming.get, lambda message: self.sends(message))
        return self.answer

    def start(self) -> asyncio.Task[RawAnswer]:
        """Run in the background."""
        return asyncio.create_task(self.run())

    async def _send(self, message: Message) -> None:
        self.answer.messages.append(message)
        self.answer.changed.set()


def text_result(text: str, **more: Any) -> Json:
    return {"content": [{"type": "text", "text": text}], **more}


@dataclass
class FakeMcp:
    """What a server behind `HttpServer` says. `tools`: as in tools/list. `results`: a tool's result, JSON error or raw JSON bytes;
    `held`: tools that wait for their event before they answer; `progress`: tools that report so often before."""

    era: str = "legacy"
    tools: list[Json] = field(default_factory=lambda: [{"name": "echo", "description": "d", "inputSchema": {"type": "object"}}])
    results: dict[str, Any] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)
    list_result: bytes | None = None
    # What it answers to other methods: a result, or an error object; and the capabilities that it announces.
    answers: dict[str, Json] = field(default_factory=dict)
    capabilities: Json = field(default_factory=lambda: {"tools": {}})
    asked: list[Json] = field(default_factory=list)
    list_more: Json = field(default_factory=dict)
    calls: list[Seen] = field(default_factory=list)
    info: Json = field(default_factory=lambda: {"name": "fake", "version": "1", "x-own": [1, None]})
    # With `tells`, the streams on which it says something of its own accord: how each was asked for, and where it is written.
    tells: bool = False
    streams: list[tuple[Seen, asyncio.StreamWriter]] = field(default_factory=list)

    def tell(self, method: str, **params: Any) -> None:
        """Say something on every stream that is open."""
        for seen, writer in self.streams:
            if seen.method == "POST":
                params["_meta"] = {META + "subscriptionId": seen.json["id"], "own/key": 1}
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            writer.write(chunk(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"))

    async def _stream(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD)
        self.streams.append((seen, writer))
        if seen.method == "POST":
            self.tell("notifications/subscriptions/acknowledged", notifications=seen.json["params"]["notifications"])
        try:
            await asyncio.Event().wait()
        finally:
            self.streams.remove((seen, writer))

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if self.tells and seen.method == "GET" and self.era == "legacy":
            return await self._stream(seen, writer)
        message = seen.json if seen.method == "POST" else {}
        if seen.method != "POST" or "id" not in message:
            return reply(202 if seen.method == "POST" else 405)
        method = message["method"]
        modern = META + "protocolVersion" in message.get("params", {}).get("_meta", {})
        if modern != (self.era == "modern") and method != "initialize":
            return error_reply(seen, -32601 if self.era == "legacy" else -32022, "not here", 400)
        if method == "initialize":
            if self.era == "modern":
                return error_reply(seen, -32022, "modern only", 400)
            found = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities, "serverInfo": self.info, "instructions": "be kind"}
            return self._reply(seen, found)
        if method == "server/discover":
            found = {"supportedVersions": [MODERN], "capabilities": self.capabilities, "instructions": "be kind", "ttlMs": 0}
            return self._reply(
                seen, {**found, "cacheScope": "private", "resultType": "complete", "_meta": {META + "serverInfo": self.info}}
            )
        if method == "tools/list":
            if self.list_result is not None:
                return self._reply(seen, self.list_result)
            more = {"resultType": "complete", "ttlMs": 5000, "cacheScope": "public"} if self.era == "modern" else {}
            return self._reply(seen, {"tools": self.tools, **more, **self.list_more})
        if method == "tools/call":
            return await self._call(seen, writer)
        return await self._other(seen, method, writer)

    async def _other(self, seen: Seen, method: str, writer: asyncio.StreamWriter) -> bytes | None:
        self.asked.append(seen.json)
        if self.tells and method == "subscriptions/listen":
            return await self._stream(seen, writer)
        answer = self.answers.get(method)
        if answer is None:
            return error_reply(seen, -32601, "Method not found")
        if "code" in answer:
            return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "error": answer})
        return self._reply(seen, answer)

    async def _call(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        self.calls.append(seen)
        name = seen.json["params"]["name"]
        steps = self.progress.get(name, 0)
        token = seen.json["params"].get("_meta", {}).get("progressToken")
        if steps:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for step in range(1, steps + 1):
                note = {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": step, "x": "y"},
                }
                writer.write(chunk(b"event: message\ndata: " + json.dumps(note).encode() + b"\n\n"))
            await writer.drain()
        if name in self.held:
            await self.held[name].wait()
        value = self.results.get(name, text_result("ok"))
        if steps:
            body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (json.dumps(seen.json["id"]).encode(), _raw(value))
            writer.write(chunk(b"event: message\ndata: " + body + b"\n\n") + chunk(b""))
            await writer.drain()
            return None
        if isinstance(value, dict) and "code" in value and "message" in value:
            return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "error": value})
        return self._reply(seen, value)

    def _reply(self, seen: Seen, result: Any) -> bytes:
        return reply(200, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (json.dumps(seen.json["id"]).encode(), _raw(result)))


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@asynccontextmanager
async def upstream(served: Served, fake: FakeMcp, name: str = "fake", **config: Any) -> AsyncIterator[Json]:
    """The fake server, registered; gone again afterwards."""
    async with HttpServer(fake) as server:
        made = await served.register(name, server.url, **config)
        try:
            yield made
        finally:
            await served.call("DELETE", f"/api/servers/{made['uuid']}")


def events_of(body: bytes) -> list[tuple[str, Any]]:
    """The frames of an event stream; comments, and events that only say how to take the stream up, are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
