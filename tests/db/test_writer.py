"""The batching writer: what was recorded is on the disk soon, once, and in order."""

import asyncio
import sqlite3

import anyio
import pytest
import structlog
from sqlalchemy import select, text
from structlog.testing import capture_logs

from plughub.db.engine import Database
from plughub.db.tables import event
from plughub.db.unit_of_work import Event
from plughub.db.writer import BatchingWriter, ToolRow
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.settings import Settings

pytestmark = pytest.mark.anyio


def row(space_id: str, request_id: str = "req_1", tool: str = "echo") -> ToolRow:
    return (space_id, "tool.executed", 5.5, "server", "key", tool, request_id, "ok", False, 1234, "api", '{"a":"ü"}')


async def stored(database: Database, space_id: str) -> list[Event]:
    async with database.read() as connection:
        return await list_since(connection, space_id, 0, 100_000)


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"event_flush_ms": 5, "event_queue": 1000})


@pytest.fixture(autouse=True)
def every_line() -> None:
    """Tests that ran before may have raised the level."""
    structlog.reset_defaults()


@pytest.mark.requirement("data.one-call-one-row")
async def test_recorded_call_is_one_row_of_the_log_without_anybody_asking(
    database: Database, tenant: Organization, quick: Settings
) -> None:
    writer = BatchingWriter(database, quick)
    writer.record(row(tenant.live_space_id))
    with anyio.fail_after(5):
        while not writer.written:
            await asyncio.sleep(0)
    space = tenant.live_space_id
    expected = Event(space, 1, "tool.executed", 5.5, None, "server", "key", {"a": "ü"}, "echo", "req_1", "ok", False, 1234, "api")
    assert await stored(database, space) == [expected]
    await writer.aclose()


@pytest.mark.requirement("data.event-numbers-follow-commits")
async def test_calls_and_changes_share_one_numbering(database: Database, tenant: Organization, quick: Settings) -> None:
    writer = BatchingWriter(database, quick)
    spaces = (tenant.live_space_id, tenant.test_space_id)

    async def change() -> None:
        for _ in range(20):
            async with database.unit_of_work() as uow:
                uow.emit("server.updated", space_id=spaces[0], data={})

    async def call() -> None:
        for number in range(300):
            writer.record(row(spaces[number % 2], f"req_{number}"))
            await asyncio.sleep(0)

    with anyio.fail_after(20):
        await asyncio.gather(change(), change(), call())
        await writer.aclose()
    live, test = await stored(database, spaces[0]), await stored(database, spaces[1])
    assert [told.seq for told in live] == list(range(1, 191))
    assert [told.seq for told in test] == list(range(1, 151))
    assert [told.request_id for told in live if told.request_id] == [f"req_{n}" for n in range(0, 300, 2)]
    assert [told.request_id for told in test] == [f"req_{n}" for n in range(1, 300, 2)]


@pytest.mark.parametrize("number", [1, 3, 4, 31, 257, 700])
async def test_every_size_of_batch_is_written_whole_and_in_order(
    database: Database, tenant: Organization, quick: Settings, number: int
) -> None:
    writer = BatchingWriter(database, quick)
    for n in range(number):
        writer.record(row(tenant.live_space_id, f"req_{n}"))
    await writer.flush()
    assert [told.request_id for told in await stored(database, tenant.live_space_id)] == [f"req_{n}" for n in range(number)]
    assert (writer.written, writer.waiting) == (number, 0)
    await writer.aclose()


@pytest.mark.requirement("run.stops-in-order")
async def test_closing_writes_what_is_left(database: Database, tenant: Organization, settings: Settings) -> None:
    writer = BatchingWriter(database, settings)
    for n in range(10):
        writer.record(row(tenant.live_space_id, f"req_{n}"))
    await writer.aclose()
    assert len(await stored(database, tenant.live_space_id)) == 10


