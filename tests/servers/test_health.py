"""What was seen of servers: kept, bounded, and the uptime that follows."""

import pytest
from sqlalchemy import func, select

from plughub.db.engine import Database
from plughub.db.tables import server_health
from plughub.identity.service import Organization
from plughub.jobs.loop import JobLoop
from plughub.jobs.prune_health import KIND, handler
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.servers.health import DAY_S, Seen, find_probe, find_uptime, keep_seen, list_seen, prune_seen, uptime
from plughub.servers.schemas import ServerCreate
from plughub.servers.service import create_server, delete_server
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server_id(database: Database, tenant: Organization, sealer: Sealer) -> str:
    body = ServerCreate(name="s", type="STREAMABLE_HTTP", config={"url": "http://example.com/"})
    async with database.unit_of_work() as uow:
        return (await create_server(uow, tenant.founder("live"), body, sealer)).id


async def keep(database: Database, server_id: str, *seen: Seen) -> None:
    async with database.unit_of_work() as uow:
        for each in seen:
            await keep_seen(uow, server_id, each)


async def count(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(server_health))).scalar_one()


@pytest.mark.requirement("servers.health-history-stats")
async def test_history_is_newest_first_and_goes_with_its_server(
    database: Database, tenant: Organization, server_id: str, clock: FakeClock
) -> None:
    now = clock.time()
    entries = [Seen(now + n, "probe" if n % 2 else "status", "connected", 100 * n, None) for n in range(5)]
    await keep(database, server_id, *entries, Seen(now + 9, "probe", "error", None, "it fell"))
    await keep(database, new_id(), entries[0])
    async with database.read() as connection:
        page = await list_seen(connection, server_id, 2, 1)
        assert (page.items, page.total) == ([entries[4], entries[3]], 6)
        assert await find_probe(connection, server_id) == Seen(now + 9, "probe", "error", None, "it fell")
        assert await find_probe(connection, new_id()) is None
    async with database.unit_of_work() as uow:
        await delete_server(uow, tenant.founder("live"), server_id)
    assert await count(database) == 0


@pytest.mark.requirement("servers.health-history-stats")
async def test_uptime_is_the_share_of_the_known_day_without_an_error(database: Database, server_id: str, clock: FakeClock) -> None:
    now = clock.time()
    async with database.read() as connection:
        assert await find_uptime(connection, server_id, now) is None
    await keep(database, server_id, Seen(now - 2 * DAY_S, "status", "error"), Seen(now - DAY_S / 2, "status", "connected"))
    await keep(database, server_id, Seen(now - DAY_S / 4, "status", "disconnected"))
    async with database.read() as connection:
        assert await find_uptime(connection, server_id, now) == pytest.approx(0.5)


def test_uptime_counts_from_the_first_thing_known() -> None:
    assert uptime([], 10) is None
    assert uptime([(10, "error")], 10) == 0 and uptime([(10, "connected")], 10) == 1
    assert uptime([(0, "connected"), (7, "error"), (8, "error")], 10) == pytest.approx(0.7)
    assert uptime([(0, "error"), (5, "connecting")], 10) == pytest.approx(0.5)


@pytest.mark.requirement("servers.health-is-bounded")
async def test_what_is_old_or_more_than_enough_is_removed(database: Database, server_id: str, clock: FakeClock, settings: Settings) -> None:
    now = clock.time()
    await keep(database, server_id, *(Seen(now - n, "probe", "connected") for n in range(12)))
    async with database.unit_of_work() as uow:
        assert await prune_seen(uow, now - 9.5, kept_rows=7) == 5
    async with database.read() as connection:
        page = await list_seen(connection, server_id, 100, 0)
    assert [seen.at for seen in page.items] == [now - n for n in range(7)]
    clock.advance(settings.event_retention_days * DAY_S + 1 - 3)
    loop = JobLoop(database, {KIND: handler(settings)})
    await loop.start()
    await loop.aclose()
    clock.advance(61)
    await loop.run_due()
    assert await count(database) == 0
