"""Organisations: how one comes to be, and what it may do."""

import asyncio

import pytest
from sqlalchemy import text

from plughub.db.engine import Database
from plughub.identity.service import Organization, create_organization, ensure_operator, get_organization, update_organization
from plughub.kit.caller import SCOPES, TIERS
from plughub.kit.errors import Invalid, NotFound
from plughub.kit.ids import new_id

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("data.organisation-has-two-spaces")
async def test_first_start_makes_the_operator_with_both_spaces_and_a_default_profile_in_each(database: Database) -> None:
    async with database.unit_of_work() as uow:
        operator = await ensure_operator(uow)
    assert operator is not None
    assert (operator.operator, operator.tier) == (True, "enterprise")
    assert len({operator.live_space_id, operator.test_space_id, operator.live_profile_id, operator.test_profile_id}) == 4
    async with database.read() as connection:
        assert await get_organization(connection, operator.id) == operator
        profiles = (await connection.execute(text("SELECT space_id, slug FROM profile WHERE is_default"))).all()
    assert sorted(profiles) == sorted([(operator.live_space_id, "default"), (operator.test_space_id, "default")])


async def test_later_starts_make_no_second_operator(database: Database, operator: Organization) -> None:
    async with database.unit_of_work() as uow:
        assert await ensure_operator(uow) is None


async def test_processes_that_start_together_make_one_operator(database: Database) -> None:
    async def start() -> Organization | None:
        async with database.unit_of_work() as uow:
            return await ensure_operator(uow)

    made = await asyncio.gather(*(start() for _ in range(5)))
    assert sum(organization is not None for organization in made) == 1


async def test_founder_may_everything_within_one_environment(operator: Organization, tenant: Organization) -> None:
    caller = operator.founder()
    assert (caller.scopes, caller.servers, caller.operator, caller.stdio_allowed) == (SCOPES, None, True, True)
    caller = tenant.founder("test")
    assert (caller.space_id, caller.environment, caller.tier) == (tenant.test_space_id, "test", TIERS["free"])
    assert not caller.operator
    assert not caller.stdio_allowed


async def test_slugs_of_organisations_are_unique(database: Database) -> None:
    async with database.unit_of_work() as uow:
        slugs = [(await create_organization(uow, name)).slug for name in ("A & B", "A B", "a-b", "éé", "")]
    assert slugs == ["a-b", "a-b-2", "a-b-3", "organization", "organization-2"]


async def test_unknown_tier_and_missing_organisation_are_refused(database: Database, tenant: Organization) -> None:
    async with database.unit_of_work() as uow:
        with pytest.raises(Invalid):
            await create_organization(uow, "x", "gold")
        with pytest.raises(Invalid):
            await update_organization(uow, tenant.id, tier="gold")
        with pytest.raises(NotFound):
            await update_organization(uow, new_id(), tier="pro")
        with pytest.raises(NotFound):
            await get_organization(uow.connection, new_id())
    async with database.read() as connection:
        assert await get_organization(connection, tenant.id) == tenant