@pytest.mark.requirement("data.usage-rows-never-block")
async def test_full_at_the_bound_and_free_again_after_the_write(database: Database, tenant: Organization, quick: Settings) -> None:
    writer = BatchingWriter(database, quick)
    for _ in range(999):
        writer.record(row(tenant.live_space_id))
    assert not writer.full
    writer.record(row(tenant.live_space_id))
    assert writer.full
    await writer.flush()
    assert not writer.full
    await writer.aclose()


@pytest.mark.requirement("data.one-call-one-row")
async def test_write_that_fails_is_tried_again_until_it_succeeds(database: Database, tenant: Organization, quick: Settings) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE event RENAME TO gone"))
    writer = BatchingWriter(database, quick)
    with capture_logs() as logs, anyio.fail_after(10):
        writer.record(row(tenant.live_space_id))
        while writer.failures < 2:
            await asyncio.sleep(0)
        assert writer.failing
        async with database.unit_of_work() as uow:
            await uow.execute(text("ALTER TABLE gone RENAME TO event"))
        await writer.flush()
    assert not writer.failing
    assert len(await stored(database, tenant.live_space_id)) == 1
    assert {entry["event"] for entry in logs} == {"event_write_failed"}
    await writer.aclose()


@pytest.mark.requirement("data.one-call-one-row")
async def test_row_that_the_database_refuses_is_logged_whole_and_holds_up_no_other(
    database: Database, tenant: Organization, quick: Settings
) -> None:
    writer = BatchingWriter(database, quick)
    for n in range(20):
        writer.record(row(tenant.live_space_id, f"req_{n}", tool="\ud800" if n == 7 else "echo"))
    writer.record(row("no such space", "req_lost"))
    with capture_logs() as logs, anyio.fail_after(10):
        await writer.flush()
    assert [told.request_id for told in await stored(database, tenant.live_space_id)] == [f"req_{n}" for n in range(20) if n != 7]
    assert (writer.written, writer.refused) == (19, 2)
    assert [("req_7" in entry["row"], "req_lost" in entry["row"]) for entry in logs] == [(True, False), (False, True)]
    await writer.aclose()


async def test_rows_that_cannot_be_written_before_the_end_are_counted_in_the_log(
    database: Database, tenant: Organization, quick: Settings
) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE event RENAME TO gone"))
    try:
        writer = BatchingWriter(database, quick)
        writer.record(row(tenant.live_space_id))
        with capture_logs() as logs:
            await writer.aclose(timeout_s=0.2)
        assert {"event": "events_lost", "rows": 1, "log_level": "error"} in logs
    finally:
        async with database.unit_of_work() as uow:
            await uow.execute(text("ALTER TABLE gone RENAME TO event"))


@pytest.mark.requirement("data.sqlite-writers-queue")
async def test_writer_waits_for_a_unit_of_work_and_it_for_the_writer(database: Database, tenant: Organization, quick: Settings) -> None:
    writer = BatchingWriter(database, quick)
    async with database.unit_of_work() as uow:
        await uow.execute(select(event.c.seq))
        writer.record(row(tenant.live_space_id))
        if database.kind == "sqlite":
            flushing = asyncio.create_task(writer.flush())
            for _ in range(100):
                await asyncio.sleep(0)
            assert writer.written == 0
    await writer.flush()
    if database.kind == "sqlite":
        await flushing
    assert (writer.written, writer.failures) == (1, 0)
    await writer.aclose()


async def test_embedded_rows_survive_without_a_clean_close(database: Database, tenant: Organization, quick: Settings) -> None:
    if database.kind != "sqlite":
        return
    writer = BatchingWriter(database, quick)
    writer.record(row(tenant.live_space_id))
    await writer.flush()
    # A second reader of the file, as after a crash: it sees what the first left in file and log.
    other = sqlite3.connect(database.path)
    assert other.execute("SELECT request_id FROM event").fetchall() == [("req_1",)]
    other.close()
    await writer.aclose()
