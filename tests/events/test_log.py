"""What becomes of the log when its old rows go."""

import pytest

from plughub.db.engine import Database
from plughub.db.writer import BatchingWriter, ToolRow
from plughub.events.log import read_head
from plughub.identity.service import Organization
from plughub.jobs.prune_events import prune_events
from plughub.settings import Settings

pytestmark = pytest.mark.anyio


def row(space_id: str, name: str, at: float) -> ToolRow:
    return (space_id, name, at, None, None, "echo", None, "ok", False, 5, "api", "{}")


@pytest.mark.requirement("events.gap")
async def test_the_log_knows_up_to_where_calls_were_removed_and_takes_no_other_request_for_one(
    database: Database, operator: Organization
) -> None:
    space_id = operator.live_space_id
    writer = BatchingWriter(database, Settings())
    for name, at in (("tool.executed", 1.0), ("tool.failed", 2.0), ("request.completed", 3.0), ("tool.executed", 9.0)):
        writer.record(row(space_id, name, at))
    await writer.flush()
    await writer.aclose()
    async with database.read() as connection:
        before = await read_head(connection, space_id)
    assert before is not None and before.pruned_seq == 0
    await prune_events(database, 5.0)
    async with database.read() as connection:
        after = await read_head(connection, space_id)
    assert after is not None and after.seq == before.seq
    assert after.pruned_seq == before.seq - 2, "the failed call; the request after it is nobody's event"
