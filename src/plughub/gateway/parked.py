"""Requests of 2026-07-28 clients that wait while a server of an older revision waits for their client's input.

Such a server asks by a request of its own and keeps the call open; the client was answered `input_required` and comes back with the
answers in a new request. What joins the two is `requestState`: sealed, bound to key, door, request and round, good once and for five
minutes. The call itself goes on here, bounded in number, ended when nobody comes back or its key may call no more.
"""

import asyncio
import base64
import binascii
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from plughub.bridge.rounds import RESPONSES, STATE, Asked, read_responses, write_input_required
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import KEY_REVOKED, KEY_SUSPENDED
from plughub.gateway.exchange import Exchanged
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.crypto import SealBroken, Sealer
from plughub.kit.errors import InvalidParams, Unavailable
from plughub.protocol.facts import Facts, RawJson
from plughub.upstream.target import Answer, Notify, Question

KEPT_S = 300.0
MAX_PARKED = 1000
MAX_PER_KEY = 64
# What a server asks at nearly the same time is one round: so long its siblings are waited for after the first question.
GATHER_S = 0.02
_FORM = re.compile(r"([0-9a-f]{8})\.ph1\.([0-9A-Za-z_=-]+)")
_AAD = "requestState"
_AGAIN = "send the request without it"
_NOT_THIS = f"params.requestState is of another request, of an earlier round, or of an exchange that is over: {_AGAIN}"
_NOT_GIVEN = f"params.requestState is not one that was given out: {_AGAIN}"
_ENDED = "The request that waited for input was ended"
_string = msgspec.json.Decoder(str)


class _State(msgspec.Struct, array_like=True):
    """What is sealed: which exchange, whose, of what, which round of it, and until when (epoch seconds)."""

    id: str
    key_id: str
    door: str
    digest: bytes
    round: int
    until: float


_state = msgspec.json.Decoder(_State)


