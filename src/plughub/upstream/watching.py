"""What a connection hears of its own accord, beside the answers to calls: only while somebody wants it.

Servers of the handshake revisions are subscribed to resource by resource; over Streamable HTTP they tell on the stream of GET, else on
the stream that the calls are on too. Servers of 2026-07-28 are asked once, by `subscriptions/listen`, for all that is wanted.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from plughub.kit.errors import HubError
from plughub.protocol.facts import Facts
from plughub.upstream.backoff import FIRST_S, HEALTHY_S
from plughub.upstream.target import Answer, Ask

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIBE_S = 30.0
MOST_WAIT_S = 60.0
LEAST_WAIT_S = 0.01
_DONE = b"{}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one server: the lists whose changes are told ("tools", "prompts", "resources"), the resources by URI, and whatever else a
    handshake server says unasked. `held`: the connection is kept for it, however little it is used. `questions`: those that a handshake
    server asks of its own accord, and nothing else of what it tells, since another connection hears that."""

    lists: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    messages: bool = False
    held: bool = False
    questions: bool = False

    def __bool__(self) -> bool:
        return bool(self.lists or self.uris or self.messages or self.questions)


NOTHING = Wanted()
QUESTIONS = Wanted(questions=True)


class NoStream(Exception):
    """The server does not tell anything of its own accord in this way."""


class _Capability(msgspec.Struct, gc=False):
    listChanged: bool = False  # noqa: N815  the wire's name
    subscribe: bool = False


_announced = msgspec.json.Decoder(dict[str, msgspec.Raw])
_capability = msgspec.json.Decoder(_Capability)


def available(facts: Facts, wanted: Wanted) -> Wanted:
    """What of `wanted` the server announces."""
    try:
        raw = _announced.decode(facts.capabilities)
    except (msgspec.DecodeError, RecursionError):
        return NOTHING
    found = {name: _read(raw[name]) for name in ("tools", "prompts", "resources") if name in raw}
    lists = frozenset(name for name in wanted.lists if name in found and found[name].listChanged)
    uris = wanted.uris if "resources" in found and found["resources"].subscribe else frozenset()
    legacy = facts.era == "legacy"
    return Wanted(lists, uris, wanted.messages and "logging" in raw and legacy, wanted.held, wanted.questions and legacy)


def _read(raw: msgspec.Raw) -> _Capability:
    try:
        return _capability.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _Capability()


def listen_frame(id_: bytes, wanted: Wanted, meta: bytes) -> bytes:
    """`subscriptions/listen` of 2026-07-28; `id_` is raw, `meta` the members of `_meta`."""
    asked: dict[str, object] = {f"{name}ListChanged": True for name in sorted(wanted.lists)}
    if wanted.uris:
        asked["resourceSubscriptions"] = sorted(wanted.uris)
    parts = (id_, msgspec.json.encode(asked), meta)
    return b'{"jsonrpc":"2.0","id":%b,"method":"subscriptions/listen","params":{"notifications":%b,"_meta":{%b}}}' % parts


class Watched(Protocol):
    """A connection. `streams`: what it hears of its own accord comes on a stream that must be asked for."""

    facts: Facts
    ended: str | None

    @property
    def streams(self) -> bool:
        """Whether `listen` is needed at all."""

    async def request(self, ask: Ask) -> Answer:
        """See `target.Upstream`."""

    async def listen(self, wanted: Wanted, begun: Callable[[], None]) -> "Heard":
        """Hear what the server tells until the stream ends; `begun` is called when it stands.

        Raises NoStream, or what connecting raises.
        """


@dataclass(frozen=True, slots=True)
class Heard:
    """A stream that has ended: whether it was of use, and how long the server wants to be left alone."""

    useful: bool
    retry_s: float | None = None


