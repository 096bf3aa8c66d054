"""Removes what the authorization server needs no more: codes, tokens, devices and grants whose time is over, clients nobody uses."""

from plughub.db.engine import Database
from plughub.db.jobs import Job
from plughub.jobs.loop import Handler
from plughub.oauth.clients import prune_clients
from plughub.oauth.devices import prune_devices
from plughub.oauth.grants import prune_grants
from plughub.settings import Settings

KIND = "prune_oauth"
EVERY_S = 900.0


def handler(_settings: Settings) -> Handler:
    """The recurring job, for the job loop."""

    async def run(database: Database, _job: Job) -> None:
        async with database.unit_of_work() as uow:
            await prune_devices(uow)
            await prune_grants(uow)
            await prune_clients(uow)

    return Handler(run, every_s=EVERY_S)
