"""Old tool calls go, everything else stays."""

import pytest
from sqlalchemy import select

from plughub.db.engine import Database
from plughub.db.tables import event
from plughub.db.writer import BatchingWriter
from plughub.identity.service import Organization
from plughub.jobs.loop import JobLoop
from plughub.jobs.prune_events import DAY_S, KIND, handler
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("data.tool-events-pruned", "data.requests-pruned")
async def test_tool_calls_older_than_the_retention_are_removed_and_other_events_stay(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    writer, spaces = BatchingWriter(database, settings), (tenant.live_space_id, tenant.test_space_id)
    for number in range(4500):
        name = ("tool.failed", "tool.executed", "request.completed")[number % 3]
        writer.record((spaces[number % 2], name, clock.time(), None, None, "t", f"old{number}", "ok", False, 1, "api", "{}"))
    async with database.unit_of_work() as uow:
        uow.emit("server.created", space_id=spaces[0], data={})
        uow.emit("tool.changed", space_id=spaces[0], data={})
    await writer.flush()
    clock.advance(settings.event_retention_days * DAY_S)
    writer.record((spaces[0], "tool.executed", clock.time() - 1, None, None, "t", "new", "ok", False, 1, "api", "{}"))
    await writer.aclose()
    clock.advance(1)
    loop = JobLoop(database, {KIND: handler(settings)})
    await loop.start()
    await loop.aclose()
    clock.advance(61)  # of the lease, should the start have begun the job
    await loop.run_due()
    async with database.read() as connection:
        left = (await connection.execute(select(event.c.name).order_by(event.c.name))).scalars().all()
    assert left == ["server.created", "tool.changed", "tool.executed"]