@dataclass(slots=True)
class _Open:
    asked: Asked
    answer: asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a client: whose, at which door, what it says, and what hears the server while it waits."""

    caller: Caller
    door: str
    method: str
    params: Mapping[str, RawJson]
    notify: Notify
    modern: bool = True

    @property
    def digest(self) -> bytes:
        """What the same request has in common with itself, whatever answers and metadata it carries and in whatever order it is written."""
        kept = {name: msgspec.json.decode(value) for name, value in self.params.items() if name not in ("_meta", RESPONSES, STATE)}
        return blake2b(self.method.encode() + b"\0" + msgspec.json.encode(kept, order="sorted"), digest_size=16).digest()


@dataclass(slots=True)
class Parked:
    """An exchange under way, and what its server waits for. `hear` is the notify of the request that waits for it just now."""

    id: str
    key_id: str
    door: str
    digest: bytes
    task: asyncio.Task[Exchanged]
    server_of: Callable[[], str | None]
    hear: Notify | None = None
    round: int = 0
    until: float = 0.0
    open: dict[str, _Open] = field(default_factory=dict)
    asked: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


Work = Callable[[Notify, Question], Awaitable[Exchanged]]


class ParkingLot:
    """Runs exchanges that may have to wait for their client; the owner of those that do. A listener of the database.

    `node` begins every state that is given out here.
    """

    def __init__(self, sealer: Sealer, clock: Clock, *, most: int = MAX_PARKED, most_per_key: int = MAX_PER_KEY) -> None:
        self.most = most
        self.most_per_key = most_per_key
        self.node = secrets.token_hex(4)
        self._sealer = sealer
        self._clock = clock
        self._parked: dict[str, Parked] = {}
        self._per_key: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Exchanged]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._parked)

    async def begin(self, turn: Turn, work: Work, server_of: Callable[[], str | None]) -> Exchanged:
        """Run `work(notify, ask)` until it is done, or until its server asks something: then the answer is `input_required`.

        `server_of` tells the id of that server by then. Raises what `work` raises, Unavailable when too many exchanges wait already.
        """
        self._require_room(turn.caller.key_id)
        holder: list[Parked] = []

        def hear(name: str, told: dict[str, RawJson]) -> None:
            if holder and holder[0].hear is not None:
                holder[0].hear(name, told)

        async def ask(name: str, asked: RawJson) -> Answer:
            return await _ask(holder[0], Asked(name, asked))

        task = asyncio.ensure_future(work(hear, ask))
        self._tasks.add(task)
        parked = Parked(secrets.token_hex(12), turn.caller.key_id, turn.door, turn.digest, task, server_of)
        task.add_done_callback(lambda done: self._over(parked, done))
        holder.append(parked)
        return await self._turn(parked, turn.notify)

    async def resume(self, turn: Turn, allowed: Callable[[str], Awaitable[object]]) -> Exchanged | None:
        """Take up the exchange that `params.requestState` names; None when the state is not one of ours.

        `allowed` raises when the caller may not use that server any more. Raises InvalidParams.
        """
        text = _text(turn.params.get(STATE))
        state = None if text is None else self._read(text)
        if state is None:
            return None
        responses = read_responses(turn.params.get(RESPONSES))
        server_id = self._find(state, turn).server_of()
        if server_id is not None:
            await allowed(server_id)
        parked = self._find(state, turn)  # still, and nobody else has taken it up
        for key, response in responses.items():
            waiting = parked.open.pop(key, None)
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_result(Answer(result=response))
        return await self._turn(parked, turn.notify)

    def _find(self, state: _State, turn: Turn) -> Parked:
        """The exchange of a state, if it is the caller's, of this very request, and waits for it. Raises InvalidParams."""
        parked = self._parked.get(state.id)
        mine = (turn.caller.key_id, turn.door, turn.digest)
        if (
            parked is None
            or not turn.modern
            or (state.key_id, state.door, state.digest) != mine
            or state.round != parked.round
            or state.until <= self._clock.time()
            or parked.hear is not None
        ):
            raise InvalidParams(_NOT_THIS)
        return parked

    async def _turn(self, parked: Parked, notify: Notify) -> Exchanged:
        """Wait until the exchange is done or asks; park it when it asks."""
        parked.hear = notify
        try:
            while not parked.task.done() and not parked.open:
                parked.wake.clear()
                await parked.wake.wait()
                if parked.open and not parked.task.done():
                    await asyncio.wait((parked.task,), timeout=GATHER_S)
        except asyncio.CancelledError:
            self._end(parked)
            raise
        finally:
            parked.hear = None
        if not parked.task.done():
            return self._park(parked)
        self._forget(parked)
        if parked.task.cancelled():
            raise Unavailable(_ENDED)
        return parked.task.result()

    def _park(self, parked: Parked) -> Exchanged:
        if parked.id not in self._parked:
            try:
                self._require_room(parked.key_id)
            except Unavailable:
                self._end(parked)
                raise
            self._parked[parked.id] = parked
            self._per_key[parked.key_id] += 1
        parked.round += 1
        parked.until = self._clock.monotonic() + KEPT_S
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEPT_S / 4, self._sweep)
        state = _State(parked.id, parked.key_id, parked.door, parked.digest, parked.round, self._clock.time() + KEPT_S)
        sealed = base64.urlsafe_b64encode(self._sealer.seal(msgspec.json.encode(state), _AAD)).decode()
        questions = {key: each.asked for key, each in parked.open.items()}
        result = write_input_required(questions, msgspec.json.encode(f"{self.node}.ph1.{sealed}"))
        # As from a server of the client's own era: nothing is left to bridge.
        return Exchanged(Answer(result=result), Facts("modern", "", b"{}", b"{}"), 0)

    def _read(self, text: str) -> _State | None:
        """The state that was sealed here, or by an earlier run; None for that of a server. Raises InvalidParams."""
        form = _FORM.match(text)
        if form is None:
            return None
        try:
            if form.end() != len(text):
                raise InvalidParams(_NOT_GIVEN)
            blob = base64.urlsafe_b64decode(form[2])
            if base64.urlsafe_b64encode(blob).decode() != form[2]:  # readers of base64 overlook much
                raise InvalidParams(_NOT_GIVEN)
            return _state.decode(self._sealer.open(blob, _AAD))
        except (SealBroken, binascii.Error, msgspec.DecodeError, InvalidParams) as error:
            if form[1] != self.node:  # a hub behind this one seals in the same form
                return None
            raise InvalidParams(_NOT_GIVEN) from error

    def _require_room(self, key_id: str) -> None:
        if len(self._parked) >= self.most or self._per_key[key_id] >= self.most_per_key:
            raise Unavailable("Too many requests wait for their client's input")

    def sweep(self) -> None:
        """End what nobody came back for."""
        now = self._clock.monotonic()
        for parked in [each for each in self._parked.values() if each.until <= now and each.hear is None]:
            self._end(parked)

    async def follow(self, events: Sequence[Event]) -> None:
        """End the exchanges of keys that may no longer call."""
        gone = {event.key_id for event in events if event.name in (KEY_REVOKED, KEY_SUSPENDED)}
        if gone:
            for parked in [each for each in self._parked.values() if each.key_id in gone]:
                self._end(parked)

    async def aclose(self) -> None:
        """The hub stops: end all, and wait until their servers have been told."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._parked.clear()
        self._per_key.clear()

    def _end(self, parked: Parked) -> None:
        self._forget(parked)
        parked.task.cancel()

    def _forget(self, parked: Parked) -> None:
        if self._parked.pop(parked.id, None) is not None:
            self._per_key[parked.key_id] -= 1
            if not self._per_key[parked.key_id]:
                del self._per_key[parked.key_id]

    def _over(self, parked: Parked, task: asyncio.Task[Exchanged]) -> None:
        """Done, whether or not somebody waits for it."""
        self._tasks.discard(task)
        parked.wake.set()
        if not task.cancelled():
            task.exception()  # it reaches whoever comes back; perhaps nobody does

    def _sweep(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(KEPT_S / 4, self._sweep) if self._parked else None


async def _ask(parked: Parked, asked: Asked) -> Answer:
    """Put a question; it is answered when the client comes back."""
    parked.asked += 1
    key = f"q{parked.asked}"
    waiting = parked.open[key] = _Open(asked, asyncio.get_running_loop().create_future())
    parked.wake.set()
    try:
        return await waiting.answer
    finally:
        parked.open.pop(key, None)


def _text(raw: RawJson | None) -> str | None:
    try:
        return None if raw is None else _string.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
