"""What a server of a handshake revision asks in the middle of a request: put to the client that it works for just then."""

import asyncio
from collections.abc import Callable

import msgspec

from plughub.kit.errors import HubError
from plughub.protocol.facts import QUESTIONS
from plughub.upstream import messages
from plughub.upstream.messages import Incoming
from plughub.upstream.target import Peer

# How long a client, most often a person, may take to answer; the call that the answer is for waits so long.
ANSWER_S = 600.0
MOST_AT_ONCE = 16
_TOO_MANY = b'{"code":-32603,"message":"Too many requests to the client at once"}'
_cancelled = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Questions:
    """Of one connection. `tell` sends a message to the server; `wait` is called before a client is asked, so that calls do not expire."""

    __slots__ = ("_tasks", "_tell", "_wait")

    def __init__(self, tell: Callable[[bytes], None], wait: Callable[[float], None]) -> None:
        self._tell = tell
        self._wait = wait
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def hear(self, message: Incoming, peer: Peer | None) -> None:
        """A request of the server's: a ping is answered here, a question goes to the peer that may be asked it, all else is refused."""
        method = message.method or ""
        if peer is None or peer.ask is None or not _declared(peer, method):
            self._tell(messages.write_reply(message))
            return
        id_ = msgspec.json.encode(message.id)
        if len(self._tasks) >= MOST_AT_ONCE or id_ in self._tasks:
            self._tell(_error(id_, _TOO_MANY))
            return
        self._wait(ANSWER_S)
        task = asyncio.get_running_loop().create_task(self._ask(id_, method, bytes(message.params) or b"{}", peer))
        self._tasks[id_] = task
        task.add_done_callback(lambda _: self._tasks.pop(id_, None))

    def cancel(self, params: bytes) -> None:
        """The server does not want an answer any more (`notifications/cancelled`)."""
        try:
            id_ = bytes(_cancelled.decode(params).get("requestId", b""))
        except (msgspec.DecodeError, RecursionError):
            return
        task = self._tasks.get(id_)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        """The connection is over, or is given back."""
        for task in list(self._tasks.values()):
            task.cancel()

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


def _declared(peer: Peer, method: str) -> bool:
    capability = QUESTIONS.get(method)
    return capability is not None and b'"%b"' % capability.encode() in peer.capabilities


def _error(id_: bytes, error: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, error)
