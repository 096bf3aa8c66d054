"""Removes files that were written for documents which then never came to be."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.documents.files import prune_blobs
from plughub.jobs.loop import Handler
from plughub.settings import Settings

KIND = "prune_documents"
EVERY_S = 3600.0


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        await prune_blobs(database)

    return Handler(run, every_s=EVERY_S)
