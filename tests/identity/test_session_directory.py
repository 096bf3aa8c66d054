"""The directory of sessions: what admission is told about a cookie, in this process and in others."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from plughub.db.engine import Database
from plughub.events.follower import Follower
from plughub.identity.members import change_role
from plughub.identity.people import insert_membership, insert_person
from plughub.identity.roles import PERMISSIONS, ROLES
from plughub.identity.service import Organization, update_organization
from plughub.identity.session_directory import SEEN_EVERY_S, SessionDirectory
from plughub.identity.sessions import Visit, end_sessions, list_sessions, open_session
from plughub.kit.caller import SCOPES, SESSION_TIER
from plughub.kit.clock import SystemClock
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio


async def logged_in(database: Database, organization: Organization, role: str = "admin") -> tuple[str, str]:
    """A person's id and the token of their session."""
    async with database.unit_of_work() as uow:
        person = await insert_person(uow, f"{role}@example.com", "Ada", "none", verified=True)
        await insert_membership(uow, organization.id, person.id, role)  # type: ignore[arg-type]
        _, token = await open_session(uow, person.id, organization.id, Visit("192.0.2.1"), 1e6)
    return person.id, token


@pytest.mark.requirement("people.roles")
def test_a_role_has_all_that_the_roles_below_it_have() -> None:
    assert PERMISSIONS["owner"] == PERMISSIONS["admin"] == SCOPES
    for upper, lower in pairwise(ROLES):
        assert PERMISSIONS[upper] >= PERMISSIONS[lower]
    own = {"write:profile", "write:notifications"}
    assert all(scope.startswith("read:") for scope in PERMISSIONS["viewer"] - own)
    assert not {"admin", "write:servers", "delete:servers", "write:webhooks"} & PERMISSIONS["member"]


@pytest.mark.requirement("people.sessions")
async def test_a_session_is_found_with_a_caller_for_each_environment(database: Database, tenant: Organization, settings: Settings) -> None:
    directory = SessionDirectory(database, settings)
    person_id, token = await logged_in(database, tenant, "member")
    entry = await directory.find(token)
    assert entry is not None and await directory.find(token) is entry
    assert await directory.find(token + "x") is None
    for environment in ("live", "test"):
        caller = entry.callers[environment]  # type: ignore[index]
        assert (caller.space_id, caller.environment) == (tenant.space_id(environment), environment)  # type: ignore[arg-type]
        assert (caller.credential, caller.user_id, caller.key_id) == ("session", person_id, entry.session_id)
        assert (caller.scopes, caller.servers, caller.tier) == (PERMISSIONS["member"], None, SESSION_TIER)
        assert not caller.operator and not caller.stdio_allowed
    async with database.unit_of_work() as uow:
        await update_organization(uow, tenant.id, stdio_allowed=True)
    entry = await directory.find(token)
    assert entry is not None and entry.callers["live"].stdio_allowed


@pytest.mark.requirement("people.session-timeouts")
async def test_its_use_is_written_once_a_minute_at_most(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    directory = SessionDirectory(database, settings)
    person_id, token = await logged_in(database, tenant)

    async def seen_at() -> float:
        async with database.read() as connection:
            return (await list_sessions(connection, person_id, clock.time(), 1e9))[0].seen_at

    began = await seen_at()
    await directory.find(token)
    clock.advance(SEEN_EVERY_S - 1)
    await directory.find(token)
    assert await seen_at() == began
    clock.advance(1)
    await directory.find(token)
    assert await seen_at() == clock.time()


@pytest.fixture
async def other(database: Database, database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """This process and another one on the same database; on SQLite there can be no other."""
    if database.kind == "sqlite":
        yield database, database
        return
    here, there = Database(database_url, SystemClock()), Database(database_url, SystemClock())
    followers = [Follower(here), Follower(there)]
    for follower in followers:
        await follower.start()
    yield here, there
    for follower in followers:
        await follower.aclose()
    await here.aclose()
    await there.aclose()


@pytest.mark.requirement("people.sessions", "data.caches-follow-the-log")
async def test_what_ends_here_is_over_in_other_processes_at_once(
    other: tuple[Database, Database], tenant: Organization, settings: Settings
) -> None:
    here, there = other
    directory = SessionDirectory(there, settings)
    person_id, token = await logged_in(here, tenant)
    entry = await directory.find(token)
    assert entry is not None and "admin" in entry.callers["live"].scopes
    async with here.unit_of_work() as uow:
        await change_role(uow, tenant.founder(), person_id, "viewer")
    entry = await directory.find(token)
    assert entry is not None and "admin" not in entry.callers["live"].scopes
    async with here.unit_of_work() as uow:
        await end_sessions(uow, person_id)
    assert await directory.find(token) is None
