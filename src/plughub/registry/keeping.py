"""Removes the files of packages that nobody uses any more: when a server goes, and once an hour what a hub that was killed has left."""

import asyncio
from collections.abc import Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import SERVER_UNINSTALLED
from plughub.registry.installing import sweep
from plughub.registry.packages import Packages

_EVERY_S = 3600.0
_log = structlog.get_logger("plughub.registry")


class Keeper:
    """One task of every process, for the files are on its machine."""

    def __init__(self, database: Database, packages: Packages) -> None:
        self._database = database
        self._packages = packages
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        database.listeners.append(self.follow)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop; what is left over is removed by the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def follow(self, events: Sequence[Event]) -> None:
        """A server of the registry has gone."""
        if any(event.name == SERVER_UNINSTALLED for event in events):
            self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await sweep(self._database, self._packages)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("packages_not_swept", error=str(error))
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
