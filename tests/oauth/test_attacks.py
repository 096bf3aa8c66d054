"""What is tried against authorization servers (RFC 9700, OAuth 2.1, MCP authorization), each refused in a test of its own."""

import asyncio

import pytest

from plughub.dashboard.consent import TICKET_S
from plughub.kit.ids import public_id
from plughub.oauth.grants import ACCESS_S, CODE_S
from tests.oauth.flow import CALLBACK, Flow, accepted, pkce, post_form, query_of
from tests.serving import BASE, Browser, RawCall, Served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ada(served: Served) -> Browser:
    return await served.browser(await served.operator())


async def refused(answer: object, error: str = "invalid_grant", status: int = 400) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text  # type: ignore[attr-defined]


@pytest.mark.requirement("oauth.redirect-exact")
@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "https://client.example.evil.example/callback",
        f"{CALLBACK}/../other",
        f"{CALLBACK}/",
        f"{CALLBACK}?next=https://evil.example",
        f"{CALLBACK}#fragment",
        "https://client.example@evil.example/callback",
        "https://CLIENT.example/callback",
        "http://client.example/callback",
        "https://client.example:444/callback",
        "//evil.example",
        "javascript:alert(1)",
    ],
)
async def test_an_answer_is_never_sent_to_an_address_that_is_not_registered(served: Served, ada: Browser, uri: str) -> None:
    flow = await Flow.public(served, ada)
    for more in ({}, {"response_type": "token"}, {"scope": "nonsense"}):
        answer = await flow.show(redirect_uri=uri, **more)
        assert answer.status_code == 400 and "location" not in answer.headers
        assert "redirect URI" in answer.text and uri not in answer.text


@pytest.mark.requirement("oauth.redirect-exact")
async def test_of_a_loopback_address_the_port_alone_may_differ(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada, "http://127.0.0.1/cb")
    assert (await flow.show(redirect_uri="http://127.0.0.1:51234/cb")).status_code == 200
    for uri in (
        "http://127.0.0.1:51234/other",
        "http://localhost:51234/cb",
        "https://127.0.0.1:51234/cb",
        "http://127.0.0.1.evil.example/cb",
    ):
        assert (await flow.show(redirect_uri=uri)).status_code == 400, uri
    code = await flow.code(redirect_uri="http://127.0.0.1:51234/cb")
    await refused(await flow.exchange(code, redirect_uri="http://127.0.0.1:51235/cb"))


@pytest.mark.requirement("oauth.redirect-exact")
async def test_an_unknown_client_is_told_nothing_and_sent_nowhere(served: Served, ada: Browser) -> None:
    flow = Flow(served, ada, "client_0000000000000000000000")
    answer = await flow.show()
    assert answer.status_code == 400 and "location" not in answer.headers


