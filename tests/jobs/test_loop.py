"""The job loop: what it does with jobs that succeed, fail, or are cut off."""

import asyncio

import anyio
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from plughub.db.engine import Database
from plughub.db.jobs import Job, add_job
from plughub.db.tables import job
from plughub.jobs.loop import LEASE_S, Handler, JobLoop
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


class Counting:
    """A handler that notes what it ran, and fails when told to."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.failing = False
        self.again = asyncio.Event()

    async def __call__(self, database: Database, held: Job) -> None:
        self.ran.append(held)
        self.again.set()
        if self.failing:
            raise ZeroDivisionError("no")


async def states(database: Database) -> list[tuple[str, str | None]]:
    async with database.read() as connection:
        return [(row.state, row.last_error) for row in await connection.execute(select(job.c.state, job.c.last_error))]


async def add(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await add_job(uow, "k", {"n": 1})


async def test_job_runs_once_and_goes(database: Database) -> None:
    run = Counting()
    loop = JobLoop(database, {"k": Handler(run)})
    await add(database)
    assert (await loop.run_due(), await loop.run_due()) == (1, 0)
    assert [held.payload for held in run.ran] == [{"n": 1}]
    assert await states(database) == []


async def test_failing_job_is_repeated_with_pauses_and_then_kept_as_dead(database: Database, clock: FakeClock) -> None:
    run = Counting()
    run.failing = True
    loop = JobLoop(database, {"k": Handler(run, max_attempts=3)})
    await add(database)
    with capture_logs() as logs:
        for pause_s in (12, 70, 400, 10_000):
            await loop.run_due()
            clock.advance(pause_s)
    assert [held.attempts for held in run.ran] == [1, 2, 3]
    assert await states(database) == [("dead", "ZeroDivisionError: no")]
    assert [entry["dead"] for entry in logs] == [False, False, True]


async def test_one_failing_job_keeps_no_other_from_running(database: Database) -> None:
    good, bad = Counting(), Counting()
    bad.failing = True
    loop = JobLoop(database, {"k": Handler(good), "bad": Handler(bad)})
    async with database.unit_of_work() as uow:
        await add_job(uow, "bad")
        await add_job(uow, "k")
    with capture_logs():
        assert await loop.run_due() == 2
    assert (len(good.ran), len(bad.ran)) == (1, 1)


async def test_recurring_job_is_there_from_the_start_once_and_comes_back_even_after_failures(database: Database, clock: FakeClock) -> None:
    run = Counting()
    loops = [JobLoop(database, {"k": Handler(run, every_s=100, max_attempts=1)}) for _ in range(2)]
    with capture_logs(), anyio.fail_after(5):
        for loop in loops:
            await loop.start()
        await run.again.wait()
        for loop in loops:
            await loop.aclose()
        assert len(run.ran) == 1
        run.failing = True
        for _ in range(3):
            clock.advance(10_000)
            assert await loops[0].run_due() == 1
    assert len(await states(database)) == 1


@pytest.mark.requirement("data.jobs-are-leased")
async def test_job_whose_process_died_is_run_by_another_after_the_lease(database: Database, clock: FakeClock) -> None:
    run, started = Counting(), asyncio.Event()

    async def stuck(database: Database, held: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    await add(database)
    dying, other = JobLoop(database, {"k": Handler(stuck)}), JobLoop(database, {"k": Handler(run)})
    with anyio.fail_after(5):
        await dying.start()
        await started.wait()
        await dying.aclose()
    assert await other.run_due() == 0
    clock.advance(LEASE_S)
    assert await other.run_due() == 1
    assert await states(database) == []


async def test_new_job_runs_at_once_when_the_loop_is_woken(database: Database) -> None:
    run = Counting()
    loop = JobLoop(database, {"k": Handler(run)}, idle_s=3600)
    await loop.start()
    await add(database)
    loop.wake()
    with anyio.fail_after(5):
        await run.again.wait()
    await loop.aclose()
