"""Telling who waits that the log of a space has grown."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.tables import space
from plughub.db.unit_of_work import Event
from plughub.events.follower import POLL_S, Follower

# Called with the space's id on the event loop's thread; must return at once.
Watcher = Callable[[str], None]
_log = structlog.get_logger("plughub.tail")


class Tail:
    """Watchers of spaces. It carries no event: a watcher reads the log since the number that it has, so nothing is missed or doubled,
    and to be told once too often costs one look.

    What this process wrote is told at once (`follow` of its changes, `grown` of its tool calls); what other processes wrote within
    `POLL_S`, because their tool calls are in no process's news. As many entries as watchers, who take themselves away.
    """

    def __init__(self, database: Database, follower: Follower) -> None:
        self._database = database
        self._follower = follower
        self._watchers: dict[str, list[Watcher]] = {}
        self._seen: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, space_id: str, watcher: Watcher) -> None:
        """Tell `watcher` from now on. It reads once after this: what was written before is not told."""
        self._watchers.setdefault(space_id, []).append(watcher)

    def unwatch(self, space_id: str, watcher: Watcher) -> None:
        """Tell it no more."""
        watchers = self._watchers.get(space_id, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(space_id, None)
            self._seen.pop(space_id, None)

    def grown(self, space_ids: Iterable[str]) -> None:
        """These spaces have rows that they had not."""
        for space_id in space_ids:
            for watcher in tuple(self._watchers.get(space_id, ())):
                watcher(space_id)

    async def follow(self, events: Sequence[Event]) -> None:
        """A listener of the database."""
        self.grown({event.space_id for event in events})

    def start(self) -> None:
        """Begin to look for what other processes write; on SQLite there are none."""
        if self._database.kind == "postgresql":
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def look(self) -> None:
        """Tell of the watched spaces whose number has changed since the last look."""
        if not self._watchers:
            return
        query = select(space.c.id, space.c.seq).where(space.c.id.in_(list(self._watchers)))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        changed = [row.id for row in rows if self._seen.get(row.id) != row.seq]
        self._seen = {row.id: row.seq for row in rows if row.id in self._watchers}
        self.grown(changed)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if self._follower.live_processes < 2:
                continue
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("tail_not_polled", error=str(error))
