"""How a server is, looked at now and then: on request, at most every `PROBE_EVERY_S`, and never by starting what rests."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.gateway.exchange import Call, Exchange
from plughub.kit.caller import SCOPES, TIERS, Caller
from plughub.kit.errors import HubError, Unavailable
from plughub.servers.health import Seen, find_probe, find_uptime, keep_seen
from plughub.servers.status import StatusBoard
from plughub.upstream.pool import Pool
from plughub.upstream.target import Target

PROBE_EVERY_S = 30.0
PROBE_TIMEOUT_S = 5.0
log = structlog.get_logger("plughub.servers")


@dataclass(frozen=True, slots=True)
class Health:
    """The newest state of a server. `latency_us` is the last look's; times in epoch seconds; `uptime_24h` 0 to 1."""

    status: str
    checked_at: float | None
    latency_us: int | None
    uptime_24h: float | None
    last_error: str | None


class Report(Protocol):
    """Who hears what a look has found."""

    def probed(self, target: Target, seen: Seen) -> None:
        """Called before the look is kept; must not raise."""


def hub_itself(space_id: str) -> Caller:
    """The hub looking at a server of a space for its own records, on behalf of nobody."""
    return Caller("", space_id, "live", "", "secret", SCOPES, None, TIERS["enterprise"], operator=False, stdio_allowed=False)


class Probes:
    """Looks at servers. Looks of one server are shared while they run; what they saw is kept in the database for every process.

    A look is no use of a server: it does not keep a connection from its rest.
    """

    def __init__(self, exchange: Exchange, pool: Pool, board: StatusBoard, database: Database, report: Report) -> None:
        self._report = report
        self._exchange = exchange
        self._pool = pool
        self._board = board
        self._database = database
        self._clock = database.clock
        self._running: dict[tuple[str, int], asyncio.Task[Seen | None]] = {}

    async def health(self, caller: Caller, target: Target) -> Health:
        """How the server is; looks when the last look is old."""
        last = await self._newest(caller, target)
        async with self._database.read() as connection:
            uptime = await find_uptime(connection, target.server_id, self._clock.time())
        return self._health(target, last, uptime)

    def _is_due(self, target: Target, last: Seen | None) -> bool:
        if last is None:
            return True
        if self._clock.time() - last.at < PROBE_EVERY_S:
            return False
        # A command that rests is not started for a look: it is as good as it was when it last ran.
        return target.transport != "STDIO" or self._pool.ready(target) is not None or self._board.get(target.server_id).status == "error"

    async def look(self, target: Target) -> Seen | None:
        """A look of the hub's own, or the one that runs; what it saw is kept. None when nothing can be said: the server is too busy."""
        return await self._shared(target, self._look(hub_itself(target.space_id), target))

    async def _newest(self, caller: Caller, target: Target) -> Seen | None:
        return await self._shared(target, self._look_when_due(caller, target))

    async def _shared(self, target: Target, work: Coroutine[Any, Any, Seen | None]) -> Seen | None:
        key = target.server_id, target.revision
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.get_running_loop().create_task(work)
            running.add_done_callback(lambda _: self._running.pop(key, None))
        else:
            work.close()
        # Shielded: one caller going away must not take the answer from the others.
        return await asyncio.shield(running)

    async def _look_when_due(self, caller: Caller, target: Target) -> Seen | None:
        """Reading the last look is part of what is shared: else a slow reader would look again beside one that has just looked."""
        async with self._database.read() as connection:
            last = await find_probe(connection, target.server_id)
        if not target.enabled or not self._is_due(target, last):
            return last
        return await self._look(caller, target) or last

    async def _look(self, caller: Caller, target: Target) -> Seen | None:
        seen = await self._ask(caller, target)
        if seen is None:
            return None
        self._report.probed(target, seen)
        try:
            async with self._database.unit_of_work() as uow:
                await keep_seen(uow, target.server_id, seen)
        except (SQLAlchemyError, OSError) as error:
            log.warning("health_not_kept", server_id=target.server_id, error=str(error))
        return seen

    async def _ask(self, caller: Caller, target: Target) -> Seen | None:
        """Any answer is a sign of life, an error too: not every server knows `ping`. None: as many calls as may run are under way."""
        try:
            upstream = await self._exchange.connect(target)
            self._pool.look(target)
            method = "ping" if upstream.facts.era == "legacy" else "server/discover"
            done = await self._exchange.exchange(caller, target, Call(method, {}, "", "health", PROBE_TIMEOUT_S))
        except Unavailable:
            return None
        except HubError as error:
            return Seen(self._clock.time(), "probe", "error", error=error.text)
        return Seen(self._clock.time(), "probe", "connected", done.duration_us)

    def _health(self, target: Target, last: Seen | None, uptime: float | None) -> Health:
        state = self._board.get(target.server_id)
        status, error, checked_at = str(state.status), state.last_error, state.checked_at
        if last is not None and (checked_at is None or last.at >= checked_at):
            checked_at = last.at
            if last.status == "error":  # it may hang with its connection open, which the board cannot know
                status, error = "error", last.error
        if not target.enabled:
            status = "disabled"
        return Health(status, checked_at, last.latency_us if last is not None else None, uptime, error)
