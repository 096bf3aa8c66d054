"""Flags of keys: raised by a documented rule, with the numbers, once."""

import asyncio
import json

import pytest
from sqlalchemy import insert, update

from plughub.db.engine import Database
from plughub.db.tables import api_key, key_address
from plughub.db.writer import BatchingWriter
from plughub.events.catalogue import KEY_FLAGGED
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.keys.schemas import Key, KeyCreate
from plughub.keys.service import Peppers, create_key
from plughub.kit.crypto import Sealer
from plughub.settings import Settings
from plughub.usage.flags import DAY_S, HOUR_S, SHOWN_S, Use, judge, list_flags, prune_flags
from plughub.usage.watch import watch
from tests.conftest import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("keys.flags")]
QUIET = Use(10, 0, 1_000_000_000, 1680, 0, 7, 999_900_000, 900_000_000.0)


class Desk:
    """Keys of one organisation, what they do, and what is told of them."""

    def __init__(self, database: Database, organization: Organization, peppers: Peppers, settings: Settings, sealer: Sealer) -> None:
        self.database = database
        self.organization = organization
        self.peppers = peppers
        self.settings = settings
        self.sealer = sealer

    async def make(self, age_days: float = 100) -> Key:
        async with self.database.unit_of_work() as uow:
            key, _ = await create_key(uow, self.organization.founder(), KeyCreate(name="k"), self.peppers)
            made_at = self.database.clock.time() - age_days * DAY_S
            await uow.execute(update(api_key).where(api_key.c.id == key.id).values(created_at=made_at))
        return key

    async def ask(self, key: Key, count: int, *, ago_s: float = 60, failed: int = 0) -> None:
        writer, at = BatchingWriter(self.database, self.settings), self.database.clock.time() - ago_s
        for number in range(count):
            is_error = number < failed
            outcome = "FORBIDDEN" if is_error else "ok"
            space = self.organization.live_space_id
            writer.record((space, "request.completed", at, None, key.id, None, "r", outcome, is_error, 9, "api", "{}"))
        await writer.aclose()

    async def seen(self, key: Key, address: str, *, ago_s: float) -> None:
        at = self.database.clock.time() - ago_s
        async with self.database.unit_of_work() as uow:
            await uow.execute(insert(key_address).values(key_id=key.id, address=address, first_seen_at=at, last_seen_at=at))

    async def told(self) -> list[tuple[str | None, str]]:
        """Look, and look again beside another; then all that was ever told."""
        await asyncio.gather(*(watch(self.database, self.sealer) for _ in range(2)))
        async with self.database.read() as connection:
            events = await list_since(connection, self.organization.live_space_id, 0, 10_000)
        return [(event.key_id, event.data["flag"]) for event in events if event.name == KEY_FLAGGED]

    async def shown(self, key: Key) -> dict[str, dict[str, object]]:
        async with self.database.read() as connection:
            found = await list_flags(connection, [key.id], self.database.clock.time())
        return {flag.flag: flag.numbers for flag in found.get(key.id, ())}


@pytest.fixture
def desk(database: Database, tenant: Organization, peppers: Peppers, settings: Settings, sealer: Sealer) -> Desk:
    return Desk(database, tenant, peppers, settings, sealer)


async def test_ten_times_the_usual_volume_is_flagged_once(desk: Desk, clock: FakeClock) -> None:
    key, steady, new = await desk.make(), await desk.make(), await desk.make(0.5)
    for day in range(1, 8):
        await desk.ask(key, 48, ago_s=day * DAY_S)
        await desk.ask(steady, 700, ago_s=day * DAY_S)
    for one, count in ((key, 199), (steady, 250), (new, 300)):
        await desk.ask(one, count)
    assert await desk.told() == []
    await desk.ask(key, 1)
    assert await desk.told() == [(key.id, "unusual_volume")] == await desk.told()
    assert await desk.shown(key) == {"unusual_volume": {"requests_last_hour": 200, "usual_per_hour": 2.0, "days": 7}}
    clock.advance(SHOWN_S)
    assert await desk.shown(key) == {}
    async with desk.database.unit_of_work() as uow:
        await prune_flags(uow)
    assert await desk.told() == [(key.id, "unusual_volume")], "the hour is over"


async def test_a_key_that_fails_more_than_it_used_to_is_flagged(desk: Desk) -> None:
    key, always = await desk.make(), await desk.make()
    await desk.ask(key, 100, ago_s=2 * DAY_S, failed=10)
    await desk.ask(always, 100, ago_s=2 * DAY_S, failed=60)
    await desk.ask(key, 60, failed=30)
    await desk.ask(always, 60, failed=40)
    assert await desk.told() == [(key.id, "unusual_error_rate")]
    numbers = {"requests_last_hour": 60, "failed_last_hour": 30, "error_rate": 0.5, "usual_error_rate": 0.1}
    assert await desk.shown(key) == {"unusual_error_rate": numbers}


async def test_a_new_address_of_a_key_with_known_ones_is_flagged_by_itself(desk: Desk, clock: FakeClock) -> None:
    key, young = await desk.make(), await desk.make()
    for one, since_s in ((key, 8 * DAY_S), (young, 6 * DAY_S)):
        await desk.ask(one, 1, ago_s=DAY_S)
        await desk.ask(one, 1)
        await desk.seen(one, "192.0.2.1", ago_s=since_s)
        await desk.seen(one, "198.51.100.7", ago_s=60)
    assert await desk.told() == [(key.id, "unknown_client_ip")]
    first = {"address": "198.51.100.7", "first_seen_at": clock.now - 60, "known_addresses": 1, "known_since": clock.now - 8 * DAY_S}
    assert await desk.shown(key) == {"unknown_client_ip": first}
    await desk.seen(key, "203.0.113.9", ago_s=1)
    assert await desk.told() == [(key.id, "unknown_client_ip")] * 2


async def test_a_key_that_comes_back_after_a_month_is_flagged(desk: Desk, clock: FakeClock) -> None:
    back, never, daily = await desk.make(), await desk.make(40), await desk.make()
    clock.now += HOUR_S * 6
    await desk.ask(back, 1, ago_s=35 * DAY_S)
    await desk.ask(daily, 1, ago_s=29 * DAY_S)
    for one in (back, never, daily):
        await desk.ask(one, 1)
    assert sorted(await desk.told()) == sorted([(back.id, "dormant_key_used"), (never.id, "dormant_key_used")])
    assert (await desk.shown(back))["dormant_key_used"]["days_unused"] == 34
    assert json.dumps(await desk.shown(never))


def test_a_quiet_key_raises_nothing_and_each_rule_has_its_own_numbers() -> None:
    assert judge(QUIET) == {}
    wild = Use(5000, 4000, 1_000_000_000, 1680, 17, 7, None, 900_000_000.0)
    assert {name: set(numbers) for name, numbers in judge(wild).items()} == {
        "unusual_volume": {"requests_last_hour", "usual_per_hour", "days"},
        "unusual_error_rate": {"requests_last_hour", "failed_last_hour", "error_rate", "usual_error_rate"},
        "dormant_key_used": {"days_unused", "unused_since"},
    }
