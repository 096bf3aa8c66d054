"""Units of work: what is committed, when, and who hears of it."""

import asyncio
import random
from collections.abc import Sequence

import anyio
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from plughub.db.engine import Database
from plughub.db.tables import job, project
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.events.log import list_changes, list_since
from plughub.identity.service import Organization

pytestmark = pytest.mark.anyio


async def count(database: Database, name: str = "project") -> int:
    async with database.read() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()


async def add_project(uow: UnitOfWork, organization: Organization, id_: str = "p") -> None:
    values = {"id": id_, "organization_id": organization.id, "space_id": organization.live_space_id}
    await uow.execute(insert(project).values(**values, name="P", description="", is_default=False, created_at=0))


@pytest.mark.requirement("data.events-commit-with-the-change")
async def test_change_and_event_are_committed_together(database: Database, tenant: Organization) -> None:
    before = await count(database)
    async with database.unit_of_work() as uow:
        await add_project(uow, tenant)
        uow.emit("server.created", space_id=tenant.live_space_id, server_id="s", data={"name": "ä"})
    assert await count(database) == before + 1
    async with database.read() as connection:
        [told] = await list_since(connection, tenant.live_space_id, 0)
    assert told == Event(tenant.live_space_id, 1, "server.created", database.clock.time(), told.change_no, "s", None, {"name": "ä"})


@pytest.mark.requirement("data.events-commit-with-the-change")
async def test_block_that_raises_leaves_neither_change_nor_event_and_tells_nobody(database: Database, tenant: Organization) -> None:
    before, heard = await count(database), list[Event]()
    listen(database, heard)
    with pytest.raises(ZeroDivisionError):
        async with database.unit_of_work() as uow:
            await add_project(uow, tenant)
            uow.emit("server.created", space_id=tenant.live_space_id, data={})
            _ = 1 / 0
    assert (await count(database), await count(database, "event"), heard) == (before, 0, [])
    async with database.unit_of_work() as uow:  # and the next one goes on
        await add_project(uow, tenant)
    assert await count(database) == before + 1


@pytest.mark.requirement("data.failing-commit-is-no-success")
async def test_commit_that_fails_raises_out_of_the_unit_of_work_and_keeps_nothing(database: Database, tenant: Organization) -> None:
    heard = list[Event]()
    listen(database, heard)
    async with database.unit_of_work() as uow:
        await uow.execute(
            text("CREATE TABLE IF NOT EXISTS late (id text PRIMARY KEY REFERENCES project(id) DEFERRABLE INITIALLY DEFERRED)")
        )
    try:
        with pytest.raises((IntegrityError, DBAPIError)):
            async with database.unit_of_work() as uow:
                uow.emit("server.created", space_id=tenant.live_space_id, data={})
                await uow.execute(text("INSERT INTO late VALUES ('nobody')"))
        assert (await count(database, "late"), await count(database, "event"), heard) == (0, 0, [])
        async with database.unit_of_work() as uow:
            uow.emit("server.created", space_id=tenant.live_space_id, data={})
        assert [told.seq for told in heard] == [1]
    finally:
        async with database.unit_of_work() as uow:
            await uow.execute(text("DROP TABLE late"))


async def test_event_of_a_missing_space_fails_the_whole_unit_of_work(database: Database, tenant: Organization) -> None:
    before = await count(database)
    with pytest.raises(LookupError):
        async with database.unit_of_work() as uow:
            await add_project(uow, tenant)
            uow.emit("server.created", space_id="nowhere", data={})
    assert await count(database) == before


async def test_listeners_have_heard_before_the_unit_of_work_ends_and_after_the_commit(database: Database, tenant: Organization) -> None:
    seen = []

    async def listener(events: Sequence[Event]) -> None:
        seen.append(([told.name for told in events], await count(database, "event")))

    database.listeners.append(listener)
    async with database.unit_of_work() as uow:
        uow.emit("key.created", space_id=tenant.live_space_id, data={})
        uow.emit("key.revoked", space_id=tenant.test_space_id, data={})
        assert seen == []
    assert seen == [(["key.created", "key.revoked"], 2)]


