"""Walk 1: every row, asked by everybody who must not get an answer. The cases come from the rows, so a new route is covered by itself."""

from dataclasses import dataclass, replace

import pytest

from plughub.door.routes import PUBLIC, Route
from plughub.identity.service import Organization
from plughub.keys.secret import generate
from plughub.kit.caller import SCOPES
from tests.serving import Browser, Served
from tests.walks.rows import (
    CLOSED,
    OPEN,
    OPERATORS,
    PERSONAL,
    ROWS,
    SCOPED,
    Things,
    ask,
    check_error,
    code_of,
    comparable,
    credential,
    has_id,
    name,
    parameters,
    placed,
    without_session,
)

pytestmark = pytest.mark.anyio
CANARY = "canary-7f3a"
# What a list of servers says nothing of.
_PEOPLE = ("organization_id", "user_id", "app_id", "grant_id")
NO_SERVER = {"submission_id", "key_id", "request_id", "session_id", *_PEOPLE, "alert_id", "notification_id", "webhook_id", "document_id"}
# People and organisations belong to both environments: tests/api/test_organizations.py.
TEAM = tuple(row for row in CLOSED if {"organization_id", "user_id", "app_id", "grant_id"}.intersection(parameters(row)))
# Rows of one project, profile or collection: which servers are in it decides who sees it.
PLACES = tuple(row for row in CLOSED if {"project_uuid", "profile_uuid", "profile_slug", "collection_uuid"}.intersection(parameters(row)))

# Rows of one webhook: who may use some servers does not get to what is told of more.
HOOKS = tuple(row for row in CLOSED if "webhook_id" in parameters(row))


@dataclass
class People:
    """Keys of everybody, and what belongs to the owner."""

    organization: Organization
    other: Organization
    owner: str
    test: str
    stranger: str
    listed: str
    dead: dict[str, str]
    things: Things


@pytest.fixture(scope="module")
async def people(served: Served) -> People:
    one, other = await served.organization("One", stdio_allowed=True), await served.organization("Other", stdio_allowed=True)
    owner = await served.key_of(one)
    made = await served.call(
        "POST", "/api/servers", {"name": CANARY, "type": "STDIO", "config": {"command": "/nonexistent/" + CANARY}}, key=owner
    )
    key = await served.call("POST", "/api/auth/keys", {"name": CANARY, "scopes": ["read:servers"]}, key=owner)
    assert (made.status_code, key.status_code) == (201, 201)
    dead = {"expired": await served.key_of(one, expires_at="2027-01-15T08:00:01Z")}
    for state in ("revoked", "suspended"):
        found = (await served.call("POST", "/api/auth/keys", {"name": state, "scopes": ["admin"]}, key=owner)).json()
        dead[state] = found["key"]
        path = f"/api/auth/keys/{found['id']}"
        change = ("DELETE", path) if state == "revoked" else ("PATCH", path, {"status": "suspended"})
        assert (await served.call(*change, key=owner)).status_code == 200
    replaced = (await served.call("POST", "/api/auth/keys", {"name": "replaced", "scopes": ["admin"]}, key=owner)).json()
    dead |= {"replaced": replaced["key"], "elsewhere": await served.key_of(one, allowed_ips=["192.0.2.1"])}
    path = f"/api/auth/keys/{replaced['id']}/rotate"
    assert (await served.call("POST", path, {"overlap_seconds": 0}, key=owner)).status_code == 200
    served.clock.advance(2)
    listed = await served.key_of(one, servers=[])
    await served.app.hub.writer.flush()
    things = Things(made.json()["uuid"], key.json()["id"], made.headers["x-request-id"])
    return People(
        organization=one,
        other=other,
        owner=owner,
        test=await served.key_of(one, "test"),
        stranger=await served.key_of(other),
        listed=listed,
        dead=dead,
        things=replace(await placed(served, things, CANARY, owner), browser=await _session_of(served, await served.browser(one))),
    )


async def _session_of(served: Served, browser: Browser) -> str:
    return str((await served.call("GET", "/api/auth/sessions", key=browser)).json()["sessions"][0]["id"])


@pytest.mark.requirement("routes.walk-callers", "errors.every-401-challenges")
@pytest.mark.parametrize("row", CLOSED, ids=name)
async def test_without_a_key_every_closed_route_is_a_401(served: Served, people: People, row: Route) -> None:
    answer = await ask(served, row, people.things, key="")
    assert answer.status_code == 401
    assert code_of(row, answer) == ("unauthorized" if row.door == "v1" else "UNAUTHORIZED")
    assert answer.headers["x-ratelimit-limit"]
    check_error(row, answer)


@pytest.mark.requirement("routes.walk-callers", "keys.bad-checksum-refused-unseen", "errors.key-prefix-in-401")
@pytest.mark.parametrize("row", CLOSED, ids=name)
async def test_with_a_bad_key_every_closed_route_is_a_401(served: Served, people: People, row: Route) -> None:
    wrong = people.owner[:-1] + ("a" if people.owner[-1] != "a" else "b")
    for bad in ("nonsense", wrong, generate("public", "live"), generate("secret", "test")):
        answer = await ask(served, row, people.things, key=bad)
        assert answer.status_code == 401
        details = answer.json()["error"]["data" if row.door == "mcp" else "details"]
        assert details.get("key_prefix") == (None if bad == "nonsense" else bad[:8])
        assert bad not in answer.text
        check_error(row, answer)


