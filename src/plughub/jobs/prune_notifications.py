"""Removes notifications that have grown old, read or not."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.notifications.store import prune_notifications
from plughub.settings import Settings

KIND = "prune_notifications"
EVERY_S = 3600.0
DAY_S = 86_400.0


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    keep_s = settings.event_retention_days * DAY_S

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_notifications(uow, database.clock.time() - keep_s)

    return Handler(run, every_s=EVERY_S)