async def test_listener_that_fails_keeps_no_other_from_hearing(database: Database, tenant: Organization) -> None:
    async def failing(events: Sequence[Event]) -> None:
        raise ZeroDivisionError

    heard = list[Event]()
    database.listeners.append(failing)
    listen(database, heard)
    with pytest.raises(ZeroDivisionError):
        async with database.unit_of_work() as uow:
            uow.emit("key.created", space_id=tenant.live_space_id, data={})
    assert len(heard) == 1


async def test_request_cut_off_in_its_commit_is_committed_and_heard(database: Database, tenant: Organization) -> None:
    heard = list[Event]()
    hearing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> None:
        hearing.set()
        await go_on.wait()
        heard.extend(events)

    async def request() -> None:
        async with database.unit_of_work() as uow:
            uow.emit("key.revoked", space_id=tenant.live_space_id, data={})

    database.listeners.append(slow)
    task = asyncio.create_task(request())
    with anyio.fail_after(5):
        await hearing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await database.aclose()
    assert [told.name for told in heard] == ["key.revoked"]


async def test_request_cut_off_in_its_block_rolls_back_and_frees_the_lock(database: Database, tenant: Organization) -> None:
    before, inside = await count(database), asyncio.Event()

    async def request() -> None:
        async with database.unit_of_work() as uow:
            await add_project(uow, tenant)
            inside.set()
            await asyncio.Event().wait()

    for scope_of_anyio in (False, True):
        inside.clear()
        with anyio.fail_after(5):
            if scope_of_anyio:
                async with anyio.create_task_group() as group:
                    group.start_soon(request)
                    await inside.wait()
                    group.cancel_scope.cancel()
            else:
                task = asyncio.create_task(request())
                await inside.wait()
                task.cancel()
                await asyncio.wait([task])
            async with database.unit_of_work() as uow:
                await uow.execute(select(job.c.id))
        assert await count(database) == before