@pytest.mark.requirement(
    "keys.revoked-answers-410",
    "keys.revoked-answers-401-on-v1",
    "keys.expired-answers-401",
    "keys.suspended-answers-403",
    "keys.rotation",
    "keys.allowed-addresses",
)
@pytest.mark.parametrize("row", CLOSED, ids=name)
async def test_a_dead_key_is_told_why(served: Served, people: People, row: Route) -> None:
    v1 = row.door == "v1"
    wanted = {
        "revoked": (401, "revoked_key") if v1 else (410, "GONE"),
        "replaced": (401, "revoked_key") if v1 else (410, "GONE"),
        "elsewhere": (403, "forbidden") if v1 else (403, "FORBIDDEN"),
        "expired": (401, "expired_key") if v1 else (401, "UNAUTHORIZED"),
        "suspended": (403, "forbidden") if v1 else (403, "FORBIDDEN"),
    }
    for state, key in people.dead.items():
        answer = await ask(served, row, people.things, key=key)
        assert (answer.status_code, code_of(row, answer)) == wanted[state]
        assert answer.headers["x-ratelimit-limit"]
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-callers", "keys.scope-missing-answers-403")
@pytest.mark.parametrize("row", SCOPED, ids=name)
async def test_without_the_scope_every_route_is_a_403_that_names_it(served: Served, people: People, row: Route) -> None:
    key = await served.key_of(people.organization, scopes=sorted(SCOPES - {row.scope, "admin"}))
    for things in (people.things, Things.missing()):
        answer = await ask(served, row, things, key=key)
        assert answer.status_code == 403
        assert answer.json()["error"]["data" if row.door == "mcp" else "details"]["required_scope"] == row.scope
        assert f'scope="{row.scope}"' in answer.headers["www-authenticate"]
        assert answer.headers["x-ratelimit-remaining"]
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-callers", "people.no-key-for-people")
@pytest.mark.parametrize("row", PERSONAL, ids=name)
async def test_no_key_does_what_is_a_persons_own(served: Served, people: People, row: Route) -> None:
    for key in (people.owner, people.test, people.listed):
        answer = await ask(served, row, people.things, key=key)
        assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "session_required")
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-callers", "routes.foreign-is-missing")
@pytest.mark.parametrize("row", [row for row in PERSONAL if has_id(row)], ids=name)
async def test_what_is_another_persons_looks_missing_to_the_byte(served: Served, people: People, row: Route) -> None:
    for organization in (people.other,) if row in TEAM else (people.organization, people.other):
        somebody = await served.browser(organization)
        foreign = await ask(served, row, people.things, key=somebody)
        assert foreign.status_code == 404
        assert comparable(foreign) == comparable(await ask(served, row, Things.missing(), key=somebody))


@pytest.mark.requirement("routes.walk-callers", "routes.foreign-is-missing", "keys.environments-apart")
@pytest.mark.parametrize("row", [row for row in OPEN if has_id(row)], ids=name)
async def test_what_is_foreign_looks_missing_to_the_byte(served: Served, people: People, row: Route) -> None:
    for key in (people.stranger,) if row in TEAM else (people.stranger, people.test):
        foreign = await ask(served, row, people.things, key=key)
        missing = await ask(served, row, Things.missing(), key=key)
        assert foreign.status_code == 404
        assert comparable(foreign) == comparable(missing)
        check_error(row, foreign)


@pytest.mark.requirement("routes.walk-callers", "keys.environments-apart")
@pytest.mark.parametrize("row", [row for row in ROWS if not has_id(row)], ids=name)
async def test_no_answer_holds_anything_foreign(served: Served, people: People, row: Route) -> None:
    for key in ("" if row.scope == PUBLIC else people.stranger, people.test):
        answer = await ask(served, row, people.things, key=key)
        assert answer.status_code < 500 or code_of(row, answer).upper() == "UPSTREAM_ERROR"  # their own server is down
        assert CANARY not in answer.text
        shared = people.things.of_organization() if key == people.test else set()
        for id_ in {*people.things.ids()} - shared:
            assert id_ not in answer.text


@pytest.mark.requirement("keys.grant-excludes-answers-403")
@pytest.mark.parametrize("row", [row for row in OPEN if has_id(row) and not NO_SERVER & {*parameters(row)} and row not in PLACES], ids=name)
async def test_a_server_outside_the_grant_is_a_403(served: Served, people: People, row: Route) -> None:
    answer = await ask(served, row, people.things, key=people.listed)
    assert answer.status_code == 403
    assert code_of(row, answer) == ("mcp_not_permitted" if row.door == "v1" else "FORBIDDEN")
    assert answer.json()["error"]["message"] == "API key does not have access to this MCP"
    missing = await ask(served, row, Things.missing(), key=people.listed)
    assert missing.status_code == 404
    check_error(row, answer)


