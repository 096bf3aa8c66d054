"""Several operations in one request (CONTRACT section 7): each a request of its own, below the outer layers of the hub.

An operation is admitted with the headers of the batch, counts as any request does and has its own row in the log; what they share is
one place among the requests at once, and in mode atomic one transaction. What the batch as a whole asks for is judged in `batch_plan`.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

import msgspec
from starlette.types import Message, Scope

from plughub.api import batch_plan
from plughub.api.batch_plan import Found, Operation, Plan, filled, read_plan, sample_path, target
from plughub.api.batch_shapes import BatchIn, BatchOut
from plughub.api.framework import is_of_database
from plughub.api.hot_body import read_body
from plughub.cluster.limits import Header
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.actor import actor_of
from plughub.door.dispatch import Dispatcher, wants_stream
from plughub.door.request import JSON, NO_STORE, Request
from plughub.door.routes import AUTHENTICATED, PUBLIC, SIGNED_IN, Route
from plughub.door.stream import unless_gone
from plughub.gateway.hub import Hub
from plughub.kit.errors import FailedDependency, HubError, Invalid, PayloadTooLarge

_PATH = "/api/batch"
# So many operations of a parallel batch run at once.
_AT_ONCE = 8
# When the answers together are larger, what has not begun is not run.
_MOST_ANSWERED = 8
_STREAM = "text/event-stream"
_DOORS = ("api", "v1", "plain")
# What the batch says of itself, and an operation says anew.
_OWN_HEADERS = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"expect", *(n.encode() for n in batch_plan.HEADERS)})
# Of the connection, and of the batch: an answer inside it has none of its own.
_UNTOLD = frozenset({b"content-length", b"set-cookie", b"x-content-type-options", b"x-api-version"})


@dataclass(slots=True)
class _Part:
    """An operation on its way: the request that it is, and the answer as it comes."""

    operation: Operation
    request: Request
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def failed(self) -> bool:
        return self.status >= 400

    async def take(self, message: Message) -> None:
        """The `send` of the request. An answer that broke off is replaced by the error."""
        if message["type"] == "http.response.start":
            self.status, self.headers, self.body = message["status"], _told(message["headers"]), bytearray()
        else:
            self.body += message.get("body", b"")

    def forget(self) -> None:
        """The answer does not hold."""
        self.status, self.headers, self.body = 0, {}, bytearray()
        self.request.started, self.request.status = False, 0

    def found(self) -> Found:
        is_json = self.headers.get("content-type", "").startswith("application/json")
        return Found(self.status, self.headers, bytes(self.body) if is_json and self.body else None)

    def shown(self) -> bytes:
        operation = self.operation
        parts = (msgspec.json.encode(operation.id), operation.index, self.status, msgspec.json.encode(self.headers), self._body())
        return b'{"id":%b,"index":%d,"status":%d,"headers":%b,"body":%b}' % parts

    def _body(self) -> bytes:
        """JSON as it is, text as a string, anything else (what a server calls JSON and is no UTF-8, too) as a string in base64."""
        if not self.body:
            return b"null"
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            return msgspec.json.encode(base64.b64encode(self.body).decode())
        return bytes(self.body) if self.headers.get("content-type", "").startswith("application/json") else msgspec.json.encode(text)


class _RolledBack(Exception):
    """An operation of an atomic batch has failed."""


class BatchDoor:
    """The hot handler of `/api/batch`. `dispatcher` answers the operations; the application ties the two together."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.dispatcher: Dispatcher | None = None

    async def batch(self, request: Request) -> None:
        """Up to 50 operations in one request, each with its own status; a failed one stops only those that depend on it."""
        try:
            plan = read_plan(await read_body(request, batch_plan.FIELDS, self.hub.settings.max_body_bytes))
            run = self._run(request, plan)
        except HubError:
            # A good batch counts its operations; one that is none counts as any request.
            await self.hub.admission.charge(request, request.known_caller())
            raise
        await unless_gone(request, run.all())
        await request.respond(200, run.shown(), JSON, [NO_STORE])

    def _run(self, request: Request, plan: Plan) -> "_Run":
        if self.dispatcher is None:
            raise LookupError("a batch before the application was complete")
        return _Run(self.hub, self.dispatcher, request, plan)


