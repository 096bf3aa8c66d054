"""The code flow: from a client's request over a person's consent to tokens that every door takes."""

from base64 import b64encode

import pytest
from pydantic import TypeAdapter

from plughub.api import oauth_shapes as shapes
from plughub.db.columns import metadata
from plughub.jobs import prune_oauth
from plughub.jobs.loop import JobLoop
from plughub.oauth.grants import ACCESS_S, GRANT_S, REFRESH_S
from tests.oauth.flow import CALLBACK, Flow, accepted, post_form, query_of
from tests.serving import BASE, Browser, Served

pytestmark = pytest.mark.anyio
FOREIGN = [
    "https://other.example/mcp",
    f"{BASE}/mcp#x",
    f"{BASE}/mcp?x=1",
    f"{BASE}/nothing",
    f"{BASE}/mcp/../api",
    "mcp",
    f"{BASE}:99999/mcp",
]


@pytest.fixture(scope="module")
async def ada(served: Served) -> Browser:
    return await served.browser(await served.operator(), email="ada@example.com")


@pytest.mark.requirement("oauth.code-flow", "oauth.consent-page", "oauth.iss")
async def test_a_person_allows_a_client_that_has_registered_itself(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada, client_name="<b>Agent</b>\u202e")
    page = await flow.show(resource=f"{BASE}/mcp")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    for words in (
        "&lt;b&gt;Agent&lt;/b&gt;",
        "ada@example.com",
        "client.example",
        "execute:tools",
        "Nobody vouches",
        f"{BASE}/mcp",
        served.demo_id,
    ):
        assert words in page.text, words
    assert "\u202e" not in page.text and "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert "form-action 'self' https://client.example" in policy
    assert (page.headers["x-frame-options"], page.headers["cache-control"]) == ("DENY", "no-store")
    sent = await flow.decide(page)
    assert sent.headers["location"].startswith(f"{CALLBACK}?code=ac_")
    told = query_of(sent)
    assert (told["state"], told["iss"]) == ("s-1", BASE)
    answer = await flow.exchange(told["code"], resource=f"{BASE}/mcp")
    assert (answer.status_code, answer.headers["cache-control"], answer.headers["pragma"]) == (200, "no-store", "no-cache")
    tokens = TypeAdapter(shapes.TokenOut).validate_json(answer.content)
    assert (tokens.expires_in, tokens.scope) == (3600, "execute:tools read:servers")
    assert tokens.access_token.startswith("at_") and tokens.refresh_token.startswith("rt_")
    listed = await served.rpc("tools/list", key=tokens.access_token, modern=True)
    assert listed.status_code == 200 and listed.json()["result"]["tools"]


@pytest.mark.requirement("oauth.documented-flow")
async def test_the_documented_flow_of_a_client_with_a_secret_works_as_printed(served: Served, ada: Browser) -> None:
    """No state, no PKCE, no resource; a space in `scope`; JSON at the token endpoint."""
    app = await Flow.app(served, ada)
    path = f"/oauth/authorize?client_id={app.client_id}&redirect_uri={CALLBACK}&response_type=code&scope=read:servers write:servers"
    page = await served.call("GET", path, key=ada)
    assert "an administrator of this hub" in page.text and "run commands on the machine" in page.text
    told = query_of(await app.decide(page))
    assert set(told) == {"code", "iss"}
    body = {"grant_type": "authorization_code", "code": told["code"], "client_id": app.client_id, "client_secret": app.secret}
    answer = await served.call("POST", "/oauth/token", {**body, "redirect_uri": CALLBACK}, key="")
    assert (answer.status_code, answer.json()["scope"]) == (200, "read:servers write:servers")
    token = answer.json()["access_token"]
    assert await accepted(served, token)
    made = await served.call(
        "POST", "/api/servers", {"name": "By token", "type": "SSE", "config": {"url": "https://example.com/sse"}}, key=token
    )
    assert made.status_code == 201
    await served.call("DELETE", f"/api/servers/{made.json()['uuid']}")
    me = (await served.call("GET", "/api/auth/me", key=token)).json()
    assert (me["credential"], me["user"]["email"], me["scopes"]) == ("token", "ada@example.com", ["read:servers", "write:servers"])
    called = await served.call("POST", f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "x"}}, key=token)
    assert called.status_code == 403
    assert 'error="insufficient_scope", scope="execute:tools"' in called.headers["www-authenticate"]
    refused = await served.rpc("tools/list", key=token)
    assert refused.status_code == 403 and 'scope="execute:tools"' in refused.headers["www-authenticate"]


