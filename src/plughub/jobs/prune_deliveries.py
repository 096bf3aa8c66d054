"""Removes deliveries that have grown old, and those of webhooks that are gone."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.jobs.prune_events import DAY_S, EVERY_S
from plughub.settings import Settings
from plughub.webhooks.outbox import prune_deliveries

KIND = "prune_deliveries"


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    keep_s = settings.event_retention_days * DAY_S

    async def run(database: Database, _job: Job) -> None:
        await prune_deliveries(database, database.clock.time() - keep_s)

    return Handler(run, every_s=EVERY_S)