@pytest.mark.requirement("data.sqlite-writers-queue")
async def test_request_cut_off_in_a_statement_leaves_nothing_locked(database: Database, tenant: Organization) -> None:
    async def ask() -> None:
        async with database.unit_of_work() as uow:
            await add_project(uow, tenant, "cut")
            await uow.execute(select(project.c.id))
            await uow.execute(select(project))
            await asyncio.Event().wait()

    before, held = await count(database), []
    for steps in range(20):
        task = asyncio.create_task(ask())
        for _ in range(steps):
            await count(database)
        task.cancel()
        await asyncio.wait([task])
        held.append(task)  # and with it the traceback, with the cursor of the statement
        with anyio.fail_after(5):
            async with database.unit_of_work() as uow:
                await uow.execute(select(project.c.id))
    for turns in range(60):
        task = asyncio.create_task(ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        held.append(task)
        with anyio.fail_after(5):
            async with database.unit_of_work() as uow:
                await uow.execute(select(project.c.id))
    assert all(task.cancelled() for task in held)
    assert await count(database) == before


@pytest.mark.requirement("data.event-numbers-follow-commits")
async def test_numbers_are_without_gap_and_a_reader_by_number_misses_nothing(database: Database, tenant: Organization) -> None:
    """Writers commit as fast as they can; a reader follows by the last number it saw. Nothing may appear behind it."""
    spaces, writers, each = (tenant.live_space_id, tenant.test_space_id), 8, 25
    read, changes, done = {space: list[int]() for space in spaces}, list[int](), asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(each):
            async with database.unit_of_work() as uow:
                for space in spaces if turn % 2 else reversed(spaces):
                    uow.emit("server.updated", space_id=space, data={"writer": number})
                await uow.execute(select(job.c.id))

    async def follow() -> None:
        last_turn = False
        async with database.read() as connection:
            while True:
                for space in spaces:
                    found = await list_since(connection, space, read[space][-1] if read[space] else 0)
                    read[space] += [told.seq for told in found]
                changes.extend(told.change_no or 0 for told in await list_changes(connection, changes[-1] if changes else 0))
                if last_turn:
                    return
                last_turn = done.is_set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            async with anyio.create_task_group() as writing:
                for number in range(writers):
                    writing.start_soon(write, number)
            done.set()
    expected = list(range(1, writers * each + 1))
    assert read == dict.fromkeys(spaces, expected)
    assert changes == list(range(1, 2 * writers * each + 1))


@pytest.mark.requirement("data.events-commit-with-the-change", "data.caches-follow-the-log")
@pytest.mark.parametrize("seed", range(4))
async def test_requests_cut_off_anywhere_leave_every_commit_heard_and_nothing_else(
    database: Database, tenant: Organization, seed: int
) -> None:
    """Cancelled while they wait for the lock, connect, write, commit or tell: what is in the log was heard, and the lock is free."""
    chance, heard = random.Random(seed), list[Event]()
    listen(database, heard)

    async def request(number: int) -> None:
        async with database.unit_of_work() as uow:
            uow.emit("server.updated", space_id=tenant.live_space_id, data={"n": number})
            await uow.execute(select(job.c.id))

    async def cut_off(task: asyncio.Task[None]) -> None:
        for _ in range(int(chance.paretovariate(0.5)) % 3000):
            await asyncio.sleep(0)
        if chance.random() < 0.8:
            task.cancel()

    with anyio.fail_after(20):
        for begin in range(0, 120, 12):
            tasks = [asyncio.create_task(request(number)) for number in range(begin, begin + 12)]
            await asyncio.gather(*(cut_off(task) for task in tasks))
            await asyncio.wait(tasks)
            assert [error for task in tasks if not task.cancelled() and (error := task.exception())] == []
        await request(999)
        await database.aclose()  # waits for what is still being told
    async with database.read() as connection:
        log = await list_since(connection, tenant.live_space_id, 0)
    assert [told.seq for told in log] == list(range(1, len(log) + 1))
    assert sorted(told.data["n"] for told in heard) == sorted(told.data["n"] for told in log)
    assert not database.write_lock.locked()


@pytest.mark.requirement("data.sqlite-writers-queue")
async def test_writers_come_in_the_order_they_asked(database: Database, tenant: Organization) -> None:
    order = []

    async def write(number: int) -> None:
        async with database.unit_of_work() as uow:
            order.append(number)
            uow.emit("server.updated", space_id=tenant.live_space_id, data={})

    async with database.unit_of_work():
        waiting = [asyncio.create_task(write(number)) for number in range(20)]
        await asyncio.sleep(0)
        if database.kind == "sqlite":
            assert order == []
    await asyncio.gather(*waiting)
    assert sorted(order) == list(range(20))
    if database.kind == "sqlite":
        assert order == list(range(20))


async def test_reader_does_not_wait_for_a_writer(database: Database, tenant: Organization) -> None:
    before = await count(database)
    async with database.unit_of_work() as uow:
        await add_project(uow, tenant)
        with anyio.fail_after(2):
            assert await count(database) == before
    assert await count(database) == before + 1


async def test_reader_cannot_write_the_embedded_file(database: Database) -> None:
    if database.kind != "sqlite":
        return
    async with database.read() as connection:
        with pytest.raises(DBAPIError, match="readonly"):
            await connection.execute(text("DELETE FROM event"))


async def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.unit_of_work() as uow:
            await uow.execute(
                insert(project).values(id="p", organization_id="no", space_id="no", name="", description="", is_default=False, created_at=0)
            )


async def test_embedded_requests_are_durable_against_power_cuts(database: Database) -> None:
    if database.kind != "sqlite":
        return
    async with database.unit_of_work() as uow:
        values = [(await uow.execute(text(f"PRAGMA {name}"))).scalar() for name in ("synchronous", "journal_mode", "foreign_keys")]
    assert values == [2, "wal", 1]


def test_url_of_another_database_is_refused_in_words(clock: object) -> None:
    with pytest.raises(ValueError, match="postgresql"):
        Database("mysql://localhost/x", clock)  # type: ignore[arg-type]


def listen(database: Database, heard: list[Event]) -> None:
    async def listener(events: Sequence[Event]) -> None:
        heard.extend(events)

    database.listeners.append(listener)
