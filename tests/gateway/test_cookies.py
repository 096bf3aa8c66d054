"""Browsers that are logged in: what their cookie is good for, and when it is over."""

import shutil
from pathlib import Path

import pytest

from plughub.identity.sessions import MAX_SESSIONS, Visit, end_session, end_sessions, list_sessions, open_session, switch_session
from plughub.kit.caller import SESSION_TIER, TIERS
from plughub.kit.errors import OrganizationNotFound, SessionNotFound
from tests.serving import BASE, Browser, RawCall, Served, serving

pytestmark = pytest.mark.anyio
LIMITS = "/api/rate-limit"


@pytest.mark.requirement("people.sessions", "people.roles")
async def test_a_cookie_speaks_for_its_person_with_the_rights_of_their_role(served: Served) -> None:
    operator = await served.operator()
    owner, viewer = await served.browser(operator), await served.browser(operator, "viewer")
    assert (await served.call("GET", "/api/servers", key=owner)).json()["total"] >= 1
    assert (await served.call("GET", LIMITS, key=owner)).json()["tier"] == "session"
    made = await served.call("POST", "/api/projects", {"name": "of a browser"}, key=owner)
    assert made.status_code == 201
    refused = await served.call("POST", "/api/projects", {"name": "no"}, key=viewer)
    assert (refused.status_code, refused.json()["error"]["details"]["required_scope"]) == (403, "write:servers")
    called = await served.call("POST", f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "hi"}}, key=owner)
    assert called.json()["result"] == "hi"


@pytest.mark.requirement("people.environment-by-header")
async def test_a_browser_acts_in_live_unless_it_names_test(served: Served) -> None:
    owner = await served.browser(await served.operator())
    made = (await served.call("POST", "/api/projects", {"name": "x"}, key=owner, headers={"X-Plughub-Environment": "test"})).json()
    in_test = await served.call("GET", f"/api/projects/{made['uuid']}", key=owner, headers={"X-Plughub-Environment": "test"})
    assert in_test.status_code == 200
    assert (await served.call("GET", f"/api/projects/{made['uuid']}", key=owner)).status_code == 404
    wrong = await served.call("GET", "/api/projects", key=owner, headers={"X-Plughub-Environment": "stage"})
    assert (wrong.status_code, wrong.json()["error"]["details"]["field"]) == (400, "X-Plughub-Environment")