@pytest.mark.requirement("oauth.code-once")
async def test_a_code_that_comes_twice_ends_all_that_came_of_it(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    code = await flow.code()
    first = (await flow.exchange(code)).json()
    assert await accepted(served, first["access_token"])
    await refused(await flow.exchange(code))
    assert not await accepted(served, first["access_token"])
    await refused(await flow.refresh(first["refresh_token"]))


@pytest.mark.requirement("oauth.code-once")
async def test_of_many_that_use_a_code_at_once_one_gets_tokens(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    code = await flow.code()
    answers = await asyncio.gather(*(flow.exchange(code) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers)[:2] in ([200, 400], [400, 400])
    for answer in answers:
        if answer.status_code == 200:
            assert not await accepted(served, answer.json()["access_token"]), "the others were replays"


@pytest.mark.requirement("oauth.code-once")
async def test_a_code_is_good_for_a_minute(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    code = await flow.code()
    served.clock.advance(CODE_S)
    await refused(await flow.exchange(code))


@pytest.mark.requirement("oauth.code-bound")
async def test_a_code_is_worth_nothing_to_another_client(served: Served, ada: Browser) -> None:
    victim, attacker = await Flow.public(served, ada), await Flow.public(served, ada)
    code = await victim.code()
    await refused(await attacker.exchange(code, code_verifier=victim.verifier))
    await refused(await victim.exchange(code))
    app = await Flow.app(served, ada)
    await refused(await attacker.exchange(await app.code(code_challenge=None, code_challenge_method=None), code_verifier=None))


@pytest.mark.requirement("oauth.code-bound", "oauth.pkce")
async def test_a_stolen_code_cannot_be_put_into_another_session_of_the_client(served: Served, ada: Browser) -> None:
    """Code injection: the client sends its own verifier along with a code that was made for somebody else's challenge."""
    victim = await Flow.public(served, ada)
    code = await victim.code()
    other_verifier, _ = pkce()
    await refused(await victim.exchange(code, code_verifier=other_verifier))


@pytest.mark.requirement("oauth.pkce")
async def test_pkce_cannot_be_left_out_nor_weakened(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    keeps_secret = await Flow.public(served, ada, token_endpoint_auth_method="client_secret_post")
    for client in (flow, keeps_secret):
        for more in (
            {"code_challenge": None, "code_challenge_method": None},
            {"code_challenge": None},
            {"code_challenge_method": None},
            {"code_challenge_method": "plain"},
            {"code_challenge": "short"},
            {"code_challenge": "x" * 44},
        ):
            assert query_of(await client.show(**more))["error"] == "invalid_request", more
    code = await flow.code()
    await refused(await flow.exchange(code, code_verifier=None))
    await refused(await flow.exchange(await flow.code(), code_verifier="short"))


@pytest.mark.requirement("oauth.pkce")
async def test_a_challenge_that_was_taken_away_on_the_way_is_missed(served: Served, ada: Browser) -> None:
    """PKCE downgrade at the one kind of client that may do without: it sends a verifier for a code that knows of no challenge."""
    app = await Flow.app(served, ada)
    code = await app.code(code_challenge=None, code_challenge_method=None)
    await refused(await app.exchange(code))
    code = await app.code()
    await refused(await app.exchange(code, code_verifier=None))


@pytest.mark.requirement("oauth.refresh-rotation")
async def test_a_refresh_token_that_comes_twice_ends_its_family(served: Served, ada: Browser) -> None:
    flow, other = await Flow.public(served, ada), await Flow.public(served, ada)
    first, untouched = await flow.tokens(), await other.tokens()
    second = (await flow.refresh(first["refresh_token"])).json()
    third = (await flow.refresh(second["refresh_token"])).json()
    assert await accepted(served, third["access_token"])
    await refused(await flow.refresh(first["refresh_token"]))
    for tokens in (first, second, third):
        assert not await accepted(served, tokens["access_token"])
        await refused(await flow.refresh(tokens["refresh_token"]))
    assert await accepted(served, untouched["access_token"])


@pytest.mark.requirement("oauth.refresh-rotation")
async def test_of_many_that_refresh_at_once_one_gets_tokens_and_the_family_ends(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    tokens = await flow.tokens()
    answers = await asyncio.gather(*(flow.refresh(tokens["refresh_token"]) for _ in range(6)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) <= 1
    for answer in good:
        assert not await accepted(served, answer.json()["access_token"])


@pytest.mark.requirement("oauth.refresh-rotation")
async def test_a_refresh_token_is_worth_nothing_to_another_client(served: Served, ada: Browser) -> None:
    flow, attacker = await Flow.public(served, ada), await Flow.public(served, ada)
    tokens = await flow.tokens()
    await refused(await attacker.refresh(tokens["refresh_token"]))
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 200, "and takes nothing away from its own"
    assert not await accepted(served, tokens["refresh_token"]), "no door takes it"


@pytest.mark.requirement("oauth.consent-csrf")
async def test_a_consent_cannot_be_given_from_another_site(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    page = await flow.show()
    ticket = page.text.partition('name="ticket" value="')[2].partition('"')[0]
    form = {"ticket": ticket, "decision": "allow"}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = await post_form(served, "/oauth/authorize", form, ada, **headers)
        assert answer.status_code == 403 and "location" not in answer.headers


@pytest.mark.requirement("oauth.consent-csrf")
async def test_a_consent_belongs_to_the_browser_that_was_asked(served: Served, ada: Browser) -> None:
    """An attacker begins a flow and has the victim send the form: the ticket is the attacker's session's."""
    flow = await Flow.public(served, ada)
    page, victim = await flow.show(), await served.browser(await served.operator())
    answer = await flow.decide(page, who=victim)
    assert answer.status_code == 400 and "location" not in answer.headers
    for ticket in ("", "nonsense", "AAAA" * 30):
        answer = await post_form(served, "/oauth/authorize", {"ticket": ticket, "decision": "allow"}, ada)
        assert answer.status_code == 400 and "location" not in answer.headers
    served.clock.advance(TICKET_S + 1)
    assert (await flow.decide(page)).status_code == 400


@pytest.mark.requirement("oauth.consent-csrf")
async def test_what_is_allowed_is_what_was_shown(served: Served, ada: Browser) -> None:
    """Parameters beside the ticket change nothing."""
    flow = await Flow.public(served, ada)
    page = await flow.show(scope="read:servers")
    more = {"scope": "admin", "redirect_uri": "https://evil.example", "client_id": "client_x", "state": "other"}
    answer = await flow.decide(page, **more)
    assert answer.headers["location"].startswith(CALLBACK) and query_of(answer)["state"] == "s-1"
    assert (await flow.exchange(query_of(answer)["code"])).json()["scope"] == "read:servers"


@pytest.mark.requirement("oauth.iss")
async def test_every_answer_names_its_issuer_so_that_none_is_taken_for_anothers(served: Served, ada: Browser) -> None:
    """Mix-up: a client of several servers learns whose answer it has, of errors too, and the metadata say that it may rely on it."""
    flow = await Flow.public(served, ada)
    told = [query_of(await flow.decide(await flow.show())), query_of(await flow.decide(await flow.show(), "deny"))]
    told += [query_of(await flow.show(response_type="token")), query_of(await flow.show(scope="nonsense"))]
    assert [answer["iss"] for answer in told] == [BASE] * 4
    metadata = (await served.call("GET", "/.well-known/oauth-authorization-server", key="")).json()
    assert metadata["issuer"] == BASE and metadata["authorization_response_iss_parameter_supported"] is True


async def test_parameters_that_come_twice_are_refused(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    path = f"/oauth/authorize?client_id={flow.client_id}&redirect_uri={CALLBACK}&redirect_uri=https://evil.example&response_type=code"
    answer = await served.call("GET", path, key=ada)
    assert answer.status_code == 400 and "location" not in answer.headers
    body = f"grant_type=refresh_token&client_id={flow.client_id}&client_id=x&refresh_token=rt_x".encode()
    twice = await served.call("POST", "/oauth/token", body, key="", headers={"Content-Type": "application/x-www-form-urlencoded"})
    await refused(twice, "invalid_request")


async def test_no_other_grant_than_those_of_today(served: Served, ada: Browser) -> None:
    app = await Flow.app(served, ada)
    for grant_type in ("password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"):
        fields = {"grant_type": grant_type, "client_id": app.client_id, "client_secret": app.secret, "username": "a", "password": "b"}
        await refused(await app.token(fields), "unsupported_grant_type")
    assert query_of(await app.show(response_type="token"))["error"] == "unsupported_response_type"
    assert query_of(await app.show(response_mode="fragment"))["error"] == "invalid_request"
    assert query_of(await app.show(request_uri="https://evil.example/request"))["error"] == "invalid_request"


async def test_no_token_is_taken_from_an_address(served: Served, ada: Browser) -> None:
    token = (await (await Flow.public(served, ada)).tokens())["access_token"]
    for query in (f"?access_token={token}", f"?token={token}"):
        assert (await served.call("GET", "/api/servers" + query, key="")).status_code == 401
        assert (await served.rpc("tools/list", path="/mcp" + query, key="")).status_code == 401


@pytest.mark.requirement("oauth.never-wider")
async def test_a_token_does_not_do_what_is_a_persons_own(served: Served, ada: Browser) -> None:
    token = (await (await Flow.public(served, ada)).tokens(scope="admin"))["access_token"]
    for method, path in (("GET", "/api/auth/sessions"), ("GET", "/api/oauth/grants"), ("POST", "/api/auth/logout")):
        answer = await served.call(method, path, key=token)
        assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "session_required")
    made = await served.call("POST", "/api/auth/keys", {"name": "x", "expires_at": "2099-01-01T00:00:00Z"}, key=token)
    assert made.status_code == 403, "no key outlives what its maker may"


@pytest.mark.requirement("oauth.revocation")
async def test_a_person_takes_back_what_they_allowed_and_open_streams_end(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    tokens = await flow.tokens()
    stream = RawCall(served, "GET", "/sse", {"Accept": "text/event-stream"}, key=tokens["access_token"]).piece(b"")
    running = stream.start()
    await stream.answer.until(lambda: b"\n\n" in stream.answer.body)
    listed = (await served.call("GET", "/api/oauth/grants", key=ada)).json()
    assert listed["total"] == 1 and listed["grants"][0]["client_name"] == "Agent"
    grant = listed["grants"][0]["id"]
    stranger = await served.browser(await served.operator())
    assert (await served.call("DELETE", f"/api/oauth/grants/{grant}", key=stranger)).status_code == 404
    assert (await served.call("DELETE", f"/api/oauth/grants/{grant}", key=ada)).status_code == 204
    assert (await running).complete
    assert not await accepted(served, tokens["access_token"])
    await refused(await flow.refresh(tokens["refresh_token"]))
    assert (await served.call("GET", "/api/oauth/grants", key=ada)).json()["grants"] == []


@pytest.mark.requirement("oauth.never-wider", "oauth.revocation")
async def test_a_token_becomes_less_with_its_person_and_goes_with_them(served: Served) -> None:
    organization = await served.organization("Changing", "enterprise")
    owner, member = await served.browser(organization), await served.browser(organization, "member")
    flow = await Flow.public(served, member)
    tokens = await flow.tokens(scope="read:servers execute:tools write:documents")
    path = f"/api/organizations/{public_id('org', organization.id)}/members/{public_id('user', member.user_id)}"
    assert (await served.call("PATCH", path, {"role": "viewer"}, key=owner)).status_code == 200
    assert (await served.call("GET", "/api/auth/me", key=tokens["access_token"])).json()["scopes"] == ["read:servers"]
    answer = await served.rpc("tools/list", key=tokens["access_token"])
    assert answer.status_code == 403
    removed = await served.call("DELETE", path, key=owner)
    assert removed.status_code in (200, 204), removed.text
    assert not await accepted(served, tokens["access_token"])
    await refused(await flow.refresh(tokens["refresh_token"]))


@pytest.mark.requirement("oauth.revocation")
async def test_streams_that_a_token_has_opened_end_with_the_membership_of_its_person(served: Served) -> None:
    organization = await served.organization("Leaving", "enterprise")
    owner, member = await served.browser(organization), await served.browser(organization, "member")
    tokens = await (await Flow.public(served, member)).tokens()
    stream = RawCall(served, "GET", "/sse", {"Accept": "text/event-stream"}, key=tokens["access_token"]).piece(b"")
    running = stream.start()
    await stream.answer.until(lambda: b"\n\n" in stream.answer.body)
    path = f"/api/organizations/{public_id('org', organization.id)}/members/{public_id('user', member.user_id)}"
    assert (await served.call("DELETE", path, key=owner)).status_code in (200, 204)
    assert (await running).complete


@pytest.mark.requirement("oauth.revocation")
async def test_a_stream_ends_when_the_token_runs_out_that_opened_it(served: Served, ada: Browser) -> None:
    tokens = await (await Flow.public(served, ada)).tokens()
    served.clock.advance(ACCESS_S - 0.3)
    stream = RawCall(served, "GET", "/sse", {"Accept": "text/event-stream"}, key=tokens["access_token"]).piece(b"")
    running = stream.start()
    await stream.answer.until(lambda: b"\n\n" in stream.answer.body)
    assert (await running).complete


async def test_no_public_client_signs_in_with_a_secret_and_none_with_a_secret_without(served: Served, ada: Browser) -> None:
    flow, app = await Flow.public(served, ada), await Flow.app(served, ada)
    await refused(await flow.exchange(await flow.code(), client_secret="cs_" + "x" * 43), "invalid_client", 401)
    await refused(await app.exchange(await app.code(), client_secret=None), "invalid_client", 401)
    await refused(await app.exchange(await app.code(), client_secret="cs_" + "x" * 43), "invalid_client", 401)
    await refused(await app.exchange("ac_" + "x" * 43, client_id="client_0000000000000000000000"), "invalid_client", 401)
