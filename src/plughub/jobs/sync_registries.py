"""Asks other registries for what is new, and counts the stars that are left."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.registry.activity import recount_stars
from plughub.registry.federation import Federation
from plughub.settings import Settings

KIND = "sync_registries"


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        await Federation(database, settings.registries).sync()
        async with database.unit_of_work() as uow:
            await recount_stars(uow)

    return Handler(run, every_s=settings.registry_sync_s)
