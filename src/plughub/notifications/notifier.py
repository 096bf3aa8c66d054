"""Makes notifications of what the log tells, each event once, whichever process is at it and whatever stops it."""

import asyncio
from collections.abc import Sequence

import structlog
from sqlalchemy import select, text, update
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.tables import space
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.watch_tables import notification_cursor
from plughub.events.log import PAGE, list_changes
from plughub.notifications.service import Letters, tell
from plughub.notifications.tellings import TELLINGS, telling_of

_AGAIN_S = 5.0
# It begins where the log ends: nobody is told of what was before there were notifications.
_BEGIN = text("INSERT INTO notification_cursor (id, change_no) SELECT 1, change_no FROM hub WHERE true ON CONFLICT (id) DO NOTHING")
log = structlog.get_logger("plughub.notifications")


async def consume(uow: UnitOfWork, letters: Letters, limit: int = PAGE) -> int:
    """Tell of the next events after the cursor and move it, in one transaction; how many events that were.

    The cursor's row is held until the commit: it is the lease. Whoever comes second begins after what the first has told.
    """
    after = (await uow.execute(select(notification_cursor.c.change_no).where(notification_cursor.c.id == 1).with_for_update())).scalar()
    if after is None:
        await uow.execute(_BEGIN)
        return 0
    events = await list_changes(uow.connection, after, limit)
    told = [(event, telling) for event in events if (telling := telling_of(event)) is not None]
    if told:
        wanted = select(space.c.id).where(space.c.id.in_({event.space_id for event, _ in told}))
        spaces = set((await uow.execute(wanted)).scalars())  # what a row of the log tells of may be gone
        for event, telling in told:
            if event.space_id in spaces:
                await tell(uow, event, telling, letters)
    if events:
        await uow.execute(update(notification_cursor).values(change_no=events[-1].change_no))
    return len(events)


class Notifier:
    """A listener of the database, which wakes it; with nothing to tell it does nothing at all."""

    def __init__(self, database: Database, letters: Letters) -> None:
        self._database = database
        self._letters = letters
        self._woken = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def follow(self, events: Sequence[Event]) -> None:
        """Something has happened that should be told."""
        if any(event.name in TELLINGS for event in events):
            self._woken.set()

    async def start(self) -> None:
        """Begin, with what the log has told since the last end."""
        async with self._database.unit_of_work() as uow:
            await uow.execute(_BEGIN)
        self._woken.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Tell what there is, and stop."""
        self._closing = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        closing = False
        while not closing:
            await self._woken.wait()
            self._woken.clear()
            closing = self._closing
            try:
                await self.tell_all()
            except (SQLAlchemyError, OSError) as error:
                log.warning("notifications_not_made", error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN_S, self._woken.set)

    async def tell_all(self) -> None:
        """Up to the end of the log, a page a transaction."""
        told = PAGE
        while told == PAGE:
            async with self._database.unit_of_work() as uow:
                told = await consume(uow, self._letters)