class _Stream:
    """One stream, opened again when it ends. `stands` is set when it is open, or when it is known that it will not be for now."""

    __slots__ = ("stands", "task", "wanted")

    def __init__(self, connection: Watched, wanted: Wanted) -> None:
        self.wanted = wanted
        self.stands = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._keep(connection))
        self.task.add_done_callback(lambda _: self.stands.set())

    async def _keep(self, connection: Watched) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began, heard = loop.time(), Heard(False)
            try:
                heard = await connection.listen(self.wanted, self.stands.set)
            except NoStream:
                return
            except HubError:
                pass  # the calls will say what is wrong; here it is tried again
            self.stands.set()
            failures = 0 if heard.useful or loop.time() - began >= HEALTHY_S else failures + 1
            retry_s = FIRST_S if heard.retry_s is None else max(heard.retry_s, LEAST_WAIT_S)
            await asyncio.sleep(min(MOST_WAIT_S, retry_s * 2.0 ** min(failures, 12)))


class Watching:
    """Does what is wanted of one connection; owns a task while something is, and ends with the connection."""

    def __init__(self, connection: Watched) -> None:
        self._connection = connection
        self._wanted = NOTHING
        self._subscribed: set[str] = set()
        self._lock = asyncio.Lock()
        self._stream: _Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._task is None and self._stream is None

    @property
    def for_questions(self) -> bool:
        """Whether only the server's questions are wanted."""
        return self._wanted.questions

    def want(self, wanted: Wanted) -> None:
        """From here on this is wanted, and nothing else."""
        if wanted == self._wanted or self._connection.ended is not None:
            return
        self._wanted = wanted
        self._stir()

    def renewed(self) -> None:
        """The server knows nothing of us any more: what it was told is told again."""
        self._subscribed.clear()
        self._drop_stream()
        if self._wanted:
            self._stir()

    def _stir(self) -> None:
        self._settled.clear()
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
            self._settled.set()

    async def settled(self) -> None:
        """Return when the server was asked for what is wanted, and has had the chance to say so."""
        await self._settled.wait()

    async def subscribe(self, uri: str, timeout_s: float) -> Answer:
        """Ask a handshake server for the changes of a resource, unless it was asked before. Raises what a request raises."""
        async with self._lock:
            if uri in self._subscribed:
                return Answer(result=_DONE)
            answer = await self._connection.request(_ask("resources/subscribe", uri, timeout_s))
            if answer.result is not None:
                self._subscribed.add(uri)
            return answer

    def stop(self) -> None:
        """The connection has ended."""
        self._wanted = NOTHING
        if self._task is not None:
            self._task.cancel()
        self._drop_stream()

    async def _run(self) -> None:
        while self._changed.is_set():
            self._changed.clear()
            wanted = available(self._connection.facts, self._wanted)
            await self._restream(wanted)
            if self._connection.facts.era == "legacy":
                await self._resubscribe(wanted.uris)
            if not self._changed.is_set():
                self._settled.set()

    async def _restream(self, wanted: Wanted) -> None:
        """A stream for `wanted`. One that is to be replaced ends when the new one stands, so that nothing is missed between them."""
        if not wanted or not self._connection.streams:
            self._drop_stream()
            return
        before = self._stream
        modern = self._connection.facts.era == "modern"
        if before is not None and not before.task.done():
            same = (before.wanted.lists, before.wanted.uris) == (wanted.lists, wanted.uris)
            if same or not modern:
                return
        found = _Stream(self._connection, wanted)
        try:
            await found.stands.wait()
        except asyncio.CancelledError:
            found.task.cancel()
            raise
        if self._connection.ended is not None:
            found.task.cancel()
            return
        self._drop_stream()
        self._stream = found

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.task.cancel()

    async def _resubscribe(self, uris: frozenset[str]) -> None:
        async with self._lock:
            gone = self._subscribed - uris
            self._subscribed &= uris
            for method, each in (("resources/subscribe", uris - self._subscribed), ("resources/unsubscribe", gone)):
                for uri in sorted(each):
                    try:
                        answer = await self._connection.request(_ask(method, uri, SUBSCRIBE_S))
                    except HubError:
                        return  # a connection that is lost begins anew
                    if method == "resources/subscribe" and answer.result is not None:
                        self._subscribed.add(uri)


def _ask(method: str, uri: str, timeout_s: float) -> Ask:
    return Ask(method, {"uri": msgspec.json.encode(uri)}, timeout_s, name=uri)
