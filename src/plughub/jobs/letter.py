"""Writes to people: makes the link that a letter holds, and sends it where there is a mail server."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.identity.letters import JOB, prepare
from plughub.identity.mailer import Mailer
from plughub.jobs.loop import Handler
from plughub.kit.crypto import Sealer
from plughub.settings import Settings

KIND = JOB


def handler(settings: Settings, sealer: Sealer) -> Handler:
    """For the job loop. A mail that was not taken is tried again, with a new link."""
    mailer = Mailer(settings)
    # Never from a request: whoever asks for somebody else's link could choose where it leads.
    base_url = (settings.public_url or f"http://{settings.host}:{settings.port}").rstrip("/")

    async def run(database: Database, job: Job) -> None:
        mail = await prepare(database, sealer, job.payload, base_url, mails=mailer.enabled)
        if mail is not None:
            await mailer.send(mail)

    return Handler(run)
