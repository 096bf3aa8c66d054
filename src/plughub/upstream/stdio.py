"""One STDIO server: newline-framed JSON-RPC over the pipes of one child, shared by all callers through rewritten ids."""

import asyncio
import os
from collections import deque
from collections.abc import Callable

from plughub.kit.errors import HubError, Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream import messages
from plughub.upstream.lines import KEPT, Lines, NoisyLines, Throttle
from plughub.upstream.messages import Ambiguous, Incoming, Unreadable
from plughub.upstream.noise import NOTE_PRICE, RATE, price_of
from plughub.upstream.processes import Process
from plughub.upstream.redact import Redactor
from plughub.upstream.target import Answer, Ask, Facts, Hooks, Peer, Target

MOST_PRICE = 64 * 1024
LAST_LINES = 20
# How long the other half of an end may take: the exit after the closed pipe, the last answers after the exit.
SETTLE_S = 0.3
WRITE_BUFFER_BYTES = 1024 * 1024
SHOWN = 300


class Call:
    """A request under way."""

    __slots__ = ("future", "id", "peer", "timer")

    def __init__(self, id_: int, future: asyncio.Future[Answer], peer: Peer | None, timer: asyncio.TimerHandle) -> None:
        self.id = id_
        self.future = future
        self.peer = peer
        self.timer = timer


class _Input(asyncio.BaseProtocol):
    """The child's stdin: knows when its pipe is full."""

    __slots__ = ("_on_lost", "waiting")

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self.waiting: asyncio.Future[None] | None = None

    def pause_writing(self) -> None:
        self.waiting = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._on_lost()


