"""Hearing what other processes have changed."""

import asyncio
from collections.abc import Sequence

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.tables import hub
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import RESTRICTING
from plughub.events.log import PAGE, list_changes
from plughub.kit.ids import new_id

POLL_S = 0.25
# A process that has not polled for so long stops trusting its caches; nobody has to wait longer for it.
TRUST_S = 1.0
_LIVE_S = 3.0
_ASK_S = 0.02
_FORGET_S = 3600.0

# The database's own clock: machines need not agree about the time.
_SEEN = text(
    "INSERT INTO node (id, seen_at, change_no) VALUES (:id, extract(epoch FROM clock_timestamp()), :change_no)"
    " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, change_no = excluded.change_no RETURNING"
    " (SELECT count(*) FROM node WHERE id <> :id AND seen_at > extract(epoch FROM clock_timestamp()) - :live_s)"
)
_BEHIND = text(
    "SELECT count(*) FROM node WHERE id <> :id AND change_no < :change_no AND seen_at > extract(epoch FROM clock_timestamp()) - :live_s"
)
_LIVES = text("SELECT id FROM node WHERE id = :id AND seen_at > extract(epoch FROM clock_timestamp()) - :live_s")
_FORGET = text("DELETE FROM node WHERE id = :id OR seen_at < extract(epoch FROM clock_timestamp()) - :forget_s")
_log = structlog.get_logger("plughub.follower")


class Follower:
    """Polls the change number of the hub and hands the events of other processes to `database.listeners`.

    On SQLite one process owns the file, so there is nothing to poll and `trusted()` is always true. On PostgreSQL a unit of work
    that takes something away (a revoked key, a deleted server) exits only when every live process has followed it, or after
    TRUST_S, when those that have not no longer trust what they remember.
    """

    def __init__(self, database: Database, *, node_id: str | None = None, poll_s: float = POLL_S) -> None:
        self.node_id = node_id or new_id()
        self.live_processes = 1  # on this database, at the last poll
        self._database = database
        self._clock = database.clock
        self._poll_s = poll_s
        self._shared = database.kind == "postgresql"
        self._followed = -1
        self._polled_at = float("-inf")
        self._own: set[int] = set()
        self._newest_own = 0
        self._polling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def trusted(self) -> bool:
        """Whether caches may answer from memory."""
        return not self._shared or self._clock.monotonic() - self._polled_at < TRUST_S

    async def start(self) -> None:
        """Begin to follow. Before this nothing may be cached."""
        if not self._shared:
            return
        self._database.after_commit = self._committed
        await self.poll()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop, and let nobody wait for this process any more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._database.after_commit = None
        try:
            async with self._database.unit_of_work() as uow:
                await uow.execute(_FORGET, {"id": self.node_id, "forget_s": _FORGET_S})
        except (SQLAlchemyError, OSError) as error:
            _log.warning("node_not_removed", error=str(error))

    async def poll(self) -> None:
        """Follow up to the newest change, then say so to the others. Nothing to do on SQLite."""
        if not self._shared:
            return
        async with self._polling:
            # From before the read: what is committed after it is not yet known, and counts against the trust.
            began = self._clock.monotonic()
            async with self._database.read() as connection:
                newest: int = (await connection.execute(select(hub.c.change_no))).scalar_one()
                if self._followed < 0:
                    self._followed = newest
                while self._followed < newest:
                    events = await list_changes(connection, self._followed, PAGE)
                    await self._pass_on(events)
                    self._followed = (events[-1].change_no if events else None) or newest
                seen = {"id": self.node_id, "change_no": self._followed, "live_s": _LIVE_S}
                self.live_processes = 1 + (await connection.execute(_SEEN, seen)).scalar_one()
            self._polled_at = began

    async def lives(self, node_id: str) -> bool:
        """Whether that process is this one, or another that works on the same database."""
        if not self._shared or node_id == self.node_id:
            return node_id == self.node_id
        async with self._database.read() as connection:
            return (await connection.execute(_LIVES, {"id": node_id, "live_s": _LIVE_S})).first() is not None

    async def settle(self) -> None:
        """Return when every live process has followed this process's last change, or TRUST_S have passed."""
        if not self._shared or not self._newest_own:
            return
        wanted = {"id": self.node_id, "change_no": self._newest_own, "live_s": _LIVE_S}
        end = self._clock.monotonic() + TRUST_S
        async with self._database.read() as connection:
            while (await connection.execute(_BEHIND, wanted)).scalar_one() and self._clock.monotonic() < end:
                await asyncio.sleep(_ASK_S)

    async def _committed(self, events: Sequence[Event]) -> None:
        """The events of this process: listeners have them already, the poll need not hand them out again."""
        numbers = [event.change_no for event in events if event.change_no is not None]
        self._own.update(number for number in numbers if number > self._followed)
        self._newest_own = max(self._newest_own, *numbers)
        if any(event.name in RESTRICTING for event in events):
            await self.settle()

    async def _pass_on(self, events: Sequence[Event]) -> None:
        foreign = [event for event in events if event.change_no not in self._own]
        self._own.difference_update(event.change_no for event in events if event.change_no is not None)
        await self._database.dispatch(foreign)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.poll()
            except (SQLAlchemyError, OSError) as error:
                # Trust runs out by itself; what is asked then goes to the database, and fails there if it is down.
                _log.warning("poll_failed", error=str(error))
