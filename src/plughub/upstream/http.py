"""One Streamable HTTP server, of either era: a pool of connections and, for old revisions, one session."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from plughub.kit.dial import Tls
from plughub.kit.errors import HubError, Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.kit.waits import Waits
from plughub.protocol.envelope import encode_header
from plughub.protocol.sse import SseEvent
from plughub.settings import Settings
from plughub.upstream import handshake, messages
from plughub.upstream.backoff import FIRST_S
from plughub.upstream.http_address import Address, address_of, refusal
from plughub.upstream.http_beside import Beside
from plughub.upstream.http_connection import LINGER_S, Exchange, HttpConnection
from plughub.upstream.http_connections import Connections
from plughub.upstream.http_stream import WITHOUT, OwnStream, last_event, retry_s
from plughub.upstream.messages import Incoming, Unreadable
from plughub.upstream.noise import NOTE_PRICE, price_of
from plughub.upstream.questions import Questions
from plughub.upstream.redact import Redactor
from plughub.upstream.target import Answer, Ask, Era, Facts, Hooks, Peer, Target
from plughub.upstream.watching import LEAST_WAIT_S, Heard, NoStream, Wanted, Watching, listen_frame

SHOWN = 300
NO_ANSWER = "the stream ended without an answer"
NOT_RENEWED = "the session could not be renewed"
FAREWELL_S = 1.0
JSON = b"application/json"
# What servers answer to a message that they are not, or no longer, made for.
NOT_SPOKEN = frozenset((400, 404, 405))
MOST_READ = 1000
_FORGOT = re.compile(rb"session|protocol.?version", re.IGNORECASE)


class HttpCall(Exchange):
    """An exchange that asks something: it ends with the answer, not with the response."""

    __slots__ = ("answer", "ask", "id", "resumed", "until")

    def __init__(
        self,
        id_: int,
        done: asyncio.Future[None],
        on_event: Callable[[Exchange, SseEvent], None],
        ask: Ask,
        until: float,
    ) -> None:
        super().__init__(done, on_event)
        self.id = id_
        self.ask = ask
        self.answer: Answer | None = None
        self.until = until
        self.resumed = False  # it takes up what another exchange of the same id has begun


class HttpUpstream:
    """The connection. `on_end(self, reason)` hears once when the server cannot be reached any more."""

    def __init__(self, target: Target, settings: Settings, hooks: Hooks, tls: Tls, on_end: Callable[["HttpUpstream", str], None]) -> None:
        self.target = target
        self.facts: Facts
        self.ended: str | None = None
        self.sent = 0
        self.answered = 0
        self.in_flight = 0
        self._settings = settings
        self._hooks = hooks
        self._redact = Redactor(target)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._address: Address = address_of(target.url, target.headers)
        self.connections = Connections(
            self._address,
            target.private_networks,
            tls,
            most=settings.max_connections,
            max_bytes=settings.max_message_bytes,
            timeout_s=target.start_timeout_s or settings.start_timeout_s,
        )
        self.connections.on_slow = lambda: self._note("the server sends more noise than answers; its streams are read slowly")
        self._post = b"POST %b HTTP/1.1\r\n%bAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\n" % (
            self._address.path,
            self._address.head,
        )
        self._head = self._post
        self._meta = messages.LEGACY_META
        self._session: bytes | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._calls: dict[int, HttpCall] = {}
        self._waits: Waits[int] = Waits()
        self._beside = Beside(self.connections, self._note)
        self.peer: Peer | None = None
        self.watching = Watching(self)
        self._own = OwnStream(self.connections, self._on_own, self._note)
        self._questions = Questions(lambda data: self._beside.later(self._framed(data)), self._prolong)

    # ---- the handshake

    async def open(self, timeout_s: float, known: Era | None) -> None:
        """Find the era and shake hands: `server/discover` first, unless the era is known to be legacy, then `initialize`.

        A server that was slow, or was legacy, and refuses `initialize` is asked (again) what it is. Raises OtherTransport, another
        UpstreamUnreachable or UpstreamTimeout (nothing was run).
        """
        until = self._loop.time() + timeout_s
        facts, doubtful = None, True
        if known != "legacy":
            try:
                facts = await self._discover(min(handshake.PROBE_S, timeout_s / 3))
                doubtful = False
            except UpstreamTimeout:
                pass  # a legacy server may ignore what it does not know
        if facts is None:
            try:
                facts = await self._initialize(max(0.001, until - self._loop.time()))
            except UpstreamUnreachable:
                facts = await self._discover(max(0.001, until - self._loop.time())) if doubtful and self.ended is None else None
                if facts is None:
                    raise
        self.facts = facts

    async def _discover(self, timeout_s: float) -> Facts | None:
        """`server/discover`; None when the server is of an older era."""
        until = self._loop.time() + timeout_s
        self._set_era(b"2026-07-28", None, messages.MODERN_META)
        for again in (False, True):
            call = await self._ask(handshake.discover_ask(timeout_s), until)
            if call.status in (401, 403) or 300 <= call.status < 400:
                raise self._refused(call)
            try:
                answer = self._answer_of(call)
            except UpstreamUnreachable:
                return None
            if answer.error is None or call.status != 400:
                break
            error = handshake.error_of(answer)
            if again or not handshake.names_ours(error):
                handshake.refused_facts(error, self._redact)
                break
        return handshake.modern_facts(answer)

    async def _initialize(self, timeout_s: float) -> Facts:
        self._set_era(None, None, messages.LEGACY_META)
        with handshake.initializing(timeout_s):
            call = await self._ask(handshake.initialize_ask(timeout_s, self.peer), self._loop.time() + timeout_s)
            try:
                facts = handshake.legacy_facts(self._answer_of(call), self._redact)
            except UpstreamUnreachable as error:
                if call.status not in NOT_SPOKEN:
                    raise
                raise handshake.OtherTransport(error.reason, executed="no") from error
        session = call.session
        if session is not None and not all(0x21 <= byte <= 0x7E for byte in session):
            raise UpstreamUnreachable("the server gave a session id that is no visible ASCII", executed="no")
        self._set_era(facts.version.encode(), session, messages.LEGACY_META)
        await self._beside.exchange(self._framed(handshake.INITIALIZED))
        return facts

    def _set_era(self, version: bytes | None, session: bytes | None, meta: bytes) -> None:
        self._session = session
        self._meta = meta
        self._head = self._post
        if version is not None:
            self._head += b"MCP-Protocol-Version: %b\r\n" % version
        if session is not None:
            self._head += b"Mcp-Session-Id: %b\r\n" % session

    async def _renew(self, head: bytes, timeout_s: float, until: float) -> None:
        """Shake hands again: once for all whose requests went out with `head`. Raises UpstreamTimeout at `until` (nothing was run)."""
        if self._renewal is None:
            if self._head is not head:
                return
            self._renewal = self._loop.create_task(self._open_again())
            self._renewal.add_done_callback(self._renewed)
        renewal = self._renewal
        await asyncio.wait((renewal,), timeout=max(0.0, until - self._loop.time()))
        if not renewal.done():
            raise UpstreamTimeout(f"the session with the server was not renewed within {timeout_s:g} s", executed="no")
        if renewal.cancelled():
            raise UpstreamUnreachable(self.ended or "the connection was closed", executed="no")
        if (error := renewal.exception()) is not None:
            raise error if isinstance(error, HubError) else UpstreamUnreachable(NOT_RENEWED, executed="no")

    async def _open_again(self) -> None:
        before = self.facts
        await self.open(self.target.start_timeout_s or self._settings.start_timeout_s, None)
        if self.facts != before:  # another server, as it were
            for kind in ("tools", "resources", "prompts"):
                self._hooks.notification(self.target, f"notifications/{kind}/list_changed", {})

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewal = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(str(getattr(error, "reason", getattr(error, "text", NOT_RENEWED))))
        else:
            self._own.forget()
            self.watching.renewed()

    # ---- asking

    async def request(self, ask: Ask) -> Answer:
        """Ask and wait; see `target.Upstream`."""
        until = self._loop.time() + ask.timeout_s
        if self._renewal is not None:
            await self._renew(b"", ask.timeout_s, until)
        head, session = self._head, self._session
        call = await self._ask(ask, until)
        if call.answer is None and call.status in NOT_SPOKEN and self._handshake_lost(call, session):
            await self._renew(head, ask.timeout_s, until)
            call = await self._ask(ask, until)
        answer = call.answer or self._answer_of(call)
        self.answered += 1
        return answer

    async def _ask(self, ask: Ask, until: float) -> HttpCall:
        """One exchange, ended by the answer, by the end of the response, or at `until` of the loop's time."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        if self.in_flight >= self._settings.max_in_flight:
            raise Unavailable(f"{self._settings.max_in_flight} calls to this server are already under way")
        self.in_flight += 1
        try:
            connection = self.connections.take() or await self._connect(ask, until)
            call = self._send_call(ask, connection, until)
            try:
                await self._done(call)
            except UpstreamUnreachable:
                if not self._resumable(call):
                    if connection.fresh or call.touched or ask.method not in messages.REPEATABLE:
                        raise
                    call = await self._ask_again(ask, until)
            return call if call.answer is not None or not self._resumable(call) else await self._taken_up(call)
        finally:
            self.in_flight -= 1
            if self.ended is not None and not self.in_flight:
                self._close(self.ended)

    async def _ask_again(self, ask: Ask, until: float) -> HttpCall:
        """The exchange once more, on a new connection: the one before was closed before anything came."""
        call = self._send_call(ask, await self._connect(ask, until), until)
        try:
            await self._done(call)
        except UpstreamUnreachable:
            if not self._resumable(call):
                raise
        return call

    def _resumable(self, call: HttpCall) -> bool:
        return not self._meta and bool(last_event(call))

    def _send_call(self, ask: Ask, connection: HttpConnection, until: float) -> HttpCall:
        self.sent = id_ = self.sent + 1
        body = messages.write_request(id_, ask, self._meta)
        head = self._head
        if self._meta:
            head += b"Mcp-Method: %b\r\n" % encode_header(ask.method)
            if ask.name is not None:
                head += b"Mcp-Name: %b\r\n" % encode_header(ask.name)
            head += ask.headers
        call = self._call(id_, ask, until)
        connection.send(call, b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        return call

    def _call(self, id_: int, ask: Ask, until: float) -> HttpCall:
        self._waits.add(id_, until, self._expire)
        call = self._calls[id_] = HttpCall(id_, self._loop.create_future(), self._on_event, ask, until)
        return call

    async def _taken_up(self, call: HttpCall) -> HttpCall:
        """A stream of a handshake server ended before its answer, after an event with an id: it is taken up again from there (MCP
        2025-11-25 "Resumability and Redelivery"), as often as the call has time for. Gives the exchange that brought the end."""
        last_id, wait_s = b"", FIRST_S
        while call.answer is None:
            if call.resumed and call.status and call.sse is None:
                raise UpstreamUnreachable(NO_ANSWER, executed="unknown")
            last_id, wait_s = last_event(call) or last_id, retry_s(call) or wait_s
            call = await self._take_up(call, last_id, max(wait_s, LEAST_WAIT_S))
            with suppress(UpstreamUnreachable):
                await self._done(call)
        return call

    async def _take_up(self, lost: HttpCall, last_id: bytes, wait_s: float) -> HttpCall:
        """Ask for the rest of a stream after `wait_s`. Its answer may come meanwhile on the stream of the server's own."""
        call = self._call(lost.id, lost.ask, lost.until)
        call.resumed = True
        try:
            await asyncio.wait((call.done,), timeout=wait_s)
            if not call.done.done():
                connection = self.connections.take() or await self._connect(call.ask, call.until)
                connection.send(call, self._get(b"Last-Event-ID: %b\r\n" % last_id))
        except BaseException:
            self._waits.discard(call.id)
            del self._calls[call.id]
            self._abandon(call, "the caller went away")
            raise
        return call

    def _get(self, more: bytes) -> bytes:
        """A request for a stream, in the session."""
        head = b"GET %b HTTP/1.1\r\n%bAccept: text/event-stream\r\n" % (self._address.path, self._address.head)
        return b"%b%b%b\r\n" % (head, self._head[len(self._post) :], more)

    def _framed(self, body: bytes) -> bytes:
        """A notification or a reply as a whole request."""
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    async def _done(self, call: HttpCall) -> None:
        try:
            await call.done
        except asyncio.CancelledError:
            self._abandon(call, "the caller went away")
            raise
        finally:
            self._waits.discard(call.id)
            del self._calls[call.id]

    async def _connect(self, ask: Ask, until: float) -> HttpConnection:
        try:
            async with asyncio.timeout_at(until):
                return await self.connections.connect()
        except TimeoutError as error:
            raise UpstreamTimeout(f"no connection to the server was free within {ask.timeout_s:g} s", executed="no") from error
        except UpstreamUnreachable as error:
            self.end(error.reason)
            raise

    def _expire(self, id_: int) -> None:
        call = self._calls.get(id_)
        if call is not None and not call.done.done():
            self._abandon(call, "timeout")
            call.fail(UpstreamTimeout(f"MCP server did not respond within {call.ask.timeout_s:g} s"))

    def _prolong(self, seconds: float) -> None:
        """A client is asked, or has answered: see `calls.Calls`. Only a lent connection gets here, with one call."""
        for call in self._calls.values():
            call.until = self._loop.time() + seconds + call.ask.timeout_s
            self._waits.add(call.id, call.until, self._expire)

    async def rest(self) -> bool:
        """See `lending.Lendable`."""
        return await self._questions.rest()

    def _refuse_all(self, error: HubError) -> None:
        """A question on the server's own stream carries no link to a call; of a lent connection there is one at most."""
        for call in list(self._calls.values()):
            self._refuse(call, error)

    def _refuse(self, call: HttpCall, error: HubError) -> None:
        """End a call whose server asks for what its client cannot be asked."""
        if not call.done.done():
            self._abandon(call, error.text)
            call.fail(error)

    def _abandon(self, call: HttpCall, reason: str) -> None:
        """Give a call up. On 2026-07-28 the closed stream says so; before it a disconnect says nothing, a notification does."""
        if call.answer is None and (call.connection is not None or call.resumed):
            call.release()
            if not self._meta:
                self._beside.later(self._framed(messages.write_cancelled(call.id, reason)))

    # ---- what the server says of its own accord

    @property
    def streams(self) -> bool:
        """See `watching.Watched`."""
        return True

    async def listen(self, wanted: Wanted, begun: Callable[[], None]) -> Heard:
        """See `watching.Watched`."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        head, session = self._head, self._session
        if self._meta:
            id_ = self._own.next_id()
            body = listen_frame(b'"%b"' % id_.encode(), wanted, self._meta)
            data = b"%bMcp-Method: subscriptions/listen\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        else:
            id_, data = "", self._get(self._own.after)
        status, heard = await self._own.run(data, id_, begun)
        if status in (400, 404) and session is not None and self._head is head:
            timeout_s = self.target.start_timeout_s or self._settings.start_timeout_s
            await self._renew(head, timeout_s, self._loop.time() + timeout_s)
        elif status in WITHOUT:
            raise NoStream
        return heard

    def _on_own(self, message: Incoming) -> None:
        if message.method is None:
            call = self._calls.get(message.id) if isinstance(message.id, int) else None
            if call is not None:
                self._on_message(call, message)
        elif message.id is not messages.UNSET:
            self._questions.hear(message, self.peer, self._refuse_all)
        elif message.method == "notifications/cancelled":
            self._questions.cancel(bytes(message.params))
        elif not self.watching.for_questions:
            messages.hand_over(lambda method, params: self._hooks.notification(self.target, method, params), message)

    # ---- hearing

    def _on_event(self, exchange: Exchange, event: SseEvent) -> None:
        assert isinstance(exchange, HttpCall)
        before = exchange.answer
        if event.data and event.event == b"message":
            try:
                for message in messages.read_messages(event.data):
                    self._on_message(exchange, message)
            except Unreadable as error:
                self._note(f"not a message: {error}: {self._redact.head(event.data, SHOWN)}")
                exchange.fail(messages.bad_answer(str(error)))
                exchange.release()
        if exchange.answer is before:  # it brought no answer
            exchange.noise += price_of(len(event.data))

    def _on_message(self, call: HttpCall, message: Incoming) -> None:
        if message.method is None:
            if message.id != call.id or call.done.done():
                call.noise += NOTE_PRICE
                self._note(f"an answer with the id {self._redact(str(message.id), 40)}, which no call waits for, was ignored")
                return
            try:
                call.answer = messages.answer_of(message)
            except UpstreamUnreachable as error:
                call.fail(error)
            call.complete()
            self._loop.call_later(LINGER_S, call.release)
        elif message.id is not messages.UNSET:
            self._questions.hear(message, None if call.done.done() else call.ask.peer or self.peer, lambda error: self._refuse(call, error))
        elif message.method == "notifications/cancelled":
            self._questions.cancel(bytes(message.params))
        elif call.ask.peer is not None:
            messages.hand_over(call.ask.peer.notify, message)
        elif message.method != "notifications/message":  # which belongs to this call, and nobody else is to read it
            messages.hand_over(lambda method, params: self._hooks.notification(self.target, method, params), message)

    def _answer_of(self, call: HttpCall) -> Answer:
        """The answer in a response that was no stream, or whose stream has ended. Raises UpstreamUnreachable."""
        if call.answer is not None:
            return call.answer
        if call.sse is not None:
            raise UpstreamUnreachable(NO_ANSWER, executed="unknown")
        good = 200 <= call.status < 300
        is_json = call.content_type.lower() == JSON
        if call.status in (401, 403, 429) or 300 <= call.status < 400 or (not good and not is_json):
            raise self._refused(call)
        if not is_json:
            kind = self._redact(call.content_type.decode("latin-1"), 80) or "none"
            raise messages.bad_answer(f"HTTP {call.status} with the content type {kind}")
        body = b"".join(call.body)
        try:
            answer = self._find_answer(call, messages.read_messages(body))
        except Unreadable as error:
            self._note(f"HTTP {call.status}, not a message: {error}: {self._redact.head(body, SHOWN)}")
            raise (messages.bad_answer(str(error)) if good else self._refused(call)) from error
        if answer is None:
            raise messages.bad_answer("it carries another id than the request") if good else self._refused(call)
        return answer

    def _find_answer(self, call: HttpCall, found: list[Incoming]) -> Answer | None:
        """Ours of the messages in a body; an error may come without an id, the response belongs to us anyway."""
        for message in found:
            if message.method is not None:
                self._on_message(call, message)
            elif message.id == call.id or (message.error and not message.result and not isinstance(message.id, int)):
                return messages.answer_of(message)
        return None

    def _refused(self, call: HttpCall) -> UpstreamUnreachable:
        """The error for an HTTP status that is no success."""
        refused = refusal(call.status, call.location, self._redact)
        self._note(refused.reason)
        return refused

    def _handshake_lost(self, call: HttpCall, session: bytes | None) -> bool:
        """Whether the server forgot us, or became one of another era or transport. Such a request did not run.

        404 says it of a session; many servers say 400 and name the session, or the revision they no longer speak, in words.
        A JSON-RPC error with another status than 400 is an answer.
        """
        body = b"".join(call.body)[:MOST_READ]
        code = handshake.error_of(Answer(error=messages.error_in(body))).code
        if code in handshake.MODERN_ERRORS:
            return not self._meta or code == handshake.UNSUPPORTED_VERSION
        if call.status == 400:
            return _FORGOT.search(body) is not None
        return session is not None or not code

    def _note(self, text: str) -> None:
        self._hooks.log(self.target, f"plughub: {self._redact(text)}")

    # ---- ending

    def end(self, reason: str) -> None:
        """No further calls; those under way may finish, then the connections close."""
        if self.ended is None:
            self.ended = reason
            self._questions.cancel_all()
            self.watching.stop()
            self._on_end(self, reason)
            if not self.in_flight:
                self._close(reason)

    def _close(self, reason: str) -> None:
        self._waits.close()
        self.connections.close(reason)

    async def aclose(self, reason: str) -> None:
        """End the session and close every connection; calls under way fail with `reason`."""
        self.watching.stop()
        if self._session is not None and not self.connections.closed:
            await self._beside.exchange(self._head.replace(b"POST ", b"DELETE ", 1) + b"Content-Length: 0\r\n\r\n", FAREWELL_S)
        self._beside.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
        self.end(reason)
        self.connections.close(reason)
