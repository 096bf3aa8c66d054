"""The hub of the simulation with its two tenants, what was acknowledged to them, and their clients."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from starlette.types import Message, Scope

from plughub.app import Application, create_app
from plughub.data_dir import Secrets
from plughub.db.audit import Chain
from plughub.db.engine import DATABASE_FILE, Database
from plughub.identity.service import create_organization, ensure_operator
from plughub.keys.schemas import KeyCreate
from plughub.keys.service import Peppers, create_key
from plughub.kit.crypto import Sealer
from plughub.settings import Settings
from tests.serving import Json, Lifespan
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.upstreams import Upstream

# The tiers are different on purpose: A is never limited, B often.
TENANTS = {"A": "enterprise", "B": "pro"}
_MARK = re.compile(rb"mark(\d+)x\d+x")
_TOKEN = re.compile(rb"TOKEN-\d+")
_SECRET = re.compile(rb"HIDDEN-\w+")
_KEY = re.compile(rb"[ps]k_(?:live|test)_ph_[0-9A-Za-z]{38}")


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Thing:
    """What a tenant has made. `touched` counts beginnings and ends of changes: while it stands still, the state is certain."""

    id: str
    changing: bool = False
    touched: int = 0

    def begin(self) -> None:
        self.changing, self.touched = True, self.touched + 1

    def end(self) -> None:
        self.changing, self.touched = False, self.touched + 1

    def certain(self) -> Callable[[], bool]:
        """Asked later: has the state been certain since now?"""
        changing, touched = self.changing, self.touched
        return lambda: not changing and self.touched == touched


@dataclass
class Key(Thing):
    """A key; `servers` None = all."""

    secret: str = ""
    name: str = ""
    status: str = "active"
    servers: frozenset[str] | None = None


@dataclass
class Server(Thing):
    """A server and the upstream behind it."""

    name: str = ""
    slug: str = ""
    enabled: bool = True
    deleted: bool = False
    behind: Upstream | None = None


@dataclass
class Space:
    """One environment of one tenant. `doubtful`: names of things whose creation was never answered."""

    number: int
    id: str
    admin: str
    keys: list[Key] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)

    @property
    def live_servers(self) -> list[Server]:
        return [server for server in self.servers if not server.deleted]


@dataclass
class Fate:
    """How a request is cut off, so many turns after its beginning: the client leaves, or the server gives up the task."""

    kind: str
    turns: int


@dataclass
class Reply:
    """What came back; `status` None = nothing did."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    struck: bool = False  # the fate came while the request still ran
    turns: int = 0

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def certain(self) -> bool:
        """The client knows whether it was done. A 500 or 503 says that it cannot be known."""
        return self.complete and self.status not in (500, 503)


@dataclass
class Call:
    """A tool call as its client remembers it."""

    space: Space
    key_id: str
    server: Server
    tool: str
    door: str
    token: str
    do: str
    reply: Reply | None = None
    result: str | None = None


@dataclass
class World:
    """Everything. `journal`: what happened, equal for equal seeds. `acknowledged`: (space, what, id) as it reached clients."""

    loop: VirtualLoop
    app: Application
    spaces: list[Space]
    secrets: Secrets
    data_dir: Path
    calls: list[Call] = field(default_factory=list)
    upstreams: list[Upstream] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list)
    _tokens: int = 0
    _marks: int = 0

    def new_token(self) -> str:
        self._tokens += 1
        return f"TOKEN-{self._tokens}"

    async def new_upstream(self, space: Space, era: str, *, sessions: bool = False) -> Upstream:
        """A running server of the space."""
        self._marks += 1
        made = Upstream(era=era, mark=f"mark{space.number}x{self._marks}x", loop=self.loop, sessions=sessions)
        await made.server.open()
        self.upstreams.append(made)
        return made

    async def ask(
        self,
        space: Space,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        fate: Fate | None = None,
        token: str | None = None,
        heard: Callable[[Reply], None] = lambda _: None,
    ) -> Reply:
        """One request of a client of the space. `heard` is called when the last byte has been sent to the client."""
        sent = b"" if body is None else json.dumps(body).encode()
        client = _Client(self.loop, sent, heard)
        given = {"host": "localhost", "authorization": f"Bearer {key or space.admin}", **(headers or {})}
        if sent:
            given |= {"content-type": "application/json", "content-length": str(len(sent))}
        began = self.loop.turn
        task = self.loop.create_task(self.app.asgi(_scope(method, path, given), client.receive, client.send))
        if fate is not None:
            self.loop.at_turn(began + fate.turns, lambda: client.strike(fate, task))
        await asyncio.wait([task])
        client.reply.turns = self.loop.turn - began
        self.check_bytes(space, client.reply, f"{method} {path} ".encode() + sent, token)
        if (error := None if task.cancelled() else task.exception()) is not None:
            raise Violation(f"{method} {path} let an exception out: {error!r}") from error
        if fate is None and not client.reply.complete:
            raise Violation(f"{method} {path} was never answered in full")
        if fate is None and client.reply.status == 500:
            raise Violation(f"{method} {path} answered 500: {client.reply.body!r}")
        return client.reply

    def check_bytes(self, space: Space, reply: Reply, sent: bytes, token: str | None) -> None:
        """No foreign byte: marks and tokens of others, secrets of anybody."""
        seen = reply.body + repr(reply.headers).encode()
        for match in _MARK.finditer(seen):
            if int(match[1]) != space.number and match[0] not in sent:
                raise Violation(f"space {space.number} was sent {match[0]!r}: {sent[:200]!r} -> {seen[:500]!r}")
        for found in _TOKEN.findall(seen):
            if found.decode() != token:
                raise Violation(f"the call {token} was sent {found!r}: {seen[:500]!r}")
        if _SECRET.search(seen):
            raise Violation(f"a secret came back: {sent[:200]!r} -> {seen[:500]!r}")
        if reply.status != 201 and _KEY.search(seen):
            raise Violation(f"a key came back: {sent[:200]!r} -> {seen[:500]!r}")

    def note(self, what: str) -> None:
        """A line of the journal. Ids are left out: they differ from run to run."""
        self.journal.append(f"{self.loop.turn} {self.loop.now:.6f} {what}")


