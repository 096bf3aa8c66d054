"""Removes what was seen of servers long ago, and what is more than enough."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.servers.health import DAY_S, prune_seen
from plughub.settings import Settings

KIND = "prune_health"
EVERY_S = 3600.0


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    keep_s = settings.event_retention_days * DAY_S

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_seen(uow, database.clock.time() - keep_s)

    return Handler(run, every_s=EVERY_S)
