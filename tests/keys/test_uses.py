"""When and from where keys were used: noted by requests, written by one owner."""

import asyncio

import anyio
import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from plughub.db.engine import Database
from plughub.db.tables import api_key, key_address, retired_secret
from plughub.identity.service import Organization
from plughub.keys.rotation import rotate_key
from plughub.keys.schemas import Key, KeyCreate
from plughub.keys.service import Peppers, create_key
from plughub.keys.uses import MAX_ADDRESSES, KeyUses, Use
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def key(database: Database, tenant: Organization, peppers: Peppers) -> Key:
    async with database.unit_of_work() as uow:
        return (await create_key(uow, tenant.founder(), KeyCreate(name="k"), peppers))[0]


async def last_of(database: Database) -> tuple[float | None, str | None]:
    async with database.read() as connection:
        return tuple((await connection.execute(select(api_key.c.last_used_at, api_key.c.last_used_ip))).one())


async def addresses(database: Database) -> list[tuple[str, float, float]]:
    async with database.read() as connection:
        return [(*row[1:],) for row in await connection.execute(select(key_address).order_by(key_address.c.address))]


@pytest.mark.requirement("keys.last-use")
async def test_uses_are_written_together_and_the_latest_counts(database: Database, key: Key, clock: FakeClock) -> None:
    uses, one, same = KeyUses(database, 100), Use(key.id, 0), Use(key.id, 0)  # twice in memory: its entry was loaded anew
    start = clock.now
    for use, address in ((one, "192.0.2.1"), (one, "192.0.2.1"), (one, "192.0.2.2"), (same, "192.0.2.3"), (one, "192.0.2.1"), (one, "")):
        clock.advance(1)
        uses.note(use, address)
    assert await last_of(database) == (None, None)
    await uses.aclose()
    assert await last_of(database) == (start + 6, None)
    assert await addresses(database) == [
        ("192.0.2.1", start + 1, start + 5),
        ("192.0.2.2", start + 3, start + 3),
        ("192.0.2.3", start + 4, start + 4),
    ]


@pytest.mark.requirement("keys.last-use")
async def test_what_is_written_late_changes_nothing_newer(database: Database, key: Key, clock: FakeClock) -> None:
    fast, slow = KeyUses(database, 100), KeyUses(database, 100)
    slow.note(Use(key.id, 0), "192.0.2.1")
    clock.advance(10)
    fast.note(Use(key.id, 0), "192.0.2.1")
    await fast.aclose()
    await slow.aclose()
    assert await last_of(database) == (clock.now, "192.0.2.1")
    assert await addresses(database) == [("192.0.2.1", clock.now - 10, clock.now)]


@pytest.mark.requirement("keys.last-use", "keys.rotation")
async def test_a_use_written_after_a_rotation_belongs_to_the_secret_that_was_used(
    database: Database, key: Key, tenant: Organization, peppers: Peppers, clock: FakeClock
) -> None:
    uses, old, new = KeyUses(database, 100), Use(key.id, 0), Use(key.id, 1)
    uses.note(old, "192.0.2.1")
    async with database.unit_of_work() as uow:
        await rotate_key(uow, tenant.founder(), key.id, 100, peppers)
    await uses.flush()
    assert await last_of(database) == (None, None)
    clock.advance(1)
    uses.note(new, "192.0.2.2")
    await uses.aclose()
    assert await last_of(database) == (clock.now, "192.0.2.2")
    async with database.read() as connection:
        columns = (retired_secret.c.last_used_at, retired_secret.c.last_used_ip)
        assert (await connection.execute(select(*columns))).one() == (clock.now - 1, "192.0.2.1")


@pytest.mark.requirement("keys.last-use")
async def test_addresses_of_a_key_are_bounded_and_the_longest_unseen_make_room(database: Database, key: Key, clock: FakeClock) -> None:
    uses, use = KeyUses(database, 1000), Use(key.id, 0)
    for number in range(3 * MAX_ADDRESSES):
        clock.advance(1)
        uses.note(use, f"2001:db8::{number:04x}")
        assert len(use.seen) <= MAX_ADDRESSES
        if number % 20 == 0:
            await uses.flush()
    await uses.aclose()
    kept = [address for address, _, _ in await addresses(database)]
    assert kept == [f"2001:db8::{number:04x}" for number in range(2 * MAX_ADDRESSES, 3 * MAX_ADDRESSES)]


@pytest.mark.requirement("keys.last-use")
async def test_while_the_database_is_away_uses_wait_bounded_and_are_written_later(database: Database, key: Key) -> None:
    uses = KeyUses(database, 10)
    async with database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE key_address RENAME TO away"))
    with capture_logs() as logs:
        for number in range(100):
            uses.note(Use(f"gone{number}", 0), "192.0.2.1")
        await uses.flush()
        assert [each["event"] for each in logs] == ["key_uses_not_written"]
        uses.note(Use(key.id, 0), "192.0.2.7")
        await uses.flush()
    assert len(uses._last) <= 10 and len(uses._seen) <= 10
    async with database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE away RENAME TO key_address"))
    await uses.aclose()
    assert not uses._last and not uses._seen


async def test_a_use_is_written_by_itself_and_no_timer_is_left(database: Database, key: Key, clock: FakeClock) -> None:
    uses = KeyUses(database, 10)
    uses.note(Use(key.id, 0), "192.0.2.1")
    with anyio.fail_after(5):
        while await last_of(database) == (None, None):
            await asyncio.sleep(0)
        while uses._writing is not None:
            await asyncio.sleep(0)
    assert uses._timer is None
    await uses.aclose()
