"""Finishes the removal of an organisation: its log, and the rows that the log hangs on."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.leaving.organization import JOB, finish_removal

KIND = JOB


def handler() -> Handler:
    """For the job loop. A removal that is cut off goes on where it was."""

    async def run(database: Database, job: Job) -> None:
        await finish_removal(database, job.payload["organization_id"])

    return Handler(run)
