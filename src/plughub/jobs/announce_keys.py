"""Tells of keys that expire soon, and of those whose secret is old."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.keys.notices import announce
from plughub.settings import Settings

KIND = "announce_keys"
EVERY_S = 3600.0
# Small transactions: the write lock is never held for long.
_AT_ONCE = 200


def handler(_settings: Settings) -> Handler:
    """The recurring job, for the job loop."""
    return Handler(_run, every_s=EVERY_S)


async def _run(database: Database, _job: Job) -> None:
    told = 1
    while told:
        async with database.unit_of_work() as uow:
            told = await announce(uow, _AT_ONCE)
