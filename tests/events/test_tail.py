"""Who waits for news of a space hears of them, whoever wrote them."""

import pytest

from plughub.db.engine import Database
from plughub.db.writer import BatchingWriter
from plughub.events.follower import Follower
from plughub.events.tail import Tail
from plughub.identity.service import Organization
from plughub.kit.clock import SystemClock
from plughub.settings import Settings

pytestmark = pytest.mark.anyio


def row(space_id: str) -> tuple[str, str, float, None, None, str, None, str, bool, int, str, str]:
    return (space_id, "tool.executed", 1.0, None, None, "echo", None, "ok", False, 5, "api", "{}")


async def write(database: Database, space_id: str) -> None:
    async with database.unit_of_work() as uow:
        uow.emit("project.created", space_id=space_id, data={})


async def test_change_of_the_space_is_told_at_once_and_that_of_another_is_not(database: Database, operator: Organization) -> None:
    tail, told = Tail(database, Follower(database)), list[str]()
    database.listeners.append(tail.follow)
    tail.watch(operator.live_space_id, told.append)
    await write(database, operator.test_space_id)
    assert told == []
    await write(database, operator.live_space_id)
    assert told == [operator.live_space_id]
    tail.unwatch(operator.live_space_id, told.append)
    await write(database, operator.live_space_id)
    assert len(told) == 1


async def test_tool_call_is_told_when_it_is_on_the_disk(database: Database, operator: Organization) -> None:
    tail, told = Tail(database, Follower(database)), list[str]()
    tail.watch(operator.live_space_id, told.append)
    writer = BatchingWriter(database, Settings())
    writer.on_written = tail.grown
    writer.record(row(operator.live_space_id))
    assert told == []
    await writer.flush()
    await writer.aclose()
    assert told == [operator.live_space_id]


async def test_tool_call_that_another_process_wrote_is_told_by_a_look_and_only_once(
    database: Database, operator: Organization, database_url: str
) -> None:
    tail, told = Tail(database, Follower(database)), list[str]()
    tail.watch(operator.live_space_id, told.append)
    await tail.look()
    told.clear()
    other = Database(database_url, SystemClock())
    writer = BatchingWriter(other, Settings())
    writer.record(row(operator.live_space_id))
    await writer.flush()
    await writer.aclose()
    await other.aclose()
    await tail.look()
    await tail.look()
    assert told == [operator.live_space_id]
