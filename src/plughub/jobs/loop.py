"""The one loop that runs jobs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.jobs import Job, add_job, claim_jobs, extend_lease, finish_job, has_due_job, retry_job
from plughub.kit.ids import new_id

Run = Callable[[Database, Job], Awaitable[None]]

LEASE_S = 60.0
_EXTEND_S = LEASE_S / 3
_AT_ONCE = 4
_RETRY_S = (10.0, 60.0, 300.0, 1800.0, 7200.0)
_log = structlog.get_logger("plughub.jobs")


@dataclass(frozen=True, slots=True)
class Handler:
    """What runs jobs of one kind. With `every_s` one such job is always there and comes back so long after each run.

    A job that fails comes back with growing pauses; after `max_attempts` it stays as dead, a recurring one goes on.
    """

    run: Run
    every_s: float | None = None
    max_attempts: int = 5


class JobLoop:
    """Claims due jobs and runs them, a few at once. Any number of processes may run one."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler], *, idle_s: float = 2.0) -> None:
        self._database = database
        self._clock = database.clock
        self._handlers = dict(handlers)
        self._idle_s = idle_s
        self._owner = new_id()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make sure that the recurring jobs are there, and begin."""
        async with self._database.unit_of_work() as uow:
            for kind, handler in self._handlers.items():
                if handler.every_s is not None:
                    await add_job(uow, kind, dedupe=kind)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop. A job that is cut off is claimed again when its lease has run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def wake(self) -> None:
        """There is a new job: look now."""
        self._wake.set()

    async def run_due(self) -> int:
        """Run what is due now; how many jobs that was."""
        kinds = self._handlers.keys()
        async with self._database.read() as connection:
            if not await has_due_job(connection, self._clock.time(), kinds):
                return 0
        async with self._database.unit_of_work() as uow:
            claimed = await claim_jobs(uow, self._owner, kinds, lease_s=LEASE_S, limit=_AT_ONCE)
        for result in await asyncio.gather(*(self._run_one(job) for job in claimed), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return len(claimed)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                busy = await self.run_due()
            except (SQLAlchemyError, OSError) as error:
                # The leases of what could not be settled run out; the work is done again.
                _log.warning("jobs_not_settled", error=str(error))
                busy = 0
            if not busy:
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _run_one(self, job: Job) -> None:
        handler = self._handlers[job.kind]
        holding = asyncio.get_running_loop().create_task(self._hold(job))
        try:
            # gather hands over the failure as a value, whatever it is, and passes a cancellation on.
            [failure] = await asyncio.gather(handler.run(self._database, job), return_exceptions=True)
            if failure is not None:
                await self._failed(job, handler, failure)
                return
            again_at = None if handler.every_s is None else self._clock.time() + handler.every_s
            async with self._database.unit_of_work() as uow:
                await finish_job(uow, job, again_at=again_at)
        finally:
            holding.cancel()
            await asyncio.wait([holding])

    async def _hold(self, job: Job) -> None:
        while True:
            await asyncio.sleep(_EXTEND_S)
            try:
                async with self._database.unit_of_work() as uow:
                    if not await extend_lease(uow, job, LEASE_S):
                        return
            except (SQLAlchemyError, OSError) as error:
                _log.warning("lease_not_extended", job_id=job.id, error=str(error))

    async def _failed(self, job: Job, handler: Handler, error: BaseException) -> None:
        dead = handler.every_s is None and job.attempts >= handler.max_attempts
        _log.error("job_failed", kind=job.kind, job_id=job.id, attempts=job.attempts, dead=dead, exc_info=error)
        pause_s = _RETRY_S[min(job.attempts, len(_RETRY_S)) - 1] * random.uniform(0.9, 1.1)
        async with self._database.unit_of_work() as uow:
            await retry_job(uow, job, f"{type(error).__name__}: {error}", run_at=None if dead else self._clock.time() + pause_s)
