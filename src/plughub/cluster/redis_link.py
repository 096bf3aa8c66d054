"""One connection to Redis: everything goes over it in order, what waits goes together."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from plughub.kit.ids import new_id

# Whoever waits longer for an answer does without: the request that waits has a client.
TIMEOUT_S = 1.0
_AT_ONCE = 256
_SINCE = "plughub:limits:since"
_FAULTS = (RedisError, OSError, TimeoutError)


class LinkLost(Exception):
    """Redis cannot be asked; in words without its address or password."""


class RedisLink:
    """Commands and calls of one script, queued by `tell` and `ask`, sent by `flush`, whose caller is the only one that waits for Redis.

    Requests that come in while others are under way go together in the next round trip: order is kept, and a distant Redis costs
    time but no throughput.
    """

    def __init__(self, url: str, script: str, timeout_s: float = TIMEOUT_S) -> None:
        self._script = script
        self._sha = ""
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[list[Any]] | None]] = []
        self.wake = asyncio.Event()
        self._client = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name="plughub",
        )

    async def connect(self) -> str:
        """See that Redis can be written to. Gives a word that is another one when it has lost what it held. Raises LinkLost."""
        try:
            self._sha = await self._client.script_load(self._script)
            await self._client.set(_SINCE, new_id(), nx=True)
            return str(await self._client.get(_SINCE))
        except _FAULTS as error:
            raise LinkLost(_said(error)) from error

    def ask(self, keys: list[str], *arguments: Any) -> "asyncio.Future[list[Any]]":
        """Call the script; the future gives its answer or raises LinkLost."""
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._queue((self._sha, len(keys), *keys, *arguments), reply)
        return reply

    def call(self, keys: list[str], *arguments: Any) -> None:
        """Call the script, whose answer nobody wants."""
        self._queue((self._sha, len(keys), *keys, *arguments), None)

    def give_back(self, places: str, lease: str) -> None:
        """Take a lease out of a sorted set."""
        self._queue(("ZREM", places, lease), None)

    def _queue(self, command: tuple[Any, ...], reply: "asyncio.Future[list[Any]] | None") -> None:
        self._waiting.append((command, reply))
        self.wake.set()

    async def flush(self) -> None:
        """Send what waits, and what comes in meanwhile. Raises LinkLost. Whatever it raises, everybody who waited has been told."""
        self.wake.clear()
        while self._waiting:
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            try:
                answers = await self._exchange([command for command, _ in batch])
            except _FAULTS as error:
                raise self._lost(batch, error) from error
            except BaseException as error:
                self._lost(batch, error)
                raise
            for (_, reply), answer in zip(batch, answers, strict=True):
                if reply is not None and not reply.done() and not isinstance(answer, Exception):
                    reply.set_result(answer)
            fault = next((answer for answer in answers if isinstance(answer, Exception)), None)
            if fault is not None:
                raise self._lost(batch, fault) from fault

    async def _exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        answers = await self._execute(commands)
        again = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if again:  # somebody has emptied the cache of scripts; these commands have done nothing yet
            await self._client.script_load(self._script)
            for number, answer in zip(again, await self._execute([commands[number] for number in again]), strict=True):
                answers[number] = answer
        return answers

    async def _execute(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                if command[0] == "ZREM":
                    pipe.zrem(*command[1:])
                else:
                    pipe.evalsha(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            return answers

    def _lost(self, batch: list[tuple[tuple[Any, ...], "asyncio.Future[list[Any]] | None"]], error: BaseException) -> LinkLost:
        waiting, self._waiting = [*batch, *self._waiting], []
        self.wake.clear()
        for _, reply in waiting:
            if reply is not None and not reply.done():
                reply.set_exception(LinkLost(_said(error)))
        return LinkLost(_said(error))

    def tell_lost(self, error: BaseException) -> LinkLost:
        """Nobody sends what waits any more: tell them."""
        return self._lost([], error)

    async def aclose(self) -> None:
        """Let go of the connection; whoever still waits is told."""
        self._lost([], ConnectionAbortedError("the hub is stopping"))
        try:
            await self._client.aclose()
        except _FAULTS:
            pass


def _said(error: BaseException) -> str:
    # The library's messages name host and port, never the password; a ResponseError is the server's own sentence.
    return f"{type(error).__name__}: {error}"[:200]