class StdioUpstream:
    """The connection. `on_end(self, reason)` hears once that it is over; calls under way have failed by then."""

    def __init__(
        self, target: Target, settings: Settings, hooks: Hooks, process: Process, on_end: Callable[["StdioUpstream", str], None]
    ) -> None:
        self.target = target
        self.facts: Facts
        self.ended: str | None = None
        self.sent = 0
        self.answered = 0
        self.meta = messages.LEGACY_META
        self.garbage = ""
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._max = settings.max_in_flight
        self._hooks = hooks
        self.redact = Redactor(target)
        self._process = process
        self._on_end = on_end
        self._pending: dict[int, Call] = {}
        self._blocked = 0
        self._stderr_tail: deque[str] = deque(maxlen=LAST_LINES)
        self._noise = Throttle(self._loop, RATE)
        self._stdin: asyncio.WriteTransport
        self._input = _Input(self._on_pipe_end)
        self._transports: list[asyncio.BaseTransport] = []
        self._output_ended = False

    async def open(self) -> None:
        """Take over the pipes of the process."""
        process, loop = self._process, self._loop
        output = Lines(self._settings.max_message_bytes, self._on_line, self._on_long, self._on_output_end)
        self._noise.watch(output)
        errors = NoisyLines(Throttle(loop, RATE), KEPT + self.redact.reach, self._on_stderr, self._on_stderr_pause)
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._input, os.fdopen(process.stdin, "wb", 0))
        self._stdin.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._transports.append(self._stdin)
        for lines, fd in ((output, process.stdout), (errors, process.stderr)):
            transport, _ = await loop.connect_read_pipe(lambda lines=lines: lines, os.fdopen(fd, "rb", 0))  # type: ignore[misc]
            self._transports.append(transport)
        process.exited.add_done_callback(self._on_exit)

    # ---- asking

    @property
    def in_flight(self) -> int:
        """Calls that wait for an answer or for room in the pipe."""
        return len(self._pending) + self._blocked

    async def request(self, ask: Ask) -> Answer:
        """Ask and wait; see `target.Upstream`."""
        timeout_s = ask.timeout_s
        if self._input.waiting is not None:
            timeout_s = await self._room(timeout_s)
        call = self.begin(ask, self.meta, timeout_s)
        try:
            return await call.future
        except asyncio.CancelledError:
            self.abandon(call.id, "the caller went away")
            raise

    def begin(self, ask: Ask, meta: bytes, timeout_s: float) -> Call:
        """Send a request; its answer settles `Call.future`. Raises Unavailable or UpstreamUnreachable (never sent)."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        if len(self._pending) >= self._max:
            raise Unavailable(f"{self._max} calls to this server are already under way")
        self.sent = id_ = self.sent + 1
        data = messages.write_request(id_, ask, meta)
        timer = self._loop.call_later(timeout_s, self._expire, id_, ask.timeout_s)
        call = self._pending[id_] = Call(id_, self._loop.create_future(), ask.peer, timer)
        self._write(data)
        return call

    def abandon(self, id_: int, reason: str) -> None:
        """Stop waiting for an answer and tell the server so."""
        call = self._pending.pop(id_, None)
        if call is not None:
            call.timer.cancel()
            self.tell(messages.write_cancelled(id_, reason))

    def tell(self, data: bytes) -> None:
        """Send what wants no answer; left out when the child does not read."""
        if self.ended is None and self._input.waiting is None:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if b"\n" in data or b"\r" in data:  # between the tokens of values that came pretty-printed
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        self._stdin.write(data + b"\n")

    async def _room(self, timeout_s: float) -> float:
        """Wait until the child reads again; the rest of the time. Raises UpstreamTimeout (never sent)."""
        if self.in_flight >= self._max:
            raise Unavailable(f"{self._max} calls to this server are already under way")
        until = self._loop.time() + timeout_s
        self._blocked += 1
        try:
            while self._input.waiting is not None:
                async with asyncio.timeout_at(until):
                    await asyncio.shield(self._input.waiting)
        except TimeoutError as error:
            raise UpstreamTimeout(f"the server did not read its input within {timeout_s:g} s", executed="no") from error
        finally:
            self._blocked -= 1
        return max(0.001, until - self._loop.time())

    def _expire(self, id_: int, timeout_s: float) -> None:
        call = self._pending.get(id_)
        if call is not None:
            self.abandon(id_, "timeout")
            if not call.future.done():
                call.future.set_exception(UpstreamTimeout(f"MCP server did not respond within {timeout_s:g} s"))

    # ---- hearing

    def _on_line(self, line: bytes) -> None:
        try:
            message = messages.read_message(line)
        except Unreadable as error:
            self._on_unreadable(line, error)
            return
        if message.method is None:
            self._on_answer(message)
        else:
            self._on_method(message, len(line))

    def _on_unreadable(self, line: bytes, error: Unreadable) -> None:
        if not line.strip():
            return
        if line.lstrip()[:1] == b"[":
            try:
                for message in messages.read_messages(line):
                    self._on_answer(message) if message.method is None else self._on_method(message, len(line))
                return
            except Unreadable:
                pass
        self.garbage = self.redact.head(line, SHOWN).strip()
        self._note(f"not a message: {error}: {self.garbage}", len(line))
        if isinstance(error, Ambiguous) and error.id in self._pending:
            self._settle(error.id, messages.bad_answer(str(error)))  # type: ignore[arg-type]  # it is one of ours
        elif b'"jsonrpc"' in line or isinstance(error, Ambiguous):  # not every line that looks like an object was meant as a message
            self._blame(line, line, messages.bad_answer(str(error)))

    def _on_long(self, head: bytes, tail: bytes, size: int) -> None:
        limit = self._settings.max_message_bytes
        self.garbage = f"a line of {size} bytes"
        self._note(f"a line of {size} bytes was skipped; the limit is {limit}", size)
        self._blame(head, tail, messages.bad_answer(f"it has {size} bytes; the limit is {limit}"))

    def _blame(self, head: bytes, tail: bytes, error: HubError) -> None:
        """Fail the call that a line belongs to which cannot be read: by its id, or because it is the only one."""
        ids = [id_ for id_ in messages.guess_ids(head, tail) if id_ in self._pending]
        if not ids and len(self._pending) == 1:
            ids = list(self._pending)
        if len(ids) == 1:
            self._settle(ids[0], error)

    def _settle(self, id_: int, error: HubError) -> None:
        call = self._pending.pop(id_)
        call.timer.cancel()
        if not call.future.done():
            call.future.set_exception(error)

    def _on_answer(self, message: Incoming) -> None:
        call = self._pending.pop(message.id, None)  # type: ignore[arg-type]  # any id of theirs may be looked up
        if call is None:
            self._on_stranger(message)
            return
        call.timer.cancel()
        if call.future.done():
            return
        try:
            call.future.set_result(messages.answer_of(message))
            self.answered += 1
        except UpstreamUnreachable as error:
            call.future.set_exception(error)

    def _on_stranger(self, message: Incoming) -> None:
        """An answer to nothing: a wrong or doubled id, or a call that was given up. An error without id may belong to the only call."""
        if message.id is None and message.error and len(self._pending) == 1:
            message.id = next(iter(self._pending))
            self._on_answer(message)
            return
        self._note(
            f"an answer with the id {self.redact(str(message.id), 40)}, which no call waits for, was ignored", len(message.result) + 100
        )

    def _on_method(self, message: Incoming, size: int) -> None:
        if message.id is not messages.UNSET:
            self.tell(messages.write_reply(message))
            self._noise_spent(price_of(size))
            return
        self._noise_spent(price_of(size))
        if message.method == "notifications/progress" and message.params:
            call = self._pending.get(messages.progress_token(message.params))  # type: ignore[arg-type]  # as above
            if call is not None:
                if call.peer is not None:
                    messages.hand_over(call.peer.notify, message)
                return
        messages.hand_over(lambda method, params: self._hooks.notification(self.target, method, params), message)

    def _on_stderr(self, line: bytes) -> None:
        text = self.redact.head(line, KEPT).rstrip()
        if text:
            self._stderr_tail.append(text[:SHOWN])
            self._hooks.log(self.target, text)

    def _on_stderr_pause(self) -> None:
        self._hooks.log(self.target, f"plughub: stderr is read at {RATE // 1024} KiB a second at most")

    def _note(self, text: str, size: int) -> None:
        self._hooks.log(self.target, f"plughub: {text}")
        self._noise_spent(min(size, MOST_PRICE) + NOTE_PRICE)

    def _noise_spent(self, size: int) -> None:
        if self._noise.spend(size):
            self._hooks.log(self.target, "plughub: the server writes more noise than messages; its output is read slowly")

    # ---- ending

    def stop(self, reason: str) -> None:
        """End the process, after its stdin; calls under way fail with `reason`."""
        self._finish(reason)

    @property
    def gone(self) -> asyncio.Future[str]:
        """Done when the process has exited."""
        return self._process.exited

    def _on_output_end(self) -> None:
        self._output_ended = True
        self._on_pipe_end()

    def _on_pipe_end(self) -> None:
        if self._process.exited.done():
            self._finish(self._why(self._process.exited.result()))
        else:
            self._loop.call_later(SETTLE_S, self._finish, self._why("the server closed its input or output"))

    def _on_exit(self, exited: asyncio.Future[str]) -> None:
        if self._output_ended:
            self._finish(self._why(exited.result()))
        else:
            self._loop.call_later(SETTLE_S, lambda: self._finish(self._why(exited.result())))

    def _why(self, ending: str) -> str:
        """The end in one sentence, with the line of stderr that says most about it."""
        telling = [line for line in self._stderr_tail if "error" in line.lower()] or list(self._stderr_tail)
        return f"{ending}: {telling[-1].strip()}" if telling else ending

    def _finish(self, reason: str) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        for id_ in list(self._pending):
            self._settle(id_, UpstreamUnreachable(reason, executed="unknown"))
        self._input.resume_writing()
        for transport in self._transports:
            transport.close()
        self._process.stop(self._settings.stop_grace_s)
        self._on_end(self, reason)