class _Run:
    """One batch being run."""

    def __init__(self, hub: Hub, dispatcher: Dispatcher, parent: Request, plan: Plan) -> None:
        """Raises Invalid for what cannot be part of a batch."""
        self._hub = hub
        self._dispatcher = dispatcher
        self._parent = parent
        self._plan = plan
        self._limit_bytes = hub.settings.max_body_bytes
        self._shared_headers = [pair for pair in parent.scope["headers"] if pair[0] not in _OWN_HEADERS]
        self._parts = [self._part(operation) for operation in plan.operations]
        self._rows = [self._row(part) for part in self._parts]
        self._answers: dict[str, Found] = {}
        self._answered_bytes = 0
        # The place of the batch goes from hand to hand.
        self._counting = asyncio.Lock()

    async def all(self) -> None:
        """Every operation has its answer afterwards."""
        if self._plan.mode == "atomic":
            await self._atomic()
        elif self._plan.mode == "parallel":
            await self._parallel()
        else:
            for part in self._parts:
                await self._one(part)

    def shown(self) -> bytes:
        """The answer of the batch."""
        failed = sum(part.failed for part in self._parts)
        results = b",".join([part.shown() for part in self._parts])
        return b'{"results":[%b],"succeeded":%d,"failed":%d}' % (results, len(self._parts) - failed, failed)

    async def _parallel(self) -> None:
        room, done = asyncio.Semaphore(_AT_ONCE), [asyncio.Event() for _ in self._parts]

        async def one(part: _Part) -> None:
            for need in part.operation.needs:
                await done[need].wait()
            async with room:
                await self._one(part)
            done[part.operation.index].set()

        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(one(part))

    async def _atomic(self) -> None:
        """All in one transaction. Everybody is admitted before it begins: while it is open nothing but the database is waited for."""
        failed: _Part | None = None
        for part in self._parts:
            await self._answered(part, self._admitted(part))
            if part.failed:
                failed = part
                break
        if failed is None:
            try:
                async with self._hub.database.unit_of_work(actor_of(self._parent)) as work:
                    failed = await self._in_work(work)
                    if failed is not None:
                        raise _RolledBack
            except _RolledBack:
                pass
        if failed is not None:
            await self._undo(failed)
        for part in self._parts:
            self._dispatcher.record(part.request, part.began)

    async def _in_work(self, work: UnitOfWork) -> _Part | None:
        """Run one after the other; the first that fails, if one does."""
        for part in self._parts:
            part.began = time.perf_counter()
            work.actor, part.request.work = actor_of(part.request), work
            await self._answered(part, self._run(part))
            part.request.work = None
            if part.failed:
                return part
            self._answers[part.operation.id] = part.found()
        return None

    async def _undo(self, failed: _Part) -> None:
        """What had been done is undone, and the answers of all others say so."""
        for part in self._parts:
            if part is not failed:
                undone = part.status != 0
                part.forget()
                text = f"{'Rolled back' if undone else 'Not run'}: '{failed.operation.id}' failed, and the batch is atomic"
                error = FailedDependency(text, operation=failed.operation.id, rolled_back=undone)
                await self._answered(part, _raised(error))

    async def _one(self, part: _Part) -> None:
        """Answer one operation outside of a shared transaction."""
        stopped = next((self._parts[need] for need in part.operation.needs if self._parts[need].failed), None)
        part.began = time.perf_counter()
        try:
            if stopped is not None:
                text = f"Not run: it depends on '{stopped.operation.id}', which failed"
                await self._answered(part, _raised(FailedDependency(text, operation=stopped.operation.id)))
            elif self._answered_bytes > _MOST_ANSWERED * self._limit_bytes:
                text = "Not run: the answers of this batch are too large already"
                await self._answered(part, _raised(PayloadTooLarge(text, limit_bytes=_MOST_ANSWERED * self._limit_bytes)))
            else:
                await self._answered(part, self._admitted_and_run(part))
        finally:
            self._dispatcher.record(part.request, part.began)
        self._answers[part.operation.id] = part.found()
        self._answered_bytes += len(part.body)

    async def _answered(self, part: _Part, steps: Awaitable[None]) -> None:
        await self._dispatcher.answer(part.request, steps)

    async def _admitted_and_run(self, part: _Part) -> None:
        await self._admitted(part)
        await self._run(part)

    async def _admitted(self, part: _Part) -> None:
        async with self._counting:
            await self._dispatcher.admit_part(part.request, self._parent)

    async def _run(self, part: _Part) -> None:
        operation, request = part.operation, part.request
        path, headers, body = filled(operation, self._answers, self._limit_bytes)
        raw, query = target(path)
        _aim(request, raw, query, [*self._shared_headers, *_sent(headers, body)])
        row = self._dispatcher.route(request)
        if row is not self._rows[operation.index]:
            raise Invalid(f"operations.{operation.index}.path", "A reference in the path may not lead to another route", path[:200])
        request.receive = _Incoming(body or b"").receive
        await self._dispatcher.run(request, row)

    def _part(self, operation: Operation) -> _Part:
        """With something in the place of each reference: enough to be admitted."""
        raw, query = target(sample_path(operation))
        scope: Scope = {**self._parent.scope, "method": operation.method, "path": ""}
        part = _Part(operation, self._dispatcher.part(self._parent, scope))
        part.request.send = part.take
        _aim(part.request, raw, query, [*self._shared_headers, *_sent(operation.headers, operation.body)])
        return part

    def _row(self, part: _Part) -> Route | None:
        """Its row; None: there is none, which is the answer of the operation alone."""
        try:
            row = self._dispatcher.route(part.request)
        except HubError:
            return None
        _check(part, row, atomic=self._plan.mode == "atomic")
        return row


