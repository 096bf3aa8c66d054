"""Counts what was called."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.settings import Settings
from plughub.usage.rollup import roll_up

KIND = "roll_up_usage"
# Answers count what is newer themselves, so this is how much they have to; a rarer count is a cheaper one.
EVERY_S = 10.0


def handler(_settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        await roll_up(database)

    return Handler(run, every_s=EVERY_S)
