"""Calls at a steady rate, whether or not the ones before have been answered."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.flows.running_hub import Json, RunningHub


@dataclass
class Done:
    """One answered call: when it was sent and answered (`time.monotonic`), and what came."""

    sent: float
    ended: float
    status: int
    body: Json

    @property
    def seconds(self) -> float:
        return self.ended - self.sent


@dataclass(frozen=True)
class Call:
    """A tool call; `uuid` is the server's."""

    uuid: str
    tool: str
    parameters: Json
    timeout_ms: int = 5000


class Caller:
    """One client with as many connections as it needs; use as an async context manager."""

    def __init__(self, hub: RunningHub) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"Authorization": f"Bearer {hub.key}"}
        self._client = httpx2.AsyncClient(base_url=hub.url, timeout=30, limits=limits, headers=headers)

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._client.aclose()

    async def once(self, call: Call) -> Done:
        """One call; a connection that breaks is status 0."""
        sent = time.monotonic()
        body = {"parameters": call.parameters, "timeout_ms": call.timeout_ms}
        try:
            answer = await self._client.post(f"/api/servers/{call.uuid}/tools/{call.tool}/execute", json=body)
        except httpx2.TransportError as error:
            return Done(sent, time.monotonic(), 0, {"error": repr(error)})
        return Done(sent, time.monotonic(), answer.status_code, answer.json())

    async def steadily(self, rate: float, seconds: float, call_of: Callable[[int], Call]) -> list[Done]:
        """`rate` calls a second for so long; all answers, in the order of the calls."""
        loop, began, calls = asyncio.get_running_loop(), time.monotonic(), []
        turn = asyncio.Event()
        for number in range(int(rate * seconds)):
            turn.clear()
            loop.call_later(max(0.0, began + number / rate - time.monotonic()), turn.set)
            await turn.wait()
            calls.append(asyncio.create_task(self.once(call_of(number))))
        return list(await asyncio.gather(*calls))
