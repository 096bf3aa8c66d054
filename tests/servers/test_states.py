"""What the log was told of a server, while others change it, look at it and tell of it too."""

import asyncio
from itertools import pairwise

import anyio
import pytest
from sqlalchemy import select

from plughub.db.engine import Database
from plughub.db.tables import event
from plughub.db.watch_tables import server_state
from plughub.identity.service import Organization
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.servers.health import Seen, keep_seen
from plughub.servers.rounds import claim
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.service import create_server, delete_server, move_server, update_server
from plughub.servers.states import State, Told, keep_tools_count, list_tools_counts, tell
from plughub.servers.store import find_profile, lock_space
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio
STATES: tuple[State, ...] = ("connected", "disconnected", "error")


@pytest.fixture
async def server(database: Database, tenant: Organization, sealer: Sealer) -> Server:
    body = ServerCreate(name="s", type="STREAMABLE_HTTP", config={"url": "http://example.com/"})
    async with database.unit_of_work() as uow:
        return await create_server(uow, tenant.founder("live"), body, sealer)


async def names(database: Database, server_id: str) -> list[str]:
    query = select(event.c.name).where(event.c.server_id == server_id, event.c.name != "server.created").order_by(event.c.change_no)
    async with database.read() as connection:
        return list((await connection.execute(query)).scalars())


def told(server: Server, state: State, at: float) -> Told:
    return Told(server.id, server.space_id, server.slug, state, at)


@pytest.mark.requirement("servers.events-are-debounced")
async def test_those_who_tell_change_and_look_at_once_wait_for_each_other_and_never_for_ever(
    database: Database, tenant: Organization, sealer: Sealer, server: Server, clock: FakeClock
) -> None:
    caller = tenant.founder("live")

    async def telling(number: int) -> None:
        async with database.unit_of_work() as uow:
            await tell(uow, told(server, STATES[number % 3], clock.time()), settle_s=0)

    async def keeping(number: int) -> None:
        async with database.unit_of_work() as uow:
            await keep_seen(uow, server.id, Seen(clock.time(), "status", "connected"))
        async with database.unit_of_work() as uow:
            await keep_tools_count(uow, server.id, number)

    async def changing(number: int) -> None:
        async with database.unit_of_work() as uow:
            await update_server(uow, caller, server.id, {"config": {"url": f"http://example.com/{number}"}}, sealer)

    async def looking(_number: int) -> None:
        async with database.unit_of_work() as uow:
            await claim(uow, [], 0.0, 10)

    async def moving(_number: int) -> None:
        """As the removal of a profile does."""
        async with database.unit_of_work() as uow:
            await lock_space(uow, server.space_id)
            profile_id = await find_profile(uow.connection, server.space_id, None, None)
            assert profile_id is not None
            await move_server(uow, caller, server.id, profile_id)

    with anyio.fail_after(30):
        for number in range(15):
            clock.advance(1)
            await asyncio.gather(*(work(number) for work in (telling, keeping, looking, moving, telling)))
            await asyncio.gather(*(work(number) for work in (changing, telling, looking, keeping)))
    states = [name for name in await names(database, server.id) if name != "server.updated"]
    assert len(states) > 10
    of_all = await names(database, server.id)
    assert all(one != other for one, other in pairwise(of_all) if one != "server.updated"), "no state is told twice"


@pytest.mark.requirement("servers.events-are-debounced")
async def test_a_change_of_how_a_server_is_reached_begins_anew_and_another_name_does_not(
    database: Database, tenant: Organization, sealer: Sealer, server: Server, clock: FakeClock
) -> None:
    caller = tenant.founder("live")

    async def connected() -> float | None:
        clock.advance(1)
        async with database.unit_of_work() as uow:
            return await tell(uow, told(server, "connected", clock.time()))

    assert await connected() is None
    for patch, again in (({"name": "other"}, False), ({"config": {"url": "http://example.com/2"}}, True), ({"enabled": False}, True)):
        before = await names(database, server.id)
        async with database.unit_of_work() as uow:
            await update_server(uow, caller, server.id, patch, sealer)
        stale = told(server, "error", clock.time() - 0.5)  # of what it was before
        async with database.unit_of_work() as uow:
            assert await tell(uow, stale) is None
        assert await connected() is None, "as nothing was told of what it is now, there is nothing to wait for"
        told_now = (await names(database, server.id))[len(before) :]
        assert told_now == ["server.updated", *(["server.connected"] if again else [])], patch


async def test_nothing_is_told_or_kept_of_a_server_that_is_gone(
    database: Database, tenant: Organization, server: Server, clock: FakeClock
) -> None:
    async with database.unit_of_work() as uow:
        await tell(uow, told(server, "connected", clock.time()))
        await keep_tools_count(uow, server.id, 3)
    async with database.read() as connection:
        assert await list_tools_counts(connection, 10) == [(server.id, 3)]
    async with database.unit_of_work() as uow:
        await delete_server(uow, tenant.founder("live"), server.id)
    async with database.unit_of_work() as uow:
        assert await tell(uow, told(server, "error", clock.time() + 99)) is None
        await keep_tools_count(uow, new_id(), 3)
    async with database.read() as connection:
        assert (await connection.execute(select(server_state))).all() == []
    assert await names(database, server.id) == ["server.connected", "server.deleted"]
