"""The directory of keys: what admission is told about a secret."""

import pytest

from plughub.db.engine import Database
from plughub.identity.service import Organization, update_organization
from plughub.keys.directory import KeyDirectory
from plughub.keys.schemas import KeyCreate, KeyUpdate
from plughub.keys.secret import generate
from plughub.keys.service import Peppers, create_key, revoke_key, update_key
from plughub.kit.caller import DEFAULT_SCOPES, SCOPES, TIERS
from plughub.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(database: Database, peppers: Peppers, settings: Settings) -> KeyDirectory:
    return KeyDirectory(database, peppers, settings)


async def test_new_key_is_found_with_its_organisation_and_rights(
    database: Database, operator: Organization, directory: KeyDirectory, peppers: Peppers
) -> None:
    async with database.unit_of_work() as uow:
        key, secret = await create_key(uow, operator.founder(), KeyCreate(name="ci"), peppers)
    assert directory.find(secret) is None  # not in memory yet
    entry = await directory.resolve(secret)
    assert entry is not None
    assert directory.find(secret) is entry
    assert (entry.key_id, entry.status, entry.expires_at) == (key.id, "active", None)
    caller = entry.caller
    assert (caller.organization_id, caller.space_id, caller.environment) == (operator.id, operator.live_space_id, "live")
    assert (caller.scopes, caller.servers, caller.tier) == (DEFAULT_SCOPES, None, TIERS["enterprise"])
    assert caller.operator
    assert caller.stdio_allowed


async def test_admin_key_holds_every_scope(database: Database, operator: Organization, directory: KeyDirectory, peppers: Peppers) -> None:
    async with database.unit_of_work() as uow:
        _, secret = await create_key(uow, operator.founder(), KeyCreate(name="root", scopes=["admin"]), peppers)
    entry = await directory.resolve(secret)
    assert entry is not None
    assert entry.caller.scopes == SCOPES


async def test_unknown_secret_is_none_and_a_misspelt_one_too(directory: KeyDirectory, operator: Organization) -> None:
    secret = generate("public", "live")
    assert await directory.resolve(secret) is None
    assert await directory.resolve(secret) is None
    assert await directory.resolve(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None


async def test_revocation_and_suspension_are_seen_when_the_unit_of_work_has_ended(
    database: Database, operator: Organization, directory: KeyDirectory, peppers: Peppers
) -> None:
    maker = operator.founder()
    async with database.unit_of_work() as uow:
        key, secret = await create_key(uow, maker, KeyCreate(name="ci"), peppers)
    for body, status in ((KeyUpdate(status="suspended"), "suspended"), (KeyUpdate(status="active"), "active")):
        assert await directory.resolve(secret) is not None
        async with database.unit_of_work() as uow:
            await update_key(uow, maker, key.id, body)
        assert directory.find(secret) is None
        entry = await directory.resolve(secret)
        assert entry is not None
        assert entry.status == status
    async with database.unit_of_work() as uow:
        await revoke_key(uow, maker, key.id)
    assert directory.find(secret) is None
    entry = await directory.resolve(secret)
    assert entry is not None
    assert entry.status == "revoked"


async def test_revocation_that_is_rolled_back_changes_nothing(
    database: Database, operator: Organization, directory: KeyDirectory, peppers: Peppers
) -> None:
    async with database.unit_of_work() as uow:
        key, secret = await create_key(uow, operator.founder(), KeyCreate(name="ci"), peppers)
    with pytest.raises(RuntimeError):
        async with database.unit_of_work() as uow:
            await revoke_key(uow, operator.founder(), key.id)
            raise RuntimeError
    entry = await directory.resolve(secret)
    assert entry is not None
    assert entry.status == "active"


async def test_new_tier_and_stdio_right_reach_cached_callers(
    database: Database, tenant: Organization, directory: KeyDirectory, peppers: Peppers
) -> None:
    async with database.unit_of_work() as uow:
        _, secret = await create_key(uow, tenant.founder(), KeyCreate(name="ci"), peppers)
    entry = await directory.resolve(secret)
    assert entry is not None
    assert (entry.caller.tier, entry.caller.stdio_allowed) == (TIERS["free"], False)
    async with database.unit_of_work() as uow:
        await update_organization(uow, tenant.id, tier="pro", stdio_allowed=True)
    entry = await directory.resolve(secret)
    assert entry is not None
    assert (entry.caller.tier, entry.caller.stdio_allowed) == (TIERS["pro"], True)


async def test_keys_of_an_older_pepper_stay_valid(database: Database, operator: Organization, peppers: Peppers, settings: Settings) -> None:
    async with database.unit_of_work() as uow:
        _, old = await create_key(uow, operator.founder(), KeyCreate(name="old"), peppers)
    both = Peppers({**peppers.ring, 2: b"q" * 32})
    async with database.unit_of_work() as uow:
        _, new = await create_key(uow, operator.founder(), KeyCreate(name="new"), both)
    directory = KeyDirectory(database, both, settings)
    for secret in (old, new):
        entry = await directory.resolve(secret)
        assert entry is not None
        assert directory.find(secret) is entry
    assert await KeyDirectory(database, peppers, settings).resolve(new) is None


async def test_organisation_named_in_the_settings_may_register_stdio_servers(
    database: Database, tenant: Organization, peppers: Peppers, settings: Settings
) -> None:
    async with database.unit_of_work() as uow:
        _, secret = await create_key(uow, tenant.founder(), KeyCreate(name="ci"), peppers)
    allowing = settings.model_copy(update={"allow_stdio_organizations": (tenant.id,)})
    entry = await KeyDirectory(database, peppers, allowing).resolve(secret)
    assert entry is not None
    assert entry.caller.stdio_allowed
