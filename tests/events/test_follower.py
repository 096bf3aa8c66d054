"""What one process changes, the others know."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.follower import TRUST_S, Follower
from plughub.identity.service import Organization
from plughub.keys.schemas import KeyCreate, KeyUpdate
from plughub.keys.service import Peppers, create_key, revoke_key, update_key
from plughub.kit.clock import SystemClock
from tests.conftest import CHAIN, FakeClock

pytestmark = pytest.mark.anyio
OTHER = Path(__file__).with_name("follower_process.py")


@asynccontextmanager
async def other_process(url: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), url, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdout is not None
        with anyio.fail_after(20):
            assert await process.stdout.readline() == b"ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()
        with anyio.fail_after(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(process: Process, question: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question.encode() + b"\n")
    with anyio.fail_after(10):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.requirement("data.caches-follow-the-log", "keys.revoked-answers-410")
async def test_key_revoked_here_is_revoked_at_once_in_another_process(
    database: Database, operator: Organization, peppers: Peppers, database_url: str
) -> None:
    if database.kind == "sqlite":  # one process owns the file
        return
    here = Database(database_url, SystemClock(), CHAIN)
    follower = Follower(here)
    await follower.start()
    maker = operator.founder()
    async with other_process(database_url) as process:
        for _ in range(3):
            async with here.unit_of_work() as uow:
                key, secret = await create_key(uow, maker, KeyCreate(name="k"), peppers)
            assert await ask(process, f"key {secret}") == "active"
            assert await ask(process, f"known {secret}") == "active"
            async with here.unit_of_work() as uow:
                await update_key(uow, maker, key.id, KeyUpdate(status="suspended"))
            assert await ask(process, f"key {secret}") == "suspended"
            began = time.monotonic()
            async with here.unit_of_work() as uow:
                await revoke_key(uow, maker, key.id)
            assert time.monotonic() - began < TRUST_S + 0.5
            assert await ask(process, f"key {secret}") == "revoked"
    await follower.aclose()
    await here.aclose()


@pytest.fixture
async def two(database: Database, database_url: str, clock: FakeClock) -> AsyncIterator[tuple[Database, Follower, Database, Follower]]:
    """Two processes' worth of hub on one database, polled by hand."""
    other = Database(database_url, clock, CHAIN)
    followers = [Follower(each, poll_s=3600) for each in (database, other)]
    for follower in followers:
        await follower.start()
    yield database, followers[0], other, followers[1]
    for follower in followers:
        await follower.aclose()
    await other.aclose()


def listen(database: Database) -> list[str]:
    heard: list[str] = []

    async def listener(events: Sequence[Event]) -> None:
        heard.extend(str(told.data["n"]) for told in events)

    database.listeners.append(listener)
    return heard


Two = tuple[Database, Follower, Database, Follower]


@pytest.mark.requirement("data.caches-follow-the-log")
async def test_each_process_hears_every_change_once_and_in_order(two: Two, tenant: Organization) -> None:
    one, follow_one, other, follow_other = two
    if one.kind == "sqlite":
        return
    await follow_one.poll()
    await follow_other.poll()
    here, there = listen(one), listen(other)
    for number in range(1200):  # more than one page
        if number % 100 == 0:
            source = other if number % 200 else one
            async with source.unit_of_work() as uow:
                for n in range(number, number + 100):
                    uow.emit("server.created", space_id=tenant.live_space_id, data={"n": n})
    await follow_one.poll()
    await follow_other.poll()
    assert sorted(here, key=int) == sorted(there, key=int) == [str(n) for n in range(1200)]
    foreign = [n for n in here if int(n) % 200 >= 100]
    assert foreign == sorted(foreign, key=int)


@pytest.mark.requirement("data.caches-never-stale")
async def test_process_that_has_not_polled_for_a_second_does_not_trust_its_memory(two: Two, clock: FakeClock) -> None:
    one, follower, _, _ = two
    assert follower.trusted()
    clock.advance(TRUST_S - 0.01)
    assert follower.trusted()
    clock.advance(0.01)
    assert follower.trusted() is (one.kind == "sqlite")
    await follower.poll()
    assert follower.trusted()


async def test_a_process_knows_how_many_are_alive(two: Two) -> None:
    one, first, _, second = two
    if one.kind == "sqlite":
        return
    await first.poll()
    assert first.live_processes == second.live_processes == 2
    await second.aclose()
    await first.poll()
    assert first.live_processes == 1


async def test_process_that_has_never_polled_does_not_trust_its_memory(database: Database) -> None:
    assert Follower(database).trusted() is (database.kind == "sqlite")


async def test_taking_something_away_waits_for_a_live_process_that_has_not_followed(two: Two, tenant: Organization) -> None:
    one, _, _, follow_other = two
    if one.kind == "sqlite":
        return

    async def revoke() -> None:
        async with one.unit_of_work() as uow:
            uow.emit("key.revoked", space_id=tenant.live_space_id, data={"n": 1})

    task = asyncio.create_task(revoke())
    with anyio.fail_after(5):
        while True:  # the clock stands still: it waits for the other alone
            async with one.read() as connection:
                if (await connection.execute(text("SELECT count(*) FROM event"))).scalar_one():
                    break
        assert not task.done()
        await follow_other.poll()
        await task


async def test_process_that_does_not_poll_holds_up_nobody_for_longer_than_its_trust(
    two: Two, tenant: Organization, clock: FakeClock
) -> None:
    one, follow_one, _, _ = two
    if one.kind == "sqlite":
        return
    task = asyncio.create_task(emit(one, tenant, "key.revoked"))
    with anyio.fail_after(5):
        while not follow_one._newest_own:
            await asyncio.sleep(0)
        clock.advance(TRUST_S)
        await task


async def test_nobody_waits_for_what_takes_nothing_away(two: Two, tenant: Organization) -> None:
    with anyio.fail_after(2):
        await emit(two[0], tenant, "key.created")


async def test_nobody_waits_for_a_process_that_has_ended(two: Two, tenant: Organization) -> None:
    await two[3].aclose()
    with anyio.fail_after(2):
        await emit(two[0], tenant, "key.revoked")


async def test_database_that_is_away_ends_the_trust_and_the_next_poll_brings_it_back(database: Database, clock: FakeClock) -> None:
    if database.kind == "sqlite":
        return
    follower = Follower(database, poll_s=0.001)
    with capture_logs() as logs, anyio.fail_after(10):
        await follower.start()
        async with database.unit_of_work() as uow:
            await uow.execute(text("ALTER TABLE hub RENAME TO away"))
        while not logs:
            await asyncio.sleep(0)
        clock.advance(TRUST_S)
        assert not follower.trusted()
        async with database.unit_of_work() as uow:
            await uow.execute(text("ALTER TABLE away RENAME TO hub"))
        while not follower.trusted():
            await asyncio.sleep(0)
        await follower.aclose()
    assert logs[0]["event"] == "poll_failed"


async def emit(database: Database, organization: Organization, name: str) -> None:
    async with database.unit_of_work() as uow:
        uow.emit(name, space_id=organization.live_space_id, data={"n": 1})
