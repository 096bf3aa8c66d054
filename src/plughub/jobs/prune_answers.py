"""Removes answers to requests with an Idempotency-Key that are older than a day."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.db.kept_answers import prune_answers
from plughub.jobs.loop import Handler
from plughub.settings import Settings

KIND = "prune_answers"
EVERY_S = 900.0


def handler(_settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_answers(uow)

    return Handler(run, every_s=EVERY_S)
