"""The requests under way on one stream that all callers share: each has an id of ours, and what comes back is told apart by it."""

import asyncio
from typing import Protocol

from plughub.kit.errors import HubError, Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.kit.waits import Waits
from plughub.upstream import messages
from plughub.upstream.messages import Ambiguous, Incoming, Unreadable
from plughub.upstream.noise import NOTE_PRICE, price_of
from plughub.upstream.questions import Questions
from plughub.upstream.redact import Redactor
from plughub.upstream.target import Answer, Ask, Hooks, Peer, Target
from plughub.upstream.watching import ACKNOWLEDGED

MOST_PRICE = 64 * 1024
SHOWN = 300


class Wire(Protocol):
    """What carries the calls. `peer`: the client that it works for alone, if any."""

    peer: Peer | None

    def tell(self, data: bytes) -> None:
        """Send what wants no answer."""

    def spend(self, size: int) -> None:
        """Count noise; whoever makes too much of it is read slowly."""


class Call:
    """A request under way."""

    __slots__ = ("future", "id", "peer", "timeout_s")

    def __init__(self, id_: int, future: asyncio.Future[Answer], ask: Ask) -> None:
        self.id = id_
        self.future = future
        self.peer = ask.peer
        self.timeout_s = ask.timeout_s


class Calls:
    """At most `most` at once; `sent` and `answered` count them over the stream's life."""

    def __init__(self, target: Target, hooks: Hooks, redact: Redactor, wire: Wire, *, most: int, max_bytes: int) -> None:
        self.sent = 0
        self.answered = 0
        self.garbage = ""  # the last that was no message
        self.pending: dict[int, Call] = {}
        # Requests that rest: their answer comes when nobody waits any more. By the ids that they were sent with.
        self.resting: dict[str, asyncio.Future[Answer]] = {}
        self._target = target
        self._hooks = hooks
        self._redact = redact
        self._wire = wire
        self._most = most
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._waits: Waits[int] = Waits()
        self.questions = Questions(wire.tell, self._prolong)

    def require_room(self, waiting: int = 0) -> None:
        """Raise Unavailable when so many calls are under way, `waiting` ones included, that none may be added."""
        if len(self.pending) + waiting >= self._most:
            raise Unavailable(f"{self._most} calls to this server are already under way")

    def begin(self, ask: Ask, timeout_s: float) -> Call:
        """A call with the next id; its answer, or its end after `timeout_s`, settles `Call.future`. Raises Unavailable (never sent)."""
        self.require_room()
        self.sent = id_ = self.sent + 1
        self._waits.add(id_, self._loop.time() + timeout_s, self._expire)
        call = self.pending[id_] = Call(id_, self._loop.create_future(), ask)
        return call

    def abandon(self, id_: int, reason: str) -> None:
        """Stop waiting for an answer and tell the server so."""
        call = self.pending.pop(id_, None)
        if call is not None:
            self._waits.discard(id_)
            self._wire.tell(messages.write_cancelled(id_, reason))

    def fail(self, id_: int, error: HubError) -> None:
        """End a call with an error, if it is under way."""
        call = self.pending.pop(id_, None)
        if call is not None:
            self._waits.discard(id_)
            if not call.future.done():
                call.future.set_exception(error)

    def fail_all(self, reason: str) -> None:
        """The stream is over: what is under way may have run."""
        for id_ in list(self.pending):
            self.fail(id_, UpstreamUnreachable(reason, executed="unknown"))
        self._waits.close()
        self.questions.cancel_all()
        for future in self.resting.values():
            if not future.done():
                future.set_exception(UpstreamUnreachable(reason, executed="unknown"))
                future.exception()  # whoever listened may be gone too
        self.resting.clear()

    def _expire(self, id_: int) -> None:
        call = self.pending.get(id_)
        if call is not None:
            self.abandon(id_, "timeout")
            if not call.future.done():
                call.future.set_exception(UpstreamTimeout(f"MCP server did not respond within {call.timeout_s:g} s"))

    # ---- hearing

    def hear(self, data: bytes) -> None:
        """One message, or what should have been one."""
        try:
            message = messages.read_message(data)
        except Unreadable as error:
            self._on_unreadable(data, error)
            return
        self._on_message(message, len(data))

    def hear_long(self, head: bytes, tail: bytes, size: int, what: str) -> None:
        """A message over the bound, of which only the two ends are known; `what` it is: a line, an event."""
        self.garbage = f"{what} of {size} bytes"
        self.note(f"{what} of {size} bytes was skipped; the limit is {self._max_bytes}", size)
        self._blame(head, tail, messages.bad_answer(f"it has {size} bytes; the limit is {self._max_bytes}"))

    def note(self, text: str, size: int) -> None:
        """Write of the server's behaviour into its log; it costs as noise does."""
        self._hooks.log(self._target, f"plughub: {text}")
        self._wire.spend(min(size, MOST_PRICE) + NOTE_PRICE)

    def _on_message(self, message: Incoming, size: int) -> None:
        if message.method is None:
            self._on_answer(message)
        else:
            self._on_method(message, size)

    def _on_unreadable(self, data: bytes, error: Unreadable) -> None:
        if not data.strip():
            return
        if data.lstrip()[:1] == b"[":
            try:
                for message in messages.read_messages(data):
                    self._on_message(message, len(data))
                return
            except Unreadable:
                pass
        self.garbage = self._redact.head(data, SHOWN).strip()
        self.note(f"not a message: {error}: {self.garbage}", len(data))
        if isinstance(error, Ambiguous) and error.id in self.pending:
            self.fail(error.id, messages.bad_answer(str(error)))  # type: ignore[arg-type]  # it is one of ours
        elif b'"jsonrpc"' in data or isinstance(error, Ambiguous):  # not all that looks like an object was meant as a message
            self._blame(data, data, messages.bad_answer(str(error)))

    def _blame(self, head: bytes, tail: bytes, error: HubError) -> None:
        """Fail the call that a message belongs to which cannot be read: by its id, or because it is the only one."""
        ids = [id_ for id_ in messages.guess_ids(head, tail) if id_ in self.pending]
        if not ids and len(self.pending) == 1:
            ids = list(self.pending)
        if len(ids) == 1:
            self.fail(ids[0], error)

    def _on_answer(self, message: Incoming) -> None:
        call = self.pending.pop(message.id, None)  # type: ignore[arg-type]  # any id of theirs may be looked up
        if call is None:
            resting = self.resting.pop(message.id, None) if isinstance(message.id, str) else None
            if resting is not None:
                self._end_rest(resting, message)
                return
            self._on_stranger(message)
            return
        self._waits.discard(call.id)
        if call.future.done():
            return
        try:
            call.future.set_result(messages.answer_of(message))
            self.answered += 1
        except UpstreamUnreachable as error:
            call.future.set_exception(error)

    def _end_rest(self, resting: asyncio.Future[Answer], message: Incoming) -> None:
        if resting.done():
            return
        try:
            resting.set_result(messages.answer_of(message))
        except UpstreamUnreachable as error:
            resting.set_exception(error)

    def _on_stranger(self, message: Incoming) -> None:
        """An answer to nothing: a wrong or doubled id, or a call that was given up. An error without id may belong to the only call."""
        if message.id is None and message.error and len(self.pending) == 1:
            message.id = next(iter(self.pending))
            self._on_answer(message)
            return
        self.note(
            f"an answer with the id {self._redact(str(message.id), 40)}, which no call waits for, was ignored", len(message.result) + 100
        )

    def _on_method(self, message: Incoming, size: int) -> None:
        self._wire.spend(price_of(size))
        if message.id is not messages.UNSET:
            call = self._asker(message.method or "")
            # Roots are asked for as soon as a server knows of its client; all else belongs to a call.
            peer = call.peer if call is not None else self._wire.peer if message.method == "roots/list" else None
            self.questions.hear(message, peer, lambda error: None if call is None else self._refuse(call, error))
            return
        if message.method == "notifications/cancelled":
            self.questions.cancel(bytes(message.params))
            return
        if message.method == "notifications/progress" and message.params:
            call = self.pending.get(messages.progress_token(message.params))  # type: ignore[arg-type]  # as above
            if call is not None:
                if call.peer is not None:
                    messages.hand_over(call.peer.notify, message)
                return
        if message.method == "notifications/message" and (self.pending or self._wire.peer is not None):
            peer = self._only_peer() or self._only_listener()
            if peer is not None:
                messages.hand_over(peer.notify, message)
            # Else it may belong to anybody's call, and nobody else is to read it.
        elif message.method != ACKNOWLEDGED:
            messages.hand_over(lambda method, params: self._hooks.notification(self._target, method, params), message)

    def _only_listener(self) -> Peer | None:
        """The client of the only call that asked for messages: a server of 2026-07-28 sends them to nobody else."""
        peers = [call.peer for call in self.pending.values() if call.peer is not None and call.peer.log_level is not None]
        return peers[0] if len(peers) == 1 else None

    def _only_peer(self) -> Peer | None:
        """The client that the connection works for alone; on one for all, nothing says what such a message belongs to."""
        if self._wire.peer is None:
            return None
        call = next(iter(self.pending.values()), None)
        return self._wire.peer if call is None or call.peer is None else call.peer

    def _asker(self, method: str) -> Call | None:
        """The call that a question most likely belongs to: the only one. Roots are asked for whatever call there is."""
        calls = [call for call in self.pending.values() if call.peer is not None]
        return calls[0] if len(calls) == 1 and (self._wire.peer is not None or method != "roots/list") else None

    def _refuse(self, call: Call, error: HubError) -> None:
        """End a call whose server asks for what its client cannot be asked."""
        self.abandon(call.id, error.text)
        if not call.future.done():
            call.future.set_exception(error)

    def _prolong(self, seconds: float) -> None:
        """A client is asked, or has answered: what is under way may take so much longer than its own time, from now on.

        Only a lent connection gets here, with one call.
        """
        for call in self.pending.values():
            self._waits.add(call.id, self._loop.time() + seconds + call.timeout_s, self._expire)
