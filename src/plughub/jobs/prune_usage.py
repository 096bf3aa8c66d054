"""Removes counts that have grown old: of minutes after days, of hours after weeks, of days after a year; and flags that are over."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.settings import Settings
from plughub.usage.cells import GRAIN_S
from plughub.usage.flags import prune_flags
from plughub.usage.rollup import prune

KIND = "prune_usage"
EVERY_S = 3600.0


def handler(_settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_flags(uow)
        for grain in GRAIN_S:
            more = True
            while more:
                async with database.unit_of_work() as uow:
                    more = await prune(uow, grain)

    return Handler(run, every_s=EVERY_S)