async def test_a_client_with_a_secret_may_say_it_in_three_ways(served: Served, ada: Browser) -> None:
    app = await Flow.app(served, ada)
    assert app.secret is not None
    basic = {"grant_type": "authorization_code", "code": await app.code(), "redirect_uri": CALLBACK, "code_verifier": app.verifier}
    header = b64encode(f"{app.client_id}:{app.secret}".encode()).decode()
    answer = await post_form(served, "/oauth/token", basic, Authorization=f"Basic {header}")
    assert answer.status_code == 200, answer.text
    assert (await app.exchange(await app.code())).status_code == 200
    wrong = await post_form(served, "/oauth/token", basic, Authorization="Basic " + header[:-4])
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")


async def test_who_names_no_scope_gets_what_calling_tools_takes(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    assert (await flow.tokens(scope=None))["scope"] == "execute:tools read:servers"
    assert (await flow.tokens(scope=None, resource=f"{BASE}/mcp"))["scope"] == "execute:tools"
    assert (await flow.tokens(scope="offline_access execute:tools"))["scope"] == "execute:tools"
    page = await flow.show(scope="execute:tools")
    assert "run commands" not in page.text


async def test_without_a_session_the_person_logs_in_first(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    answer = await flow.show(who="")
    location = answer.headers["location"]
    assert answer.status_code == 303 and location.startswith("/login?next=%2Foauth%2Fauthorize%3F")
    assert (await flow.show(who=Browser("", "nonsense"))).headers["location"].startswith("/login?next=")


@pytest.mark.requirement("oauth.consent-page")
async def test_a_person_says_no(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    told = query_of(await flow.decide(await flow.show(), "deny"))
    assert (told["error"], told["state"], told["iss"]) == ("access_denied", "s-1", BASE) and "code" not in told


@pytest.mark.requirement("oauth.never-wider")
async def test_a_token_is_never_wider_than_its_person(served: Served) -> None:
    organization = await served.organization("Viewers", "enterprise")
    viewer = await served.browser(organization, "viewer")
    flow = await Flow.public(served, viewer)
    page = await flow.show(scope="read:servers write:servers admin")
    assert "does not get it: <code>admin write:servers</code>" in page.text
    answer = await flow.exchange(query_of(await flow.decide(page))["code"])
    assert answer.json()["scope"] == "read:servers"
    page = await flow.show(scope="admin")
    assert "nothing that you may give" in page.text and 'value="allow"' not in page.text
    assert query_of(await flow.decide(page))["error"] == "access_denied"


@pytest.mark.requirement("oauth.consent-servers")
async def test_a_person_gives_some_servers_alone(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    none = await flow.tokens(choice={"servers": "listed"})
    assert (await served.call("GET", "/api/servers", key=none["access_token"])).json()["servers"] == []
    answer = await served.call("GET", f"/api/servers/{served.demo_id}", key=none["access_token"])
    assert answer.status_code == 403
    one = await flow.tokens(choice={"servers": "listed", "server": [served.demo_id]})
    assert (await served.call("GET", f"/api/servers/{served.demo_id}", key=one["access_token"])).status_code == 200
    ticked = await flow.tokens(choice={"servers": "all", "server": [served.demo_id]})
    listed = (await served.call("GET", "/api/servers", key=ticked["access_token"])).json()["servers"]
    assert [server["uuid"] for server in listed] == [served.demo_id], "whoever ticks some did not mean all"
    foreign = await flow.decide(await flow.show(), servers="listed", server="01a21237-ae11-7388-80de-324dd7094583")
    assert foreign.status_code == 400 and "location" not in foreign.headers
    door = await flow.tokens(resource=f"{BASE}/servers/{served.demo_id}/mcp")
    called = await served.rpc("tools/list", path=f"/servers/{served.demo_id}/mcp", key=door["access_token"])
    assert called.status_code == 200


@pytest.mark.requirement("oauth.audience")
async def test_a_token_is_good_at_the_door_it_was_made_for_alone(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    doors = {"/mcp": "/mcp", "/mcp/default": "/mcp/default", f"/servers/{served.demo_id}/mcp": f"/servers/{served.demo_id}/mcp"}
    tokens = {door: (await flow.tokens(resource=BASE + door))["access_token"] for door in doors}
    for made_for, token in tokens.items():
        for door in doors:
            answer = await served.rpc("tools/list", path=door, key=token)
            assert answer.status_code == (200 if door == made_for else 401), (made_for, door)
            if door != made_for:
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]
                assert f'resource_metadata="{BASE}/.well-known/oauth-protected-resource{door}"' in answer.headers["www-authenticate"]
        refused = await served.call("GET", "/api/servers", key=token)
        assert refused.status_code == 401 and 'error="invalid_token"' in refused.headers["www-authenticate"]
    api = (await flow.tokens(resource=f"{BASE}/api"))["access_token"]
    assert await accepted(served, api)
    assert (await served.rpc("tools/list", key=api)).status_code == 401
    assert (await served.call("GET", "/v1/mcps", key=api)).status_code == 401
    anywhere = (await flow.tokens())["access_token"]
    assert await accepted(served, anywhere) and (await served.rpc("tools/list", key=anywhere)).status_code == 200


@pytest.mark.requirement("oauth.audience")
@pytest.mark.parametrize("resource", FOREIGN)
async def test_a_resource_that_is_none_of_ours_is_an_invalid_target(served: Served, ada: Browser, resource: str) -> None:
    flow = await Flow.public(served, ada)
    assert query_of(await flow.show(resource=resource))["error"] == "invalid_target"


async def test_a_token_request_may_narrow_what_was_granted_and_not_widen_it(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    answer = await flow.exchange(await flow.code(), scope="read:servers", resource=f"{BASE}/api")
    assert answer.json()["scope"] == "read:servers"
    narrowed = await flow.refresh(answer.json()["refresh_token"])
    assert narrowed.json()["scope"] == "execute:tools read:servers", "a refresh token stays as wide as the grant"
    wider = await flow.refresh(narrowed.json()["refresh_token"], scope="read:servers write:servers")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    bound = await flow.exchange(await flow.code(resource=f"{BASE}/mcp"), resource=f"{BASE}/api")
    assert (bound.status_code, bound.json()["error"]) == (400, "invalid_target")


@pytest.mark.requirement("oauth.environment")
async def test_a_token_acts_in_live_unless_the_header_says_test(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    token = (await flow.tokens())["access_token"]
    live = (await served.call("GET", "/api/servers", key=token)).json()["servers"]
    test = (await served.call("GET", "/api/servers", key=token, headers={"X-Plughub-Environment": "test"})).json()["servers"]
    assert {server["uuid"] for server in live}.isdisjoint(server["uuid"] for server in test)
    odd = await served.call("GET", "/api/servers", key=token, headers={"X-Plughub-Environment": "prod"})
    assert odd.status_code == 400


@pytest.mark.requirement("oauth.stored-as-digests")
async def test_no_secret_is_in_the_database(served: Served, ada: Browser) -> None:
    app = await Flow.app(served, ada)
    code = await app.code()
    tokens = (await app.exchange(code)).json()
    async with served.database.read() as connection:
        dump = ""
        for name, table in metadata.tables.items():
            if name.startswith("oauth_") or name == "event":
                dump += repr([tuple(row) for row in await connection.execute(table.select())])
    for secret in (code, tokens["access_token"], tokens["refresh_token"], app.secret):
        assert secret and secret not in dump and secret[3:] not in dump


@pytest.mark.requirement("oauth.tokens-run-out")
async def test_tokens_run_out_and_what_has_run_out_is_removed(served: Served) -> None:
    ada = await served.browser(await served.operator())
    flow = await Flow.public(served, ada)
    first = await flow.tokens()
    assert await accepted(served, first["access_token"])
    served.clock.advance(ACCESS_S)
    late = await served.call("GET", "/api/servers", key=first["access_token"])
    assert late.status_code == 401 and 'error="invalid_token"' in late.headers["www-authenticate"]
    assert (await served.rpc("tools/list", key=first["access_token"])).status_code == 401
    assert (await served.call("GET", "/v1/mcps", key=first["access_token"])).status_code == 401
    second = (await flow.refresh(first["refresh_token"])).json()
    assert await accepted(served, second["access_token"])
    served.clock.advance(REFRESH_S)
    assert (await flow.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    served.clock.advance(GRANT_S)
    loop = JobLoop(served.database, {prune_oauth.KIND: prune_oauth.handler(served.app.hub.settings)})
    async with served.database.unit_of_work() as uow:
        await uow.execute(metadata.tables["job"].update().where(metadata.tables["job"].c.kind == prune_oauth.KIND).values(run_at=0))
    await loop.run_due()
    async with served.database.read() as connection:
        for name in ("oauth_grant", "oauth_token", "oauth_code", "oauth_client"):
            rows = (await connection.execute(metadata.tables[name].select())).mappings().all()
            assert [row for row in rows if row.get("kind") != "app"] == [], name