class _Client:
    """One request, seen from the client's side."""

    def __init__(self, loop: VirtualLoop, sent: bytes, heard: Callable[[Reply], None]) -> None:
        self.reply = Reply()
        self._loop = loop
        cut = len(sent) // 2 if loop.rng.random() < 0.2 else 0
        self._pieces = [sent[:cut], sent[cut:]] if cut else [sent]
        self._left = loop.create_future()
        self._heard = heard

    def strike(self, fate: Fate, task: asyncio.Task[None]) -> None:
        if task.done():
            return
        self.reply.struck = True
        if fate.kind == "cut":
            task.cancel()
        elif not self._left.done():
            self._left.set_result(None)

    async def receive(self) -> Message:
        if self._pieces and not self._left.done():
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await asyncio.shield(self._left)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._left.done():  # servers drop what a client cannot hear any more
            return
        if message["type"] == "http.response.start":
            if self.reply.status is not None:
                raise Violation("an answer began twice")
            self.reply.status = message["status"]
            self.reply.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.reply.body += message.get("body", b"")
            self.reply.complete = not message.get("more_body", False)
            if self.reply.complete:
                self._heard(self.reply)
        if self._loop.rng.random() < 0.1:  # a slow reader
            await self._loop.pass_time(self._loop.rng.choice((0.001, 0.2)))


def _scope(method: str, path: str, headers: Mapping[str, str]) -> Scope:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 40000),
        "server": ("localhost", 80),
        "state": {},
    }


def settings(data_dir: Path) -> Settings:
    """Of every hub here."""
    return Settings(
        data_dir=data_dir,
        address_limit_per_minute=1_000_000,
        stop_grace_s=1,
        start_timeout_s=5,
        max_in_flight=16,
        max_connections=6,
        allow_private_addresses=("127.0.0.0/8",),  # type: ignore[arg-type]
    )


def new_app(loop: VirtualLoop, data_dir: Path, secrets: Secrets) -> Application:
    """A hub as `plughub serve` builds it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return create_app(settings(data_dir), secrets, VirtualClock(loop))


@asynccontextmanager
async def world(loop: VirtualLoop, data_dir: Path, template: Path) -> AsyncIterator[World]:
    """A running hub without servers, with one key of all rights in each of four spaces."""
    data_dir.mkdir(parents=True)
    shutil.copyfile(template, data_dir / DATABASE_FILE)
    secrets = Secrets(Peppers({1: os.urandom(32)}), Sealer({1: os.urandom(32)}))
    database = Database(f"sqlite:///{data_dir / DATABASE_FILE}", VirtualClock(loop), Chain(secrets.peppers.ring))
    spaces: list[Space] = []
    async with database.unit_of_work() as uow:
        await ensure_operator(uow)
        for name, tier in TENANTS.items():
            organization = await create_organization(uow, name, tier)
            for environment in ("live", "test"):
                body = KeyCreate(name="admin", scopes=["admin"])
                _, secret = await create_key(uow, organization.founder(environment), body, secrets.peppers)  # type: ignore[arg-type]
                spaces.append(Space(len(spaces), organization.space_id(environment), secret))  # type: ignore[arg-type]
    await database.aclose()
    app = new_app(loop, data_dir, secrets)
    made = World(loop, app, spaces, secrets, data_dir)
    async with Lifespan(app.asgi):
        yield made
    for upstream in made.upstreams:
        await upstream.server.close()