class _Incoming:
    """The `receive` of an operation: its body, and then nothing; it has no connection that could break."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def receive(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()  # for as long as whoever waits for the client to leave
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _aim(request: Request, raw: bytes, query: bytes, headers: list[Header]) -> None:
    """Say where the request goes."""
    request.scope.update({"raw_path": raw, "path": unquote(raw.decode()), "query_string": query, "headers": headers})
    request.headers = dict(headers)


def _sent(headers: Mapping[str, str], body: bytes | None) -> list[Header]:
    found = [(name.encode(), value.encode()) for name, value in headers.items()]
    if body is not None:
        found += [(b"content-length", b"%d" % len(body))]
        if "content-type" not in headers:
            found.append(JSON)
    return found


def _check(part: _Part, row: Route, *, atomic: bool) -> None:
    """Raise Invalid for what cannot be part of a batch."""
    operation, place, text = part.operation, f"{row.method} {row.path}", None
    streams = _STREAM in operation.headers.get("accept", "") or (row.stream is not None and wants_stream(part.request))
    if row.path == _PATH:
        text = "A batch cannot be part of a batch"
    elif row.door not in _DOORS or row.scope == SIGNED_IN or (row.scope == PUBLIC and row.method != "GET"):
        text = f"{place} is asked alone: it is about a login, or speaks another protocol"
    elif row.output_kind == _STREAM or streams:
        text = f"{place} cannot be a stream in a batch"
    elif atomic and not is_of_database(row):
        text = f"{place} does more than change the database: it cannot be part of an atomic batch"
    if text is not None:
        raise Invalid(f"operations.{operation.index}.path", text, operation.path[:200])


def _told(headers: list[Header]) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, value in headers:
        if name not in _UNTOLD and not name.startswith(b"access-control-"):
            text = value.decode("latin-1")
            told[name.decode()] = f"{told[name.decode()]}, {text}" if name.decode() in told else text
    return told


async def _raised(error: HubError) -> None:
    raise error


def routes(door: BatchDoor) -> list[Route]:
    """The row. It costs nothing itself: its operations do."""
    row = Route("POST", _PATH, AUTHENTICATED, door.batch, "Run several operations", "Batch", cost=0, hot=True, secret=True)
    return [replace(row, input=BatchIn, output=BatchOut)]
