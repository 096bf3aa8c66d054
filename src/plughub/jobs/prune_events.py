"""Removes tool calls and other requests that have grown old, and tickets that open nothing any more."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.events.log import list_space_ids, prune_requests
from plughub.gateway.tickets import forget_tickets
from plughub.jobs.loop import Handler
from plughub.settings import Settings

KIND = "prune_events"
EVERY_S = 3600.0
DAY_S = 86_400.0
# Small transactions: the write lock is never held for long.
_AT_ONCE = 2000


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    keep_s = settings.event_retention_days * DAY_S

    async def run(database: Database, _job: Job) -> None:
        await prune_events(database, database.clock.time() - keep_s)
        async with database.unit_of_work() as uow:
            await forget_tickets(uow)

    return Handler(run, every_s=EVERY_S)


async def prune_events(database: Database, before_at: float) -> int:
    """Remove every row of a request from before `before_at` (epoch seconds); how many that were."""
    removed = 0
    async with database.read() as connection:
        space_ids = await list_space_ids(connection)
    for space_id in space_ids:
        gone = _AT_ONCE
        while gone == _AT_ONCE:
            async with database.unit_of_work() as uow:
                gone = await prune_requests(uow, space_id, before_at, _AT_ONCE)
            removed += gone
    return removed
