"""Removes deliveries that have grown old, and those of webhooks that are gone."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.jobs.prune_events import DAY_S, EVERY_S
from plughub.settings import Settings
from plughub.webhooks.outbox import next_of, prune

KIND = "prune_deliveries"
# Small transactions: the write lock is never held for long.
_AT_ONCE = 1000


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    keep_s = settings.event_retention_days * DAY_S

    async def run(database: Database, _job: Job) -> None:
        await prune_deliveries(database, database.clock.time() - keep_s)

    return Handler(run, every_s=EVERY_S)


async def prune_deliveries(database: Database, before_at: float) -> int:
    """Remove every delivery from before `before_at` (epoch seconds), and all of deleted webhooks; how many that were."""
    removed, webhook_id = 0, ""
    while True:
        async with database.read() as connection:
            found = await next_of(connection, webhook_id)
        if found is None:
            return removed
        webhook_id, there = found
        gone = _AT_ONCE
        while gone == _AT_ONCE:
            async with database.unit_of_work() as uow:
                gone = await prune(uow, webhook_id, before_at if there else None, _AT_ONCE)
            removed += gone
