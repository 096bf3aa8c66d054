"""Requests of 2026-07-28 clients that wait while a server of an older revision waits for their client's input.

Such a server asks by a request of its own and keeps the call open; the client was answered `input_required` and comes back with the
answers in a new request. What joins the two is `requestState`: sealed, bound to key, door, request and round, good once and for five
minutes. The call itself goes on here, bounded in number, ended when nobody comes back.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from plughub.bridge.rounds import RESPONSES, STATE, Asked, read_responses, write_input_required
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
_MARK = "ph1."
_AAD = "requestState"
_OVER = "The exchange that params.requestState belongs to is over: send the request without it"
_string = msgspec.json.Decoder(str)


class _State(msgspec.Struct, array_like=True):
    """What is sealed: which exchange, whose, of what, and which round of it."""

    id: str
    key_id: str
    door: str
    digest: bytes
    round: int


_state = msgspec.json.Decoder(_State)


@dataclass(slots=True)
class _Open:
    asked: Asked
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class Parked:
    """An exchange under way, and what its server waits for. `hear` is the notify of the request that waits for it just now."""

    id: str
    key_id: str
    door: str
    digest: bytes
    task: asyncio.Task[Exchanged]
    hear: Notify | None = None
    round: int = 0
    until: float = 0.0
    open: dict[str, _Open] = field(default_factory=dict)
    asked: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


Work = Callable[[Notify, Question], Awaitable[Exchanged]]


class ParkingLot:
    """Runs exchanges that may have to wait for their client; the owner of those that do."""

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock
        self._parked: dict[str, Parked] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._parked)

    async def begin(self, caller: Caller, door: str, method: str, params: Mapping[str, RawJson], notify: Notify, work: Work) -> Exchanged:
        """Run `work(notify, ask)` until it is done, or until its server asks something: then the answer is `input_required`.

        Raises what `work` raises, Unavailable when too many exchanges wait already.
        """
        if len(self._parked) >= MAX_PARKED or sum(each.key_id == caller.key_id for each in self._parked.values()) >= MAX_PER_KEY:
            raise Unavailable("Too many requests wait for their client's input")
        holder: list[Parked] = []

        def hear(name: str, told: dict[str, RawJson]) -> None:
            if holder and holder[0].hear is not None:
                holder[0].hear(name, told)

        async def ask(name: str, asked: RawJson) -> Answer:
            return await _ask(holder[0], Asked(name, asked))

        task = asyncio.ensure_future(work(hear, ask))
        parked = Parked(secrets.token_hex(12), caller.key_id, door, digest_of(method, params), task)
        holder.append(parked)
        return await self._turn(parked, notify)

    async def resume(self, caller: Caller, door: str, method: str, params: Mapping[str, RawJson], notify: Notify) -> Exchanged | None:
        """Take up the exchange that `params.requestState` names; None when the state is not one of ours. Raises InvalidParams."""
        text = _text(params.get(STATE))
        if text is None or not text.startswith(_MARK):
            return None
        state = self._open_state(text)
        parked = self._parked.get(state.id)
        mine = (caller.key_id, door, digest_of(method, params))
        if parked is None or (state.key_id, state.door, state.digest) != mine or state.round != parked.round or parked.hear is not None:
            raise InvalidParams(_OVER)
        for key, response in read_responses(params.get(RESPONSES)).items():
            waiting = parked.open.pop(key, None)
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_result(Answer(result=response))
        return await self._turn(parked, notify)

    async def _turn(self, parked: Parked, notify: Notify) -> Exchanged:
        """Wait until the exchange is done or asks; park it when it asks."""
        parked.hear = notify
        parked.task.add_done_callback(lambda _: parked.wake.set())
        try:
            while not parked.task.done() and not parked.open:
                parked.wake.clear()
                await parked.wake.wait()
        except asyncio.CancelledError:
            self._end(parked)
            raise
        finally:
            parked.hear = None
        if parked.task.done():
            self._parked.pop(parked.id, None)
            return parked.task.result()
        return self._park(parked)

    def _park(self, parked: Parked) -> Exchanged:
        parked.round += 1
        parked.until = self._clock.monotonic() + KEPT_S
        self._parked[parked.id] = parked
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEPT_S / 4, self._sweep)
        state = _State(parked.id, parked.key_id, parked.door, parked.digest, parked.round)
        sealed = base64.urlsafe_b64encode(self._sealer.seal(msgspec.json.encode(state), _AAD)).decode()
        questions = {key: each.asked for key, each in parked.open.items()}
        result = write_input_required(questions, msgspec.json.encode(_MARK + sealed))
        # As from a server of the client's own era: nothing is left to bridge.
        return Exchanged(Answer(result=result), Facts("modern", "", b"{}", b"{}"), 0)

    def _open_state(self, text: str) -> _State:
        try:
            return _state.decode(self._sealer.open(base64.urlsafe_b64decode(text.removeprefix(_MARK)), _AAD))
        except (SealBroken, binascii.Error, ValueError) as error:
            raise InvalidParams("params.requestState is not one that was given out") from error

    def sweep(self) -> None:
        """End what nobody came back for."""
        now = self._clock.monotonic()
        for parked in [each for each in self._parked.values() if each.until <= now and each.hear is None]:
            self._end(parked)

    def close(self) -> None:
        """The hub stops."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for parked in list(self._parked.values()):
            self._end(parked)

    def _end(self, parked: Parked) -> None:
        self._parked.pop(parked.id, None)
        parked.task.add_done_callback(_forget_outcome)
        parked.task.cancel()

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


def digest_of(method: str, params: Mapping[str, RawJson]) -> bytes:
    """What the same request has in common with itself, whatever answers and metadata it carries and in whatever order it is written."""
    kept = {name: msgspec.json.decode(value) for name, value in params.items() if name not in ("_meta", RESPONSES, STATE)}
    return blake2b(method.encode() + b"\0" + msgspec.json.encode(kept, order="sorted"), digest_size=16).digest()


def _text(raw: RawJson | None) -> str | None:
    try:
        return None if raw is None else _string.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def _forget_outcome(task: asyncio.Task[Exchanged]) -> None:
    if not task.cancelled():
        task.exception()
