"""Jobs: one holder at a time, and none is lost."""

import asyncio

import pytest
from sqlalchemy import select

from plughub.db.engine import Database
from plughub.db.jobs import Job, add_job, claim_jobs, extend_lease, finish_job, has_due_job, retry_job
from plughub.db.tables import job
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


async def claim(database: Database, owner: str = "me", limit: int = 10, kinds: tuple[str, ...] = ("k",)) -> list[Job]:
    async with database.unit_of_work() as uow:
        return await claim_jobs(uow, owner, kinds, lease_s=60, limit=limit)


async def add(database: Database, **given: object) -> bool:
    async with database.unit_of_work() as uow:
        return await add_job(uow, "k", **given)  # type: ignore[arg-type]


@pytest.mark.requirement("data.jobs-are-leased")
async def test_claimed_job_is_hidden_from_others_until_its_lease_runs_out(database: Database, clock: FakeClock) -> None:
    assert await add(database, payload={"a": 1})
    [held] = await claim(database, "one")
    assert (held.kind, held.payload, held.attempts, held.lease_owner) == ("k", {"a": 1}, 1, "one")
    assert await claim(database, "two") == []
    clock.advance(60)
    [taken] = await claim(database, "two")
    assert (taken.id, taken.attempts) == (held.id, 2)
    async with database.unit_of_work() as uow:
        assert not await finish_job(uow, held)  # too late: it is the other's
        assert not await extend_lease(uow, held, 60)
        assert not await retry_job(uow, held, "no", run_at=0)
        assert await finish_job(uow, taken)
    clock.advance(1000)
    assert await claim(database) == []


@pytest.mark.requirement("data.jobs-are-leased")
async def test_many_claimers_get_every_job_once(database: Database) -> None:
    async with database.unit_of_work() as uow:
        for _ in range(60):
            await add_job(uow, "k")

    async def work(owner: str) -> list[str]:
        got = []
        while found := await claim(database, owner, limit=4):
            got += [held.id for held in found]
        return got

    lists = await asyncio.gather(*(work(str(n)) for n in range(6)))
    ids = [id_ for got in lists for id_ in got]
    assert (len(ids), len(set(ids))) == (60, 60)


async def test_claimers_do_not_wait_for_each_other_on_a_shared_database(database: Database) -> None:
    if database.kind == "sqlite":
        return
    await add(database)
    await add(database)
    async with database.unit_of_work() as first:
        assert len(await claim_jobs(first, "one", ["k"], lease_s=60, limit=1)) == 1
        async with database.unit_of_work() as second:
            assert len(await claim_jobs(second, "two", ["k"], lease_s=60, limit=5)) == 1


async def test_extended_lease_holds_longer(database: Database, clock: FakeClock) -> None:
    await add(database)
    [held] = await claim(database)
    clock.advance(59)
    async with database.unit_of_work() as uow:
        assert await extend_lease(uow, held, 60)
    clock.advance(59)
    assert await claim(database) == []


async def test_job_waits_for_its_time_and_its_kind_and_the_longest_due_comes_first(database: Database, clock: FakeClock) -> None:
    now = clock.time()
    for run_at in (now + 3, now + 1, now + 2):
        await add(database, run_at=run_at, payload={"at": run_at - now})
    async with database.read() as connection:
        assert not await has_due_job(connection, now, ["k"])
        assert await has_due_job(connection, now + 1, ["k"])
        assert not await has_due_job(connection, now + 1, ["other"])
    assert await claim(database) == []
    clock.advance(3)
    assert await claim(database, kinds=("other",)) == []
    assert [held.payload["at"] for held in await claim(database, limit=2)] == [1, 2]


async def test_failed_job_comes_back_later_and_a_dead_one_stays_and_is_not_claimed(database: Database, clock: FakeClock) -> None:
    await add(database)
    [held] = await claim(database)
    async with database.unit_of_work() as uow:
        assert await retry_job(uow, held, "x" * 5000, run_at=clock.time() + 10)
    assert await claim(database) == []
    clock.advance(10)
    [held] = await claim(database)
    assert held.attempts == 2
    async with database.unit_of_work() as uow:
        assert await retry_job(uow, held, "boom", run_at=None)
    clock.advance(100_000)
    assert await claim(database) == []
    async with database.read() as connection:
        [left] = (await connection.execute(select(job))).all()
    assert (left.state, left.last_error, left.attempts) == ("dead", "boom", 2)


async def test_same_dedupe_is_one_job_until_it_is_done(database: Database) -> None:
    assert await add(database, dedupe="d")
    assert not await add(database, dedupe="d")
    [held] = await claim(database)
    async with database.unit_of_work() as uow:
        await finish_job(uow, held)
    assert await add(database, dedupe="d")


async def test_job_that_is_rolled_back_never_was(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.unit_of_work() as uow:
            await add_job(uow, "k")
            _ = 1 / 0
    assert await claim(database) == []


async def test_recurring_job_comes_back_with_a_clean_record(database: Database, clock: FakeClock) -> None:
    await add(database)
    [held] = await claim(database)
    async with database.unit_of_work() as uow:
        assert await finish_job(uow, held, again_at=clock.time() + 5)
    clock.advance(5)
    [again] = await claim(database)
    assert (again.id, again.attempts) == (held.id, 1)
