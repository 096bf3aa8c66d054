"""What is announced of keys, and that it is announced once."""

import asyncio

import pytest

from plughub.db.engine import Database
from plughub.events.catalogue import KEY_FLAGGED
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.jobs.announce_keys import EVERY_S, KIND, handler
from plughub.jobs.loop import JobLoop
from plughub.keys.notices import DAY_S, announce
from plughub.keys.rotation import rotate_key
from plughub.keys.schemas import Key, KeyCreate, KeyUpdate
from plughub.keys.service import Peppers, create_key, revoke_key, update_key
from plughub.kit.clock import rfc3339
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


class Desk:
    """Keys of one organisation, and what is told of them."""

    def __init__(self, database: Database, organization: Organization, peppers: Peppers) -> None:
        self.database = database
        self.organization = organization
        self.peppers = peppers

    async def make(self, days: float | None = None) -> Key:
        expires = {} if days is None else {"expires_at": rfc3339(self.database.clock.time() + days * DAY_S)}
        async with self.database.unit_of_work() as uow:
            return (await create_key(uow, self.organization.founder(), KeyCreate(name="k", **expires), self.peppers))[0]

    async def change(self, key: Key, **fields: object) -> None:
        async with self.database.unit_of_work() as uow:
            await update_key(uow, self.organization.founder(), key.id, KeyUpdate.model_validate(fields))

    async def told(self) -> list[tuple[str | None, str, int]]:
        """Run the job's work, then everything that was ever told: key, flag, days."""
        async with self.database.unit_of_work() as uow:
            await announce(uow, 100)
        async with self.database.read() as connection:
            events = await list_since(connection, self.organization.live_space_id, 0)
        return [(event.key_id, event.data["flag"], event.data["days"]) for event in events if event.name == KEY_FLAGGED]


@pytest.fixture
def desk(database: Database, tenant: Organization, peppers: Peppers) -> Desk:
    return Desk(database, tenant, peppers)


@pytest.mark.requirement("keys.rotation-due")
async def test_expiry_is_announced_30_7_and_1_days_before_each_once(desk: Desk, clock: FakeClock) -> None:
    key, _ = await desk.make(60), await desk.make()
    steps = {29: [], 30: [30], 31: [30], 52: [30], 53: [30, 7], 58.9: [30, 7], 59: [30, 7, 1], 59.9: [30, 7, 1], 61: [30, 7, 1]}
    start = clock.now
    for day, days in steps.items():
        clock.now = start + day * DAY_S
        for _ in range(2):
            assert await desk.told() == [(key.id, "expires_soon", each) for each in days], day


@pytest.mark.requirement("keys.rotation-due")
async def test_what_was_known_when_the_expiry_was_set_is_not_announced(desk: Desk, clock: FakeClock) -> None:
    _, week = await desk.make(0.5), await desk.make(6)
    assert await desk.told() == []
    clock.advance(5.5 * DAY_S)
    assert await desk.told() == [(week.id, "expires_soon", 1)]
    await desk.change(week, expires_at=rfc3339(clock.now + 40 * DAY_S))
    await desk.change(week, name="renamed")
    clock.advance(10 * DAY_S)
    assert (await desk.told())[1:] == [(week.id, "expires_soon", 30)]


@pytest.mark.requirement("keys.rotation-due")
async def test_a_hub_that_was_off_for_weeks_announces_what_is_true_now(desk: Desk, clock: FakeClock) -> None:
    key = await desk.make(60)
    clock.advance(59.5 * DAY_S)
    assert await desk.told() == [(key.id, "expires_soon", 1)]


@pytest.mark.requirement("keys.rotation-due")
async def test_an_old_secret_is_announced_once_and_again_90_days_after_its_rotation(desk: Desk, clock: FakeClock) -> None:
    key, dead, off = await desk.make(), await desk.make(), await desk.make()
    async with desk.database.unit_of_work() as uow:
        await revoke_key(uow, desk.organization.founder(), dead.id)
    await desk.change(off, status="suspended")
    clock.advance(90 * DAY_S - 1)
    assert await desk.told() == []
    clock.advance(1)
    for _ in range(2):
        assert await desk.told() == [(key.id, "rotation_due", 90)]
    async with desk.database.unit_of_work() as uow:
        await rotate_key(uow, desk.organization.founder(), key.id, 0, desk.peppers)
    clock.advance(89 * DAY_S)
    assert len(await desk.told()) == 1
    clock.advance(2 * DAY_S)
    assert await desk.told() == [(key.id, "rotation_due", 90), (key.id, "rotation_due", 91)]


@pytest.mark.requirement("keys.rotation-due")
async def test_two_that_run_at_once_tell_it_once(desk: Desk, clock: FakeClock) -> None:
    keys = [await desk.make() for _ in range(20)]
    clock.advance(91 * DAY_S)
    await asyncio.gather(desk.told(), desk.told())
    assert sorted(key_id for key_id, _, _ in await desk.told() if key_id) == sorted(key.id for key in keys)


@pytest.mark.requirement("keys.rotation-due")
async def test_the_job_comes_back_every_hour(desk: Desk, clock: FakeClock, settings: Settings) -> None:
    loop = JobLoop(desk.database, {KIND: handler(settings)})
    key = await desk.make(60)
    await loop.start()
    await loop.aclose()
    clock.advance(61)  # of the lease, should the start have begun the job
    await loop.run_due()
    clock.advance(EVERY_S)
    assert await loop.run_due() == 1
    clock.advance(31 * DAY_S)
    assert await loop.run_due() == 1
    assert await desk.told() == [(key.id, "expires_soon", 30)]
