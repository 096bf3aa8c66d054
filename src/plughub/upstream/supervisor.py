"""One server's life: started on demand, once for all who wait, not too often, and ended when nobody needs it."""

import asyncio

from plughub.kit.clock import Clock
from plughub.kit.dial import Tls
from plughub.kit.errors import HubError, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.backoff import HEALTHY_S, Backoff
from plughub.upstream.handshake import OtherTransport, shake_stdio
from plughub.upstream.http import HttpUpstream
from plughub.upstream.lending import Lendable, Lending
from plughub.upstream.processes import Processes
from plughub.upstream.redact import Redactor
from plughub.upstream.sse import SseUpstream
from plughub.upstream.stdio import StdioUpstream
from plughub.upstream.target import Era, Hooks, Peer, Target, Transport
from plughub.upstream.watching import NOTHING, Wanted

Connection = StdioUpstream | HttpUpstream | SseUpstream
# Connecting is cheap: a remote server that is back is found soon. A command that fails is not started all the time.
STDIO_BACKOFF_S = 60.0
HTTP_BACKOFF_S = 5.0
ENDED = "the server was changed or removed"
START_FAILED = "the start failed"
_SPOKEN: dict[Transport, str] = {"STREAMABLE_HTTP": "Streamable HTTP", "SSE": "HTTP+SSE of 2024-11-05"}


