"""Reading the log of requests: bounded work, and no row lost between pages."""

import pytest

from plughub.db.engine import Database
from plughub.db.writer import BatchingWriter
from plughub.events.requests import Position, RequestFilter, find_request, list_requests
from plughub.events.server_figures import DAY_S, DAYS, percentile, read_figures
from plughub.identity.service import Organization
from plughub.kit.caller import SCOPES, TIERS, Caller
from plughub.kit.ids import RequestIds
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio
DONE = "request.completed"
NAMES = ("tool.executed", "tool.failed", "request.completed")


def caller(space_id: str, servers: frozenset[str] | None = None) -> Caller:
    return Caller("o", space_id, "live", "k", "public", SCOPES, servers, TIERS["free"], operator=False, stdio_allowed=False)


async def fill(database: Database, settings: Settings, space_id: str, begin: float, count: int) -> None:
    """Rows of all names, two a second, every tenth of server `rare`."""
    writer = BatchingWriter(database, settings)
    for number in range(count):
        name = NAMES[number % 3]
        server = "rare" if number % 10 == 0 else "often"
        at = begin + number // 2
        writer.record((space_id, name, at, server, "k", "t", f"r{number}", "ok", number % 5 == 0, number, "api", "{}"))
    await writer.aclose()


@pytest.mark.requirement("logs.list")
@pytest.mark.parametrize("server", [None, "rare"])
async def test_one_answer_looks_at_so_many_rows_and_the_next_goes_on_where_it_ended(
    database: Database, tenant: Organization, settings: Settings, server: str | None
) -> None:
    space = tenant.live_space_id
    await fill(database, settings, space, 1000.0, 300)
    wanted = RequestFilter(server_id=server, status="error", since=1020.0, until=1140.0)
    everything = [n for n in range(300) if n % 5 == 0 and 1020 <= 1000 + n // 2 < 1140 and (server is None or n % 10 == 0)]
    found: list[str | None] = []
    after: Position | None = None
    pages = 0
    async with database.read() as connection:
        while after is not None or not pages:
            page = await list_requests(connection, caller(space), wanted, after, 3, examined=3)
            assert len(page.rows) <= 3 and (after is None or page.next is None or page.next < after)
            found += [row.request_id for row in page.rows]
            after, pages = page.next, pages + 1
        assert found == [f"r{n}" for n in reversed(everything)] and pages >= len(everything) // 3
        other = await list_requests(connection, caller(tenant.test_space_id), RequestFilter(server_id=server), None, 3)
        assert (list(other.rows), other.next) == ([], None)
        none = await list_requests(connection, caller(space, frozenset({"rare"})), RequestFilter(server_id="often"), None, 100)
        assert len(none.rows) == 100, "its own key's"


@pytest.mark.requirement("logs.found-by-id")
async def test_a_request_is_found_by_its_id_however_late_its_row_came(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    ids, writer, made = RequestIds(clock), BatchingWriter(database, settings), {}
    for name, took_s in ((NAMES[0], 0.0), (NAMES[1], 1.9), (NAMES[0], 29.0), (NAMES[1], 330.0), (DONE, 80_000.0)):
        made[took_s] = ids.new()
        row = (
            tenant.live_space_id,
            name,
            clock.time() + took_s,
            None,
            "k",
            "t",
            made[took_s],
            "ok",
            False,
            1,
            "api",
            "{}",
        )
        writer.record(row)
        clock.advance(1)
    await writer.aclose()
    async with database.read() as connection:
        for id_ in made.values():
            found = await find_request(connection, caller(tenant.live_space_id), id_)
            assert found is not None and found.request_id == id_
            assert await find_request(connection, caller(tenant.test_space_id), id_) is None
        assert await find_request(connection, caller(tenant.live_space_id), ids.new()) is None


@pytest.mark.requirement("servers.health-history-stats")
async def test_figures_are_those_of_the_last_thirty_days(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    today = clock.time() // DAY_S * DAY_S
    writer = BatchingWriter(database, settings)
    for back, name, is_error in (
        (0, NAMES[0], False),
        (0, NAMES[1], True),
        (0, NAMES[2], True),
        (29, NAMES[0], True),
        (30, NAMES[0], True),
    ):
        writer.record((tenant.live_space_id, name, today - back * DAY_S, "s", "k", "t", "r", "ok", is_error, 100 + back, "api", "{}"))
    writer.record((tenant.live_space_id, NAMES[0], today, "other", "k", "t", "r", "ok", True, 5, "api", "{}"))
    await writer.aclose()
    async with database.read() as connection:
        found = await read_figures(connection, "s", clock.time())
        nothing = await read_figures(connection, "never called", clock.time())
    assert (len(found.days), found.days[0].begin, found.days[-1].begin) == (DAYS, today - 29 * DAY_S, today)
    assert [(day.calls, day.errors) for day in found.days] == [(1, 1), *[(0, 0)] * 28, (2, 1)]
    assert (found.durations_us, found.last_at) == ([100, 129], today)
    assert (nothing.durations_us, nothing.last_at, sum(day.calls for day in nothing.days)) == ([], None, 0)


def test_percentiles_are_by_nearest_rank() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (50, 95, 99)] == [50, 95, 99]
    assert [percentile([7], share) for share in (50, 95, 99)] == [7, 7, 7]
    assert percentile([], 50) is None and percentile([1, 2, 3], 50) == 2
