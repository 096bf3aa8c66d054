"""The directory of access tokens: what admission is told about one, in this process and in others."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from plughub.db.engine import Database
from plughub.events.follower import Follower
from plughub.identity.members import change_role
from plughub.identity.people import insert_membership, insert_person
from plughub.identity.roles import PERMISSIONS
from plughub.identity.service import Organization
from plughub.keys.service import Peppers
from plughub.kit.caller import TIERS, Caller
from plughub.kit.clock import SystemClock
from plughub.oauth import grants
from plughub.oauth.clients import Client
from plughub.oauth.grants import Consent, Issued, TokenAsked
from plughub.oauth.resources import Target
from plughub.oauth.secret import Digests
from plughub.oauth.token_directory import TokenDirectory
from plughub.settings import Settings
from tests.conftest import CHAIN

pytestmark = pytest.mark.anyio
CLIENT = Client("", "https://client.example/client.json", "document", "Agent", ())


async def allowed(database: Database, organization: Organization, peppers: Peppers, role: str = "admin") -> tuple[Caller, str, str]:
    """A person of the organisation, a grant of theirs, and an access token of it."""
    digests = Digests(peppers)
    async with database.unit_of_work() as uow:
        person = await insert_person(uow, f"{role}@example.com", "Ada", "none", verified=True)
        await insert_membership(uow, organization.id, person.id, role)  # type: ignore[arg-type]
        caller = replace(organization.founder(), user_id=person.id, scopes=PERMISSIONS[role])  # type: ignore[index]
        consent = Consent(CLIENT.client_id, "Agent", frozenset({"read:servers", "write:servers"}), None, Target())
        grant_id = await grants.allow(uow, caller, consent)
        issued = await grants.redeem_grant(uow, digests, CLIENT, grant_id, TokenAsked(None, Target()))
    assert isinstance(issued, Issued)
    return caller, grant_id, issued.access_token


async def test_a_token_is_found_with_a_caller_for_each_environment(
    database: Database, tenant: Organization, settings: Settings, peppers: Peppers
) -> None:
    directory = TokenDirectory(database, peppers, settings)
    person, grant_id, token = await allowed(database, tenant, peppers)
    entry = await directory.find(token)
    assert entry is not None and await directory.find(token) is entry
    for wrong in (token + "x", token[:-1], "rt_" + token[3:], "pk_live_ph_" + "x" * 38):
        assert await directory.find(wrong) is None
    for environment in ("live", "test"):
        caller = entry.callers[environment]  # type: ignore[index]
        assert (caller.space_id, caller.environment) == (tenant.space_id(environment), environment)  # type: ignore[arg-type]
        assert (caller.credential, caller.user_id, caller.key_id, caller.tier) == ("token", person.user_id, grant_id, TIERS["free"])
        assert (caller.scopes, caller.servers) == (frozenset({"read:servers", "write:servers"}), None)


@pytest.mark.requirement("oauth.stored-as-digests")
async def test_tokens_of_an_older_pepper_are_still_found(
    database: Database, tenant: Organization, settings: Settings, peppers: Peppers
) -> None:
    _, _, token = await allowed(database, tenant, peppers)
    newer = Peppers({**peppers.ring, 2: b"q" * 32})
    assert await TokenDirectory(database, newer, settings).find(token) is not None
    assert await TokenDirectory(database, Peppers({2: b"q" * 32}), settings).find(token) is None


@pytest.fixture
async def other(database: Database, database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """This process and another one on the same database; on SQLite there can be no other."""
    if database.kind == "sqlite":
        yield database, database
        return
    here, there = Database(database_url, SystemClock(), CHAIN), Database(database_url, SystemClock())
    followers = [Follower(here), Follower(there)]
    for follower in followers:
        await follower.start()
    yield here, there
    for follower in followers:
        await follower.aclose()
    await here.aclose()
    await there.aclose()


@pytest.mark.requirement("oauth.revocation", "oauth.never-wider", "data.caches-follow-the-log")
async def test_what_is_taken_back_here_is_refused_in_other_processes_at_once(
    other: tuple[Database, Database], tenant: Organization, settings: Settings, peppers: Peppers
) -> None:
    here, there = other
    directory = TokenDirectory(there, peppers, settings)
    person, grant_id, token = await allowed(here, tenant, peppers)
    entry = await directory.find(token)
    assert entry is not None and "write:servers" in entry.callers["live"].scopes
    assert person.user_id is not None
    async with here.unit_of_work() as uow:
        await change_role(uow, tenant.founder(), person.user_id, "viewer")
    entry = await directory.find(token)
    assert entry is not None and "write:servers" not in entry.callers["live"].scopes
    async with here.unit_of_work() as uow:
        assert await grants.revoke(uow, grant_id, "revoked_by_person")
    assert await directory.find(token) is None
