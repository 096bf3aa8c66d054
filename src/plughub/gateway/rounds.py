"""Looking at servers now and then without being asked: the hub knows that one has fallen before its next caller does."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.gateway.exchange import Exchange
from plughub.gateway.probes import Probes, hub_itself
from plughub.kit.crypto import SealBroken
from plughub.kit.errors import HubError
from plughub.servers.rounds import Due, claim, has_due, settle
from plughub.upstream.pool import Pool

AT_ONCE = 16
_TICK_S = 5.0
log = structlog.get_logger("plughub.servers")


class Rounds:
    """Takes what is due and looks at it, `AT_ONCE` at a time. Any number of processes may go round: each server is one's alone.

    Of the commands a process takes those that are connected here; one that rests is started by nobody.
    """

    def __init__(self, probes: Probes, exchange: Exchange, pool: Pool, database: Database, interval_s: float) -> None:
        self._probes = probes
        self._exchange = exchange
        self._pool = pool
        self._database = database
        self._interval_s = interval_s
        self._looks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; with an interval of 0 never."""
        if self._interval_s:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop; looks that run are given up."""
        tasks = [*self._looks, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def go_round(self) -> int:
        """Begin to look at what is due, as far as there is room; how many servers that are."""
        room = AT_ONCE - len(self._looks)
        connected = self._pool.connected()
        async with self._database.read() as connection:
            if room <= 0 or not await has_due(connection, self._database.clock.time(), connected):
                return 0
        async with self._database.unit_of_work() as uow:
            taken = await claim(uow, connected, self._interval_s, room)
        for due in taken:
            look = asyncio.get_running_loop().create_task(self._look(due))
            self._looks.add(look)
            look.add_done_callback(self._done)
        return len(taken)

    async def looked(self) -> None:
        """Return when no look is under way."""
        while self._looks:
            await asyncio.wait(self._looks)

    def _done(self, look: asyncio.Task[None]) -> None:
        self._looks.discard(look)
        self._free.set()

    async def _look(self, due: Due) -> None:
        try:
            target = await self._exchange.target(hub_itself(due.space_id), due.server_id)
            # Changed meanwhile, or the command has gone to rest.
            if not target.enabled or (target.transport == "STDIO" and self._pool.ready(target) is None):
                return
            seen = await self._probes.look(target)
            if seen is not None:
                good = seen.status != "error"
                if not good or due.failures:
                    async with self._database.unit_of_work() as uow:
                        await settle(uow, due, self._interval_s, good=good)
        except HubError:
            pass  # deleted meanwhile
        except (SQLAlchemyError, OSError, SealBroken) as error:
            log.warning("server_not_looked_at", server_id=due.server_id, error=str(error))

    async def _run(self) -> None:
        while True:
            self._free.clear()
            taken = 0
            try:
                taken = await self.go_round()
            except (SQLAlchemyError, OSError) as error:
                log.warning("rounds_not_made", error=str(error))
            if not taken or len(self._looks) < AT_ONCE:
                await asyncio.sleep(_TICK_S)
                continue
            # With every place taken there may be more: it goes on as soon as one is free.
            await self._free.wait()