@pytest.mark.requirement("projects.grant")
@pytest.mark.parametrize("row", PLACES, ids=name)
async def test_a_place_without_a_granted_server_looks_missing_and_no_key_with_a_list_changes_one(
    served: Served, people: People, row: Route
) -> None:
    answer = await ask(served, row, people.things, key=people.listed)
    assert comparable(answer) == comparable(await ask(served, row, Things.missing(), key=people.listed))
    looked_for = row.method == "GET" or row.door == "mcp"
    assert answer.status_code == (404 if looked_for else 403)
    assert looked_for or answer.json()["error"]["details"]["reason"] == "server_list"
    check_error(row, answer)


@pytest.mark.requirement("webhooks.grant")
@pytest.mark.parametrize("row", HOOKS, ids=name)
async def test_a_webhook_that_is_told_of_more_than_the_key_may_use_looks_missing(served: Served, people: People, row: Route) -> None:
    answer = await ask(served, row, people.things, key=people.listed)
    assert answer.status_code == 404
    assert comparable(answer) == comparable(await ask(served, row, Things.missing(), key=people.listed))
    check_error(row, answer)


@pytest.mark.requirement("routes.walk-callers")
@pytest.mark.parametrize("row", (*OPEN, *PERSONAL), ids=name)
async def test_the_owner_gets_in(served: Served, people: People, row: Route) -> None:
    """Else the walk would prove nothing."""
    if row.method == "DELETE":
        return
    personal = row in PERSONAL
    answer = await ask(served, row, people.things, key=await credential(served, row, people.organization) if personal else people.owner)
    if wanted := without_session(row):
        assert answer.status_code == wanted
        return
    if "/totp/" in row.path or row.path.endswith(
        ("/accept", "/approve", "/deny")
    ):  # they take a code or a token, and there is none to make up
        assert answer.status_code in (401, 404, 409)
        return
    if row.scope == "write:profile":  # a key is nobody
        assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "person_required")
        return
    assert answer.status_code not in (401, 403, 404, 405, 500), answer.text


@pytest.mark.requirement("routes.walk-callers", "organizations.operator-alone", "people.mail")
@pytest.mark.parametrize("row", OPERATORS, ids=name)
async def test_what_is_the_operators_is_a_403_to_everybody_else_whether_it_exists_or_not(
    served: Served, people: People, row: Route
) -> None:
    operator = await served.operator()
    without_admin = await served.key_of(operator, scopes=sorted(SCOPES - {"admin"}))
    refused = [(key, "operator_only") for key in (people.owner, people.test, people.stranger, people.listed, without_admin)]
    refused.append((await served.key_of(operator, "test"), "live_only"))
    for key, reason in refused:
        for things in (people.things, Things.missing()):
            answer = await ask(served, row, things, key=key)
            assert answer.status_code == 403
            assert answer.json()["error"]["details"]["reason"] == reason
            assert CANARY not in answer.text
            check_error(row, answer)
    if has_id(row):
        assert (await ask(served, row, Things.missing())).status_code == 404
    assert (await ask(served, row, people.things)).status_code in (200, 201)


def test_every_row_has_a_scope_and_is_walked() -> None:
    assert {row.scope for row in ROWS} <= SCOPES | {PUBLIC, "authenticated", "session", "operator"}
    assert {name(row) for row in ROWS if row.scope == PUBLIC} == {
        "GET /api/check-username",
        "GET /api/users/{username}",
        "GET /api/collections/public",
        "GET /api/collections/public/{collection_uuid}",
        "GET /api/collections/shared/{share_token}",
        "GET /health",
        "GET /ready",
        "GET /status",
        "GET /metrics",
        "GET /api/openapi.json",
        "POST /api/auth/login",
        "POST /api/auth/password/forgot",
        "POST /api/auth/password/reset",
        "POST /api/auth/register",
        "POST /api/auth/setup",
        "POST /api/auth/verify",
        "POST /api/cli/auth/initiate",
        "GET /api/cli/auth/poll",
        "POST /oauth/device_authorization",
        "POST /oauth/introspect",
        "POST /oauth/register",
        "POST /oauth/revoke",
        "POST /oauth/token",
        "GET /.well-known/oauth-authorization-server",
        "GET /api/postman.json",
        "POST /api/auth/keys/leaked",
        "GET /.well-known/oauth-protected-resource",
        "GET /.well-known/oauth-protected-resource/mcp",
        "GET /.well-known/oauth-protected-resource/mcp/{profile_slug}",
        "GET /.well-known/oauth-protected-resource/servers/{uuid}/mcp",
        "GET /.well-known/oauth-protected-resource/servers/{uuid}/sse",
        "GET /.well-known/oauth-protected-resource/sse",
        "GET /v0.1/servers",
        "GET /v0.1/servers/{server_name}/versions",
        "GET /v0.1/servers/{server_name}/versions/{version}",
    }, "a public route is a decision: write it here"