class Supervisor:
    """For one server at one revision."""

    def __init__(self, target: Target, settings: Settings, hooks: Hooks, clock: Clock, processes: Processes, tls: Tls) -> None:
        self.target = target
        self.live: Connection | None = None
        self._settings = settings
        self._hooks = hooks
        self._clock = clock
        self._processes = processes
        self._tls = tls
        self._backoff = Backoff(clock, STDIO_BACKOFF_S if target.transport == "STDIO" else HTTP_BACKOFF_S)
        # What the last connection found; a failed start forgets it.
        self._era: Era | None = None
        self._spoken: Transport = target.transport
        self._starting: asyncio.Task[Connection] | None = None
        self._leaving: set[Connection] = set()  # over for new calls, with some still under way
        self._closed = False
        self.lending = Lending(self._connect_for, _end)
        self._live_since = 0.0
        self._handshakes = 0
        self._used_at = 0.0
        self._used_mark = 0
        self._wanted = NOTHING

    async def get(self, timeout_s: float | None = None) -> Connection:
        """The live connection, or a new one within `timeout_s`; the start itself goes on after that, for others.

        Raises UpstreamUnreachable, UpstreamTimeout (nothing was run) or Unavailable.
        """
        if self.live is not None:
            return self.live
        if self._closed:
            raise UpstreamUnreachable(ENDED, executed="no")
        if self._starting is None:
            wait_s = self._backoff.wait_s()
            if wait_s > 0:
                raise UpstreamUnreachable(f"{self._backoff.reason} (next try in {wait_s:.0f} s)", executed="no")
            self._starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        await asyncio.wait((starting,), timeout=timeout_s)
        if not starting.done():
            raise UpstreamTimeout(f"the server did not start within {timeout_s:g} s", executed="no")
        if starting.cancelled():
            raise UpstreamUnreachable(ENDED, executed="no")
        return starting.result()

    def retime(self, target: Target) -> None:
        """Take over the times of the same revision's target; who is given another time to start may try at once."""
        if target.start_timeout_s != self.target.start_timeout_s:
            self._backoff.succeeded()
        self.target = target

    def _started(self, task: asyncio.Task[Connection]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # it reached whoever waited; if all have gone, nobody needs to hear it

    async def _start(self) -> Connection:
        self._hooks.status(self.target, "connecting", None)
        try:
            live = await self._connect()
        except HubError as error:
            self._failed(getattr(error, "reason", error.text))
            if isinstance(error, UpstreamTimeout):
                # Only we have asked anything so far: no caller's request was sent.
                raise UpstreamTimeout(error.text, executed="no") from error
            raise
        except Exception as error:
            # Nobody foresaw it; but a status that says `connecting` for ever helps nobody, nor does a 500.
            reason = f"the start failed unexpectedly ({type(error).__name__})"
            self._hooks.log(self.target, f"plughub: {reason}: {Redactor(self.target)(str(error), 300)}")
            self._failed(reason)
            raise UpstreamUnreachable(reason, executed="no") from None
        self._era = live.facts.era
        self._live_since = self._used_at = self._clock.monotonic()
        self._handshakes = live.answered
        self._used_mark = live.sent + self.lending.loans
        self.live = live
        live.watching.want(self._wanted)
        self._hooks.status(self.target, "connected", None)
        return live

    def _failed(self, reason: str) -> None:
        self._era, self._spoken = None, self.target.transport
        self._backoff.failed(reason)
        self._hooks.status(self.target, "error", reason)

    async def _connect(self, peer: Peer | None = None) -> Connection:
        """A connection with its handshake, made for `peer`, or for all who declare nothing."""
        if self.target.transport == "STDIO":
            return await self._start_stdio(peer)
        return await self._start_remote(peer)

    async def _connect_for(self, peer: Peer) -> Connection:
        if self._closed:
            raise UpstreamUnreachable(ENDED, executed="no")
        return await self._connect(peer)

    @property
    def _start_timeout_s(self) -> float:
        return self.target.start_timeout_s or self._settings.start_timeout_s

    async def _start_stdio(self, peer: Peer | None) -> StdioUpstream:
        """A child and its handshake; when it leaves at the sight of the first message, a second one gets that of the other era."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._start_timeout_s
        upstream = await self._spawn(peer)
        try:
            return await self._shake(upstream, self._start_timeout_s, self._era)
        except UpstreamUnreachable:
            if upstream.ended == START_FAILED:  # it did not leave by itself
                raise
        upstream = await self._spawn(peer)
        return await self._shake(upstream, max(0.001, until - loop.time()), None if self._era == "legacy" else "legacy")

    async def _shake(self, upstream: StdioUpstream, timeout_s: float, known: Era | None) -> StdioUpstream:
        try:
            upstream.facts = await shake_stdio(upstream, timeout_s, known)
        except BaseException:
            upstream.stop(START_FAILED)
            raise
        return upstream

    async def _spawn(self, peer: Peer | None) -> StdioUpstream:
        process = await self._processes.spawn(self.target.command, (*self.target.args, *self.target.secret_args), self.target.env)
        upstream = StdioUpstream(self.target, self._settings, self._hooks, process, self._on_end)
        upstream.peer = peer
        try:
            await upstream.open()
        except BaseException:
            upstream.stop(START_FAILED)
            raise
        return upstream

    async def _start_remote(self, peer: Peer | None) -> HttpUpstream | SseUpstream:
        """By the transport registered, or found last time; a server that refuses it as strangers do is tried by the other one."""
        loop, first = asyncio.get_running_loop(), self._spoken
        until = loop.time() + self._start_timeout_s
        try:
            return await self._open(first, self._start_timeout_s, peer)
        except OtherTransport as refused:
            other: Transport = "SSE" if first == "STREAMABLE_HTTP" else "STREAMABLE_HTTP"
            try:
                upstream = await self._open(other, max(0.001, until - loop.time()), peer)
            except (OtherTransport, UpstreamTimeout):
                raise refused from None
            except UpstreamUnreachable as error:
                raise UpstreamUnreachable(f"{refused.reason}; over {_SPOKEN[other]}: {error.reason}", executed="no") from error
        self._spoken = other
        if other != self.target.transport:
            self._hooks.log(self.target, f"plughub: the server speaks {_SPOKEN[other]}; it is registered as {self.target.transport}")
        return upstream

    async def _open(self, transport: Transport, timeout_s: float, peer: Peer | None) -> HttpUpstream | SseUpstream:
        upstream: HttpUpstream | SseUpstream
        if transport == "SSE":
            upstream = SseUpstream(self.target, self._settings, self._hooks, self._tls, self._on_end)
        else:
            upstream = HttpUpstream(self.target, self._settings, self._hooks, self._tls, self._on_end)
        upstream.peer = peer
        try:
            await (upstream.open(timeout_s) if isinstance(upstream, SseUpstream) else upstream.open(timeout_s, self._era))
        except BaseException:
            await upstream.aclose(START_FAILED)
            raise
        return upstream

    def _on_end(self, connection: Connection, reason: str) -> None:
        """The connection is over by itself: the next `get` starts a new one, at once if this one was of use."""
        if connection is not self.live:
            return
        self.live = None
        if self._closed:
            return
        self._leaving = {each for each in self._leaving if each.in_flight}
        if connection.in_flight:
            self._leaving.add(connection)
        if connection.answered > self._handshakes or self._clock.monotonic() - self._live_since >= HEALTHY_S:
            self._backoff.succeeded()
        else:
            self._backoff.failed(reason, started=True)
        self._hooks.status(self.target, "error", reason)

    def want(self, wanted: Wanted) -> None:
        """From here on this is to be heard of the server, over whatever connection it has."""
        self._wanted = wanted
        if self.live is not None:
            self.live.watching.want(wanted)

    def forgive(self) -> None:
        """Forget the failures: the next `get` starts at once."""
        self._backoff.succeeded()

    def look(self) -> None:
        """The next request is the hub's own, and no use."""
        self._used_mark += 1

    def idle_s(self) -> float:
        """Seconds since something was last asked, as far as it was looked at; the pool looks now and then."""
        live = self.live
        if live is None:
            return 0.0
        now = self._clock.monotonic()
        used = live.sent + self.lending.loans  # who borrows a connection needs this one too, to be told of the server
        if live.in_flight or self.lending.in_flight or self._wanted.held or used != self._used_mark:
            self._used_mark = used
            self._used_at = now
        return now - self._used_at

    async def rest(self) -> None:
        """End the connection for want of use; the next `get` starts another."""
        live, self.live = self.live, None
        if live is not None:
            self._hooks.status(self.target, "disconnected", None)
            await _end(live, "it was not used for a while")

    async def aclose(self, reason: str) -> None:
        """End the connection for good; calls under way fail with `reason`."""
        self._closed = True
        starting = self._starting
        if starting is not None:
            starting.cancel()
            await asyncio.wait((starting,))
        live, self.live = self.live, None
        if live is not None:
            self._hooks.status(self.target, "disconnected", None)
            await _end(live, reason)
        for connection in self._leaving:
            await _end(connection, reason)
        await self.lending.aclose(reason)


async def _end(live: Lendable, reason: str) -> None:
    if isinstance(live, StdioUpstream):
        live.stop(reason)
    elif isinstance(live, HttpUpstream | SseUpstream):
        await live.aclose(reason)
