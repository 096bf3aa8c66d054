"""One STDIO server: newline-framed JSON-RPC over the pipes of one child, shared by all callers through rewritten ids."""

import asyncio
import os
from collections import deque
from collections.abc import Callable

import msgspec

from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream import messages
from plughub.upstream.calls import SHOWN, Call, Calls
from plughub.upstream.lines import KEPT, Lines, NoisyLines, Throttle
from plughub.upstream.noise import RATE
from plughub.upstream.processes import Process
from plughub.upstream.redact import Redactor
from plughub.upstream.target import Answer, Ask, Facts, Hooks, Peer, Target
from plughub.upstream.watching import Heard, NoStream, Wanted, Watching, listen_frame

LAST_LINES = 20
# How long the other half of an end may take: the exit after the closed pipe, the last answers after the exit.
SETTLE_S = 0.3
WRITE_BUFFER_BYTES = 1024 * 1024


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
        self.meta = messages.LEGACY_META
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._hooks = hooks
        self.redact = Redactor(target)
        self.peer: Peer | None = None
        self.calls = Calls(target, hooks, self.redact, self, most=settings.max_in_flight, max_bytes=settings.max_message_bytes)
        self._process = process
        self._on_end = on_end
        self._blocked = 0
        self._stderr_tail: deque[str] = deque(maxlen=LAST_LINES)
        self._noise = Throttle(self._loop, RATE)
        self._stdin: asyncio.WriteTransport
        self._input = _Input(self._on_pipe_end)
        self._transports: list[asyncio.BaseTransport] = []
        self._output_ended = False
        self._listens = 0
        self.watching = Watching(self)

    async def open(self) -> None:
        """Take over the pipes of the process."""
        process, loop = self._process, self._loop
        output = Lines(self._settings.max_message_bytes, self.calls.hear, self._on_long, self._on_output_end)
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
        return len(self.calls.pending) + self._blocked

    @property
    def sent(self) -> int:
        """How many requests were sent, those of the handshake included."""
        return self.calls.sent

    @property
    def answered(self) -> int:
        """How many of them were answered."""
        return self.calls.answered

    async def request(self, ask: Ask) -> Answer:
        """Ask and wait; see `target.Upstream`."""
        timeout_s = ask.timeout_s
        if self._input.waiting is not None:
            timeout_s = await self._room(timeout_s)
        call = self.begin(ask, self.meta, timeout_s)
        try:
            return await call.future
        except asyncio.CancelledError:
            self.calls.abandon(call.id, "the caller went away")
            raise

    def begin(self, ask: Ask, meta: bytes, timeout_s: float) -> Call:
        """Send a request; its answer settles `Call.future`. Raises Unavailable or UpstreamUnreachable (never sent)."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        call = self.calls.begin(ask, timeout_s)
        self._write(messages.write_request(call.id, ask, meta))
        return call

    def tell(self, data: bytes) -> None:
        """Send what wants no answer; left out when the child does not read."""
        if self.ended is None and self._input.waiting is None:
            self._write(data)

    @property
    def streams(self) -> bool:
        """See `watching.Watched`: servers of older revisions tell on the pipe anyway."""
        return self.facts.era == "modern"

    async def listen(self, wanted: Wanted, begun: Callable[[], None]) -> Heard:
        """See `watching.Watched`."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        self._listens += 1
        name = f"listen-{self._listens}"
        id_ = msgspec.json.encode(name)
        future = self.calls.resting[name] = self._loop.create_future()
        self._write(listen_frame(id_, wanted, messages.MODERN_META))
        begun()
        try:
            answer = await future
        except asyncio.CancelledError:
            self.tell(messages.write_notification("notifications/cancelled", b'{"requestId":%b}' % id_))
            raise
        finally:
            self.calls.resting.pop(name, None)
        if answer.error is not None and messages.code_of(answer.error) == messages.NO_METHOD:
            raise NoStream
        return Heard(useful=answer.result is not None)

    async def rest(self) -> bool:
        """See `lending.Lendable`."""
        return await self.calls.questions.rest()

    def _write(self, data: bytes) -> None:
        if b"\n" in data or b"\r" in data:  # between the tokens of values that came pretty-printed
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        self._stdin.write(data + b"\n")

    async def _room(self, timeout_s: float) -> float:
        """Wait until the child reads again; the rest of the time. Raises UpstreamTimeout (never sent)."""
        self.calls.require_room(self._blocked)
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

    # ---- hearing

    def _on_long(self, head: bytes, tail: bytes, size: int) -> None:
        self.calls.hear_long(head, tail, size, "a line")

    def _on_stderr(self, line: bytes) -> None:
        text = self.redact.head(line, KEPT).rstrip()
        if text:
            self._stderr_tail.append(text[:SHOWN])
            self._hooks.log(self.target, text)

    def _on_stderr_pause(self) -> None:
        self._hooks.log(self.target, f"plughub: stderr is read at {RATE // 1024} KiB a second at most")

    def spend(self, size: int) -> None:
        """Count noise of the server's output."""
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
        self.watching.stop()
        self.calls.fail_all(reason)
        self._input.resume_writing()
        for transport in self._transports:
            transport.close()
        self._process.stop(self._settings.stop_grace_s)
        self._on_end(self, reason)