@pytest.mark.requirement("people.same-origin")
async def test_only_our_own_pages_change_anything_with_a_cookie(served: Served) -> None:
    owner = await served.browser(await served.operator())
    cookie = {"Cookie": f"plughub={owner.token}"}

    async def status(method: str, headers: dict[str, str]) -> int:
        body = {"name": "x"} if method == "POST" else None
        return (await served.call(method, "/api/projects", body, key="", headers={**cookie, **headers})).status_code

    evil = "https://evil.example"
    for headers in (
        {},
        {"Origin": evil},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Sec-Fetch-Site": "cross-site", "Origin": BASE},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": ""},
    ):
        assert await status("POST", headers) == 403, headers
        assert await status("GET", headers) == 200, headers
    for headers in ({"Origin": BASE}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert await status("POST", headers) == 201, headers


@pytest.mark.requirement("people.no-cookie-on-mcp")
async def test_a_cookie_is_nothing_to_the_mcp_doors_and_a_header_wins_over_it(served: Served) -> None:
    owner = await served.browser(await served.operator())
    for path in ("/mcp", f"/servers/{served.demo_id}/mcp", "/sse"):
        method = "GET" if path == "/sse" else "POST"
        body = None if path == "/sse" else {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        answer = await served.call(method, path, body, key=owner, headers={"Accept": "application/json, text/event-stream"})
        assert answer.status_code == 401, path
    for name, value in (("Authorization", "Bearer nonsense"), ("X-API-Key", "nonsense"), ("Authorization", "")):
        answer = await served.call("GET", LIMITS, key=owner, headers={name: value})
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "Invalid API key provided")
    both = await served.call("GET", LIMITS, key=served.key, headers={"Cookie": f"plughub={owner.token}"})
    assert both.json()["tier"] == "enterprise"


@pytest.mark.requirement("people.sessions")
@pytest.mark.parametrize("cookie", ["plughub=", "plughub=x", "plughub=a; plughub=b", "other=x", "plughub", "plughub=" + "x" * 5000, "=;;="])
async def test_a_cookie_that_is_no_session_is_a_401(served: Served, cookie: str) -> None:
    answer = await served.call("GET", LIMITS, key="", headers={"Cookie": cookie})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.requirement("people.session-timeouts")
async def test_a_session_ends_when_it_is_idle_too_long_and_at_the_latest_with_its_lifetime(served: Served) -> None:
    operator = await served.operator()
    idle, used = await served.browser(operator), await served.browser(operator)
    for expected in (200, 401):  # after the second time the day of its lifetime is over as well
        served.clock.advance(served.app.hub.settings.login_idle_s - 1)
        assert (await served.call("GET", LIMITS, key=used)).status_code == expected
    assert (await served.call("GET", LIMITS, key=idle)).status_code == 401
    fresh = await served.browser(operator)
    served.clock.advance(served.app.hub.settings.login_idle_s + 1)
    gone = await served.call("GET", LIMITS, key=fresh)
    assert (gone.status_code, gone.json()["error"]["message"]) == (401, "Not logged in")


@pytest.mark.requirement("people.sessions")
async def test_an_ended_session_is_refused_from_the_next_request_and_its_streams_end(served: Served) -> None:
    owner = await served.browser(await served.operator())
    assert (await served.call("GET", LIMITS, key=owner)).status_code == 200
    path = f"/api/servers/{served.demo_id}/logs"
    call = RawCall(served, "GET", path, {"accept": "text/event-stream", "cookie": f"plughub={owner.token}"}, key="").piece(b"")
    task = call.start()
    await call.answer.until(lambda: bool(call.answer.messages))
    assert call.answer.status == 200
    async with served.database.unit_of_work() as uow:
        assert await end_sessions(uow, owner.user_id) == 1
    await task
    assert b"Not logged in" in call.answer.body
    assert (await served.call("GET", LIMITS, key=owner)).status_code == 401


@pytest.mark.requirement("people.sessions")
async def test_sessions_belong_to_their_person_and_are_bounded(served: Served) -> None:
    operator, other = await served.operator(), await served.organization("Elsewhere")
    owner, stranger = await served.browser(operator), await served.browser(other)
    now, idle_s = served.clock.time(), served.app.hub.settings.login_idle_s
    async with served.database.read() as connection:
        [session] = await list_sessions(connection, owner.user_id, now, idle_s)
    assert (session.address, session.agent) == ("127.0.0.1", "test")
    async with served.database.unit_of_work() as uow:
        with pytest.raises(SessionNotFound):
            await end_session(uow, stranger.user_id, session.id)
        with pytest.raises(OrganizationNotFound):
            await switch_session(uow, owner.user_id, session.id, other.id)
    for _ in range(MAX_SESSIONS):
        served.clock.advance(1)
        async with served.database.unit_of_work() as uow:
            await open_session(uow, owner.user_id, operator.id, Visit("127.0.0.1"), 1000)
    async with served.database.read() as connection:
        assert len(await list_sessions(connection, owner.user_id, served.clock.time(), idle_s)) == MAX_SESSIONS
    assert (await served.call("GET", LIMITS, key=owner)).status_code == 401, "the oldest made room"


@pytest.mark.requirement("people.sessions")
async def test_a_key_made_by_a_person_names_them_and_is_never_wider_than_their_role(served: Served) -> None:
    member = await served.browser(await served.operator(), "member")
    made = await served.call("POST", "/api/auth/keys", {"name": "mine"}, key=member)
    assert made.status_code == 201, made.text
    assert "write:servers" not in made.json()["scopes"] and "execute:tools" in made.json()["scopes"]
    wide = await served.call("POST", "/api/auth/keys", {"name": "wide", "scopes": ["admin"]}, key=member)
    assert (wide.status_code, wide.json()["error"]["details"]["reason"]) == (403, "wider_than_maker")
    listed = (await served.call("GET", "/api/auth/keys", key=member)).json()
    assert [key["name"] for key in listed["keys"]] == ["mine"], "of others' keys only administrators know"
    everything = (await served.call("GET", "/api/auth/keys?limit=100")).json()["keys"]
    foreign = next(key["id"] for key in everything if key["name"] == "Operator")
    for method in ("GET", "DELETE"):
        assert (await served.call(method, f"/api/auth/keys/{foreign}", key=member)).status_code == 404


@pytest.mark.requirement("people.sessions")
async def test_the_browsers_of_a_person_share_a_limit_that_spends_nothing_of_the_organisations(lite: Served) -> None:
    team = await lite.organization("Limited")
    one, key = await lite.browser(team), await lite.key_of(team)
    async with lite.database.unit_of_work() as uow:
        _, token = await open_session(uow, one.user_id, team.id, Visit("127.0.0.1"), 1000)
    two = Browser(one.user_id, token)
    for _ in range(SESSION_TIER.burst):
        assert (await lite.call("GET", "/api/organizations", key=one)).status_code == 200
    refused = await lite.call("GET", "/api/organizations", key=two)
    assert (refused.status_code, refused.json()["error"]["details"]["policy"]) == (429, "burst")
    assert (await lite.call("GET", "/api/organizations", key=await lite.browser(team))).status_code == 200
    assert (await lite.call("GET", LIMITS, key=key)).json()["burst"]["remaining"] == TIERS["enterprise"].burst


@pytest.mark.requirement("people.sessions")
async def test_behind_https_the_cookie_is_bound_to_its_host(sqlite_template: Path, tmp_path: Path, anyio_backend: str) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "https.db")
    async with serving(f"sqlite:///{tmp_path / 'https.db'}", tmp_path, public_url="https://hub.example") as hub:
        owner = await hub.browser(await hub.organization("Behind"))
        headers = {"Cookie": f"__Host-plughub={owner.token}", "Origin": "https://hub.example"}
        assert (await hub.call("GET", LIMITS, key="", headers=headers)).status_code == 200
        assert (await hub.call("POST", "/api/projects", {"name": "x"}, key="", headers=headers)).status_code == 201
        assert (await hub.call("GET", LIMITS, key=Browser(owner.user_id, owner.token))).status_code == 401
