"""Gives the passages of documents their vectors, where the model for search by meaning is installed."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.documents.library import Library
from plughub.documents.vectors import Embedding
from plughub.jobs.loop import Handler

KIND = "embed_documents"
EVERY_S = 15.0


def handler(library: Library) -> Handler:
    """The recurring job, for the job loop."""
    embedding = Embedding(library.meaning)

    async def run(database: Database, _job: Job) -> None:
        await embedding.run(database)

    return Handler(run, every_s=EVERY_S)
