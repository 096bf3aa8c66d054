"""Walk 4: every row that changes something leaves a row in the audit, whoever adds it."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from plughub.db.tables import audit
from plughub.door.routes import PUBLIC, Route
from plughub.events.audit_check import verify
from plughub.identity.sessions import Visit, open_session
from tests.contract.cases import Case, load, placeholders
from tests.contract.test_cases import ask as ask_case
from tests.contract.test_cases import row_of
from tests.contract.world import World
from tests.serving import PASSWORD, Browser, Json, Served
from tests.walks.rows import PERSONAL, ROWS, SCOPED, Things, ask, name, path, placed
from tests.walks.test_commit import ACCOUNTS, WRITING, change

pytestmark = pytest.mark.anyio
# They have a letter written, by a job: nothing is changed by it, and nobody is to learn whether an account exists.
# And a code that a command line shows allows it nothing, until somebody has decided.
TELLS_NOTHING = {"POST /api/auth/password/forgot", "POST /api/auth/verify/resend", "POST /api/cli/auth/initiate"}
SECRETS = {"reset_token", "verify_token", "invited_token", "setup_code", "code", "totp", "secret", "uri", "backup_codes"}
BY_PEOPLE = tuple(row for row in ROWS if row.method != "GET" and (row in PERSONAL or name(row) in ACCOUNTS))
OF_PEOPLE = [case for case in load() if row_of(case) in BY_PEOPLE and case.answer["status"] < 300]


@pytest.fixture(scope="module")
async def world(lite: Served) -> AsyncIterator[World]:
    found = await World.of(lite)
    yield found
    await found.close()


async def newest(served: Served, **wanted: str) -> Json:
    query = "&".join(f"{key}={value}" for key, value in {"limit": "1", **wanted}.items())
    answer = await served.call("GET", f"/api/audit-logs?{query}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()["audit_logs"][0]
    return found


async def fresh(served: Served) -> tuple[Things, str]:
    """Things of this test alone, for a row may remove them; and the secret of the key."""
    disabled = {"name": "walked", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    server = await served.call("POST", "/api/servers", disabled)
    key = await served.call("POST", "/api/auth/keys", {"name": "walked"})
    return await placed(served, Things(server.json()["uuid"], key.json()["id"])), key.json()["key"]


@pytest.mark.requirement("audit.every-change")
@pytest.mark.parametrize("row", [row for row in WRITING if row not in PERSONAL], ids=name)
async def test_every_change_leaves_a_row_with_its_key_and_request(lite: Served, row: Route) -> None:
    things, secret = await fresh(lite)
    body = {"token": secret} if row.path.endswith("/leaked") else change(lite, row, things)
    answer = await lite.call(row.method, path(row, things), body)
    assert answer.status_code < 300, answer.text
    told = await newest(lite)
    assert told["request_id"] == answer.headers["x-request-id"]
    who = ("anonymous", None) if row.scope == PUBLIC else ("key", "Operator")
    assert (told["outcome"], told["actor"]["type"], told["actor"]["name"], told["address"]) == ("ok", *who, "127.0.0.1")
    assert told["action"].split(".")[0] == told["object"]["type"]
    assert told["changes"] and told["object"]["name"]


@pytest.mark.requirement("audit.every-change")
@pytest.mark.parametrize("case", OF_PEOPLE, ids=lambda case: case.id)
async def test_every_change_by_a_person_leaves_a_row_with_the_person_and_request(world: World, case: Case) -> None:
    """The rows that take a session, a password or a link: what they are asked with comes from the cases of the contract."""
    key = await world.key_of(case.who)
    things = await world.things(placeholders(case.request), key)
    if isinstance(key, Browser):
        await elsewhere(world.served, key)
    answer = await ask_case(world.served, case, key, things)
    assert answer.status_code == case.answer["status"], answer.text
    async with world.served.database.read() as connection:
        query = select(audit).where(audit.c.request_id == answer.headers["x-request-id"]).order_by(audit.c.seq)
        told = (await connection.execute(query)).all()
    assert bool(told) is (name(row_of(case)) not in TELLS_NOTHING)
    for row in told:
        assert (row.outcome, row.actor_kind, row.address) == ("ok", "user", "127.0.0.1")
        assert row.user_id and row.object_name and row.action.split(".")[0] == row.object_kind
        assert row.changes != "{}"
        kept = f"{row.object_name} {row.changes} {row.note}"
        assert not [
            secret for secret in (PASSWORD, *secrets_of(things), *secrets_of(answer.json() if answer.content else {})) if secret in kept
        ]


async def elsewhere(served: Served, browser: Browser) -> None:
    """Log the person in with another browser: some changes end it."""
    async with served.database.unit_of_work() as uow:
        await open_session(uow, browser.user_id, (await served.operator()).id, Visit("192.0.2.7", "another"), 60)


def secrets_of(found: Json) -> list[str]:
    """What in the things of a case, or in its answer, opens something."""
    return [str(value) for field, value in found.items() if field in SECRETS]


@pytest.mark.requirement("audit.every-change", "audit.refusals")
async def test_a_refused_login_leaves_a_row_whether_somebody_has_the_address_or_not(lite: Served) -> None:
    email = "refused@example.com"
    somebody = await lite.browser(await lite.operator(), email=email)
    for typed, known in ((email, email), ("hunter2-typed-in-the-wrong-field", None)):
        answer = await lite.call("POST", "/api/auth/login", {"email": typed, "password": "not the password"}, key="")
        assert answer.status_code == 401
        told = await newest(lite)
        assert (told["action"], told["outcome"], told["request_id"]) == ("session.opened", "UNAUTHORIZED", answer.headers["x-request-id"])
        assert (told["actor"]["type"], told["actor"]["user_id"], told["object"]["name"]) == ("anonymous", None, known)
        assert told["note"] == {"reason": "credentials"} and "hunter2" not in str(told) and "not the password" not in str(told)
    assert (await lite.call("GET", "/api/auth/me", key=somebody)).status_code == 200


@pytest.mark.requirement("audit.refusals")
@pytest.mark.parametrize("row", [row for row in SCOPED if not row.hot and row.scope != "admin"], ids=name)
async def test_every_refused_request_for_a_scope_leaves_a_row(lite: Served, row: Route) -> None:
    organization = await lite.operator()
    key = await lite.key_of(organization, scopes=["read:documents" if row.scope != "read:documents" else "read:profile"])
    answer = await ask(lite, row, Things.missing(), key=key)
    assert answer.status_code == 403
    await lite.app.refusals.written()
    told = await newest(lite, action="request.refused")
    assert (told["request_id"], told["outcome"]) == (answer.headers["x-request-id"], "FORBIDDEN")
    assert told["object"]["name"] == name(row) and told["note"] == {"required_scope": row.scope}


@pytest.mark.requirement("audit.tamper-evident")
async def test_the_chain_of_all_that_fits(lite: Served) -> None:
    chain = lite.database.chain
    assert chain is not None
    assert {verdict.reason async for verdict in verify(lite.database, chain)} == {None}


def test_the_walk_is_of_all_rows_that_write() -> None:
    assert {name(row_of(case)) for case in OF_PEOPLE} == {name(row) for row in BY_PEOPLE}
    assert len(WRITING) > 20 and {row.method for row in ROWS if row in WRITING} == {"POST", "PUT", "PATCH", "DELETE"}
