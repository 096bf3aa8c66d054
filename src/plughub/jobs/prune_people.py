"""Removes sessions, links, invitations and counts of attempts whose time is over."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.identity.attempts import prune_attempts
from plughub.identity.links import prune_links
from plughub.identity.sessions import prune_sessions
from plughub.jobs.loop import Handler
from plughub.settings import Settings

KIND = "prune_people"
EVERY_S = 3600.0


def handler(settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_sessions(uow, settings.login_idle_s)
            await prune_links(uow)
            await prune_attempts(uow)

    return Handler(run, every_s=EVERY_S)
