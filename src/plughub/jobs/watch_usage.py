"""Raises flags of keys, fires and resolves alerts."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.kit.crypto import Sealer
from plughub.usage.watch import watch

KIND = "watch_usage"
EVERY_S = 60.0


def handler(sealer: Sealer) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        await watch(database, sealer)

    return Handler(run, every_s=EVERY_S)
