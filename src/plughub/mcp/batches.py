"""Several messages in one POST, which MCP 2025-03-26 alone has ("Transports", "Sending Messages to the Server").

Each message passes what it would pass alone; one that is refused leaves its error in the array. The request as a whole holds one place
among the concurrent ones and runs no more of its messages at once than the tier allows.
"""

import asyncio
import copy
from collections.abc import Sequence

import msgspec

from plughub.door.request import Request
from plughub.door.stream import Outlet
from plughub.gateway.hub import Hub
from plughub.kit.errors import HubError, Malformed, ParseError
from plughub.kit.ids import RequestIds
from plughub.kit.strict_json import check_depth, utf8
from plughub.mcp.conversation import Conversation
from plughub.mcp.methods import Method
from plughub.mcp.render import error_object
from plughub.mcp.running import cancellable, method_of, tell
from plughub.mcp.sessions import SESSION_ID, Session, Sessions, Stream
from plughub.mcp.views import View
from plughub.protocol import versions
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import classify, error_frame, sse_message

MAX_MESSAGES = 50
_SPACE = b" \t\r\n"
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def is_batch(body: bytes) -> bool:
    """Whether the body is an array, whatever is in it."""
    return body[:1] == b"[" or (body[:1] in _SPACE and body.lstrip(_SPACE)[:1] == b"[")


class Batches:
    """Answers POSTs that hold an array."""

    def __init__(self, hub: Hub, sessions: Sessions) -> None:
        self._hub = hub
        self._sessions = sessions
        self._ids = RequestIds(hub.clock)

    async def answer(self, request: Request, view: View, body: bytes) -> None:
        """The answers in the order of the requests, as an array or, when something was told before the end, as frames of a stream.

        Raises Malformed or ParseError when the body is no batch, or one that this client cannot have.
        """
        caller, session_id = request.known_caller(), request.headers.get(SESSION_ID)
        session = None if session_id is None else self._sessions.get(caller, session_id, view.door)
        if not _has_batches(request, session):
            raise Malformed(f"Batches are not accepted: revision {versions.BATCHING} alone has them")
        batch = _Batch(self._hub, request, view, Outlet(request, self._hub.streams), self._sessions, session)
        for element in _read(body):
            await batch.add(element, self._ids.new())
        await batch.run()


class _Batch:
    """One such POST. `answers` has a place for each request; errors stand there at once."""

    def __init__(self, hub: Hub, request: Request, view: View, outlet: Outlet, sessions: Sessions, session: Session | None) -> None:
        self._hub = hub
        self._request = request
        self._view = view
        self._outlet = outlet
        self._sessions = sessions
        self._session = session
        self._streams: list[Stream] = []
        self._answers: list[bytes] = []
        self._jobs: list[tuple[int, _Talk]] = []
        self._gate = asyncio.Semaphore(request.known_caller().tier.concurrency)

    async def add(self, element: bytes, request_id: str) -> None:
        """Take in a message: what wants no answer is told, what does is admitted or refused. `request_id`: of its row in the log."""
        try:
            message = classify(self._request.headers, element)
        except HubError as error:
            self._answers.append(error_frame(b"null", error_object(error, request_id)))
            return
        if not isinstance(message, Message):
            if self._session is not None:
                tell(self._session, message)
            return
        part = copy.copy(self._request)
        part.id = request_id
        talk = _Talk(part, message, self._outlet, self._sessions, self._session, self._streams)
        self._answers.append(b"")
        try:
            if message.modern or message.method == "initialize":
                raise Malformed("initialize, and requests of revisions without batches, come alone")
            talk.method = method_of(part, self._view, talk)
            if talk.method.cost:
                await self._hub.admission.charge_more(self._request, talk.caller, talk.method.cost)
        except HubError as error:
            self._answers[-1] = self._refused(talk, error)
        else:
            self._jobs.append((len(self._answers) - 1, talk))

    async def run(self) -> None:
        """Run what was admitted, and answer."""
        request = self._request
        if not self._answers:
            await request.respond(202, b"")
            return
        request.rpc = ", ".join(talk.message.method for _, talk in self._jobs)
        try:
            await self._run_admitted()
            if self._outlet.open:
                await self._outlet.end(b"".join(self._last(frame) for frame in self._answers))
            else:
                await request.respond(200, b"[%b]" % b",".join(self._answers))
        finally:
            for _, talk in self._jobs:
                talk.close()
            self._outlet.close()

    async def _run_admitted(self) -> None:
        try:
            # A broken connection is no cancellation, as everywhere before 2026-07-28.
            await self._outlet.run(self._run_all(), leaving_cancels=False)
        except HubError as error:  # the stream was stopped
            self._request.error = error
            for place, talk in self._jobs:
                self._answers[place] = self._answers[place] or self._refused(talk, error)

    async def _run_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for place, talk in self._jobs:
                    group.create_task(self._run_one(place, talk))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _run_one(self, place: int, talk: "_Talk") -> None:
        try:
            self._answers[place] = await cancellable(self._session, talk.message.id, self._handled(talk))
        except HubError as error:
            self._answers[place] = self._refused(talk, error)

    async def _handled(self, talk: "_Talk") -> bytes:
        async with self._gate:
            return await talk.method.handler(self._view, talk)

    def _refused(self, talk: Conversation, error: HubError) -> bytes:
        return error_frame(talk.message.id, error_object(error, talk.request.id))

    def _last(self, frame: bytes) -> bytes:
        whole = sse_message(frame)
        return self._streams[0].finish(whole) if self._streams else whole


class _Talk(Conversation):
    """One of the requests; all of them are told of on one stream."""

    __slots__ = ("_streams", "method")
    method: Method

    def __init__(
        self, request: Request, message: Message, outlet: Outlet, sessions: Sessions, session: Session | None, streams: list[Stream]
    ) -> None:
        super().__init__(request, message, outlet, sessions, session)
        self._streams = streams

    def _own_stream(self, session: Session) -> Stream:
        if self._stream is None and self._streams:
            self._stream = self._streams[0]
        elif self._stream is None:
            self._streams.append(super()._own_stream(session))
        return super()._own_stream(session)


def _has_batches(request: Request, session: Session | None) -> bool:
    stated = request.headers.get(b"mcp-protocol-version", b"").decode("latin-1") or versions.ASSUMED
    return stated == versions.BATCHING and (session is None or session.version == versions.BATCHING)


def _read(body: bytes) -> Sequence[bytes]:
    """The messages, each raw. Raises ParseError or Malformed."""
    utf8(body)
    check_depth(body)
    try:
        found = [bytes(element) for element in _elements.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError(f"The body is not valid JSON: {error}") from error
    if not found:
        raise Malformed("The batch is empty")
    if len(found) > MAX_MESSAGES:
        raise Malformed(f"A batch holds at most {MAX_MESSAGES} messages, this one {len(found)}")
    return found
