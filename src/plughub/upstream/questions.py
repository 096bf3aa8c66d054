"""What a server of a handshake revision asks in the middle of a request: put to the client that it works for just then."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from plughub.kit.errors import HubError, MissingCapability
from plughub.protocol.facts import QUESTIONS, lacking
from plughub.upstream import messages
from plughub.upstream.messages import Incoming
from plughub.upstream.target import ANSWER_S, Peer

MOST_AT_ONCE = 16
# Of one call: a server that asks without end is given no answer at some time.
MOST_PER_CALL = 64
_TOO_MANY = b'{"code":-32603,"message":"Too many requests to the client"}'
_cancelled = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class _Open:
    method: str
    task: asyncio.Task[None]


class Questions:
    """Of one connection. `tell` sends a message to the server.

    `wait` is called with the seconds that the call under way may take in addition to its own time: before a client is asked, and
    with 0 when it has answered everything.
    """

    __slots__ = ("_asked", "_open", "_tell", "_wait")

    def __init__(self, tell: Callable[[bytes], None], wait: Callable[[float], None]) -> None:
        self._tell = tell
        self._wait = wait
        self._open: dict[bytes, _Open] = {}
        self._asked = 0

    def __len__(self) -> int:
        return len(self._open)

    def hear(self, message: Incoming, peer: Peer | None, fail: Callable[[HubError], None]) -> None:
        """A request of the server's: a ping is answered here, a question goes to the peer that may be asked it, all else is refused.

        `fail` ends the call that the question belongs to: a client of 2026-07-28 is told what it would have had to declare.
        """
        method, params = message.method or "", bytes(message.params) or b"{}"
        if peer is None or method not in QUESTIONS:
            self._tell(messages.write_reply(message))
            return
        lacks = lacking(peer.capabilities, method, params)
        if lacks is not None or peer.ask is None:
            self._tell(messages.write_reply(message))
            if lacks is not None and peer.modern:
                fail(MissingCapability(f"The server asks for {method}, which the client did not declare", requiredCapabilities=lacks))
            return
        id_ = msgspec.json.encode(message.id)
        if len(self._open) >= MOST_AT_ONCE or self._asked >= MOST_PER_CALL or id_ in self._open:
            self._tell(_error(id_, _TOO_MANY))
            return
        self._asked += 1
        self._wait(ANSWER_S)
        task = asyncio.get_running_loop().create_task(self._ask(id_, method, params, peer))
        self._open[id_] = _Open(method, task)
        task.add_done_callback(lambda _: self._over(id_))

    def _over(self, id_: bytes) -> None:
        self._open.pop(id_, None)
        if not self._open:
            self._wait(0.0)

    def cancel(self, params: bytes) -> None:
        """The server does not want an answer any more (`notifications/cancelled`)."""
        try:
            id_ = bytes(_cancelled.decode(params).get("requestId", b""))
        except (msgspec.DecodeError, RecursionError):
            return
        if id_ in self._open:
            self._open[id_].task.cancel()

    async def rest(self) -> bool:
        """The call is over, and what its client was asked for it is void. Whether there was no such thing.

        Its roots a client may still tell: servers ask for them as soon as they know of it, and whatever call there is then.
        """
        self._asked = 0
        void = [each.task for each in self._open.values() if each.method != "roots/list"]
        for task in void:
            task.cancel()
        if void:
            await asyncio.wait(void)  # so that the client hears of it before the answer
        return not void

    def cancel_all(self) -> None:
        """The connection is over."""
        for each in list(self._open.values()):
            each.task.cancel()

    async def _ask(self, id_: bytes, method: str, params: bytes, peer: Peer) -> None:
        assert peer.ask is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await peer.ask(method, params)
        except TimeoutError:
            self._tell(_error(id_, b'{"code":-32603,"message":"The client did not answer in time"}'))
        except HubError as error:
            self._tell(_error(id_, msgspec.json.encode({"code": -32603, "message": error.text})))
        else:
            if answer.result is not None:
                self._tell(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_, answer.result))
            else:
                self._tell(_error(id_, answer.error or b'{"code":-32603,"message":"The client sent no answer"}'))


def _error(id_: bytes, error: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, error)
