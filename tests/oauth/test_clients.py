"""Clients: registering by themselves, revoking and looking at tokens, the apps of an organisation, and what describes the server."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from plughub.api import oauth_shapes as shapes
from plughub.kit.ids import public_id
from plughub.oauth.redirects import defect_of
from tests.oauth.flow import CALLBACK, FORM, Flow, accepted, post_form, query_of
from tests.serving import BASE, Browser, Json, Served, serving

pytestmark = pytest.mark.anyio
APPS = "/api/oauth/apps"


@pytest.fixture
async def ada(served: Served) -> Browser:
    return await served.browser(await served.operator())


async def register(served: Served, **body: Any) -> Any:
    return await served.call("POST", "/oauth/register", {"redirect_uris": [CALLBACK], **body}, key="")


@pytest.mark.requirement("oauth.well-known")
async def test_the_metadata_name_what_is_there_and_what_it_can_do(served: Served) -> None:
    answer = await served.call("GET", "/.well-known/oauth-authorization-server", key="", headers={"Origin": "https://app.example"})
    found = TypeAdapter(shapes.ServerMetadata).validate_json(answer.content)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert (found.issuer, found.code_challenge_methods_supported) == (BASE, ["S256"])
    assert found.client_id_metadata_document_supported and found.authorization_response_iss_parameter_supported
    assert "none" in found.token_endpoint_auth_methods_supported and "none" not in found.introspection_endpoint_auth_methods_supported
    for path in ("", "/mcp", "/mcp/default", f"/servers/{served.demo_id}/mcp"):
        told = (await served.call("GET", f"/.well-known/oauth-protected-resource{path}", key="")).json()
        assert told["authorization_servers"] == [BASE] and "offline_access" not in told["scopes_supported"]


@pytest.mark.requirement("oauth.well-known")
async def test_the_issuer_is_the_public_address(fresh_url: str, tmp_path: Path) -> None:
    async with serving(fresh_url, tmp_path, public_url="https://hub.example/") as hub:
        found = (await hub.call("GET", "/.well-known/oauth-authorization-server", key="")).json()
        assert (found["issuer"], found["token_endpoint"]) == ("https://hub.example", "https://hub.example/oauth/token")
        told = (await hub.call("GET", "/.well-known/oauth-protected-resource/mcp", key="")).json()
        assert (told["resource"], told["authorization_servers"]) == ("https://hub.example/mcp", ["https://hub.example"])


@pytest.mark.requirement("oauth.registration")
async def test_a_client_registers_itself(served: Served) -> None:
    answer = await register(
        served, client_name=" Agent\n7 ", scope="read:servers nonsense", software_id="ignored", application_type="native"
    )
    found = TypeAdapter(shapes.RegistrationOut).validate_json(answer.content)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert (found.client_name, found.scope, found.token_endpoint_auth_method) == ("Agent 7", "read:servers", "client_secret_basic")
    assert found.client_secret.startswith("cs_") and found.client_secret_expires_at == 0
    assert found.grant_types == ["authorization_code", "refresh_token"]
    public = (await register(served, token_endpoint_auth_method="none")).json()
    assert "client_secret" not in public and public["client_name"] == "Unnamed client"


@pytest.mark.requirement("oauth.registration")
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://a.example"}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://client.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CALLBACK] * 11}, "invalid_redirect_uri"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["refresh_token"]}, "invalid_client_metadata"),
        ({"grant_types": "authorization_code"}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
        ({"client_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"scope": ["read:servers"]}, "invalid_client_metadata"),
    ],
)
async def test_metadata_that_are_wrong_are_refused_by_name(served: Served, body: Json, error: str) -> None:
    answer = await register(served, **body)
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text


@pytest.mark.requirement("oauth.redirect-exact")
@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "http://10.0.0.1/cb",
        "http://localhost.evil.example/cb",
        "https://",
        "https:///cb",
        "https://user@client.example/cb",
        "https://client.example/cb#x",
        "https://client.example/c b",
        "https://client.example/cb\\x",
        "https://client.example/é",
        "https://client.example:99999/",
        "https://client.example/*",
        "/relative",
        "x:y",
        "",
        "https://client.example/" + "x" * 2000,
    ],
)
def test_a_redirect_uri_that_may_not_be_registered(uri: str) -> None:
    assert defect_of(uri) is not None


@pytest.mark.parametrize(
    "uri", [CALLBACK, "http://localhost:3000/cb", "http://[::1]/cb", "cursor://anysphere.cursor-retrieval/oauth/callback"]
)
def test_a_redirect_uri_that_may(uri: str) -> None:
    assert defect_of(uri) is None


@pytest.mark.requirement("oauth.attempts")
async def test_registrations_and_wrong_secrets_are_five_in_fifteen_minutes(fresh_url: str, tmp_path: Path) -> None:
    async with serving(fresh_url, tmp_path, credential_attempts=5) as hub:
        for _ in range(5):
            assert (await register(hub)).status_code == 201
        refused = await register(hub)
        assert (refused.status_code, refused.json()["error"]) == (429, "slow_down") and int(refused.headers["retry-after"]) > 0
        hub.clock.advance(900)
        client = (await register(hub)).json()
        fields = {"grant_type": "refresh_token", "refresh_token": "rt_x", "client_id": client["client_id"], "client_secret": "wrong"}
        statuses = [(await post_form(hub, "/oauth/token", fields)).status_code for _ in range(6)]
        assert statuses == [401] * 4 + [429] * 2
        good = await post_form(hub, "/oauth/token", {**fields, "client_secret": client["client_secret"]})
        assert good.status_code == 400, "who has the right secret is not kept out by those who guess"


@pytest.mark.requirement("oauth.revocation")
async def test_a_client_revokes_its_token_and_the_family_of_it(served: Served, ada: Browser) -> None:
    flow, other = await Flow.public(served, ada), await Flow.public(served, ada)
    for kind in ("access_token", "refresh_token"):
        tokens = await flow.tokens()
        foreign = await post_form(served, "/oauth/revoke", {"token": tokens[kind], "client_id": other.client_id})
        assert (foreign.status_code, foreign.json()["error"]) == (400, "unauthorized_client")
        assert await accepted(served, tokens["access_token"])
        answer = await post_form(served, "/oauth/revoke", {"token": tokens[kind], "client_id": flow.client_id, "token_type_hint": "x"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert not await accepted(served, tokens["access_token"])
        for path in ("/api/servers", "/v1/mcps", "/sse"):
            late = await served.call("GET", path, key=tokens["access_token"])
            assert late.status_code == 401 and 'error="invalid_token"' in late.headers["www-authenticate"], path
        assert (await served.rpc("tools/list", key=tokens["access_token"])).status_code == 401
        assert (await flow.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    again = await post_form(served, "/oauth/revoke", {"token": "at_" + "x" * 43, "client_id": flow.client_id})
    assert again.status_code == 200
    nobody = await post_form(served, "/oauth/revoke", {"token": "at_x"})
    assert (nobody.status_code, nobody.json()["error"]) == (401, "invalid_client")


@pytest.mark.requirement("oauth.introspection")
async def test_a_client_with_a_secret_looks_at_its_own_tokens(served: Served, ada: Browser) -> None:
    app, public = await Flow.app(served, ada), await Flow.public(served, ada)
    tokens = await app.tokens(resource=f"{BASE}/mcp")

    async def look(token: str, flow: Flow = app) -> Any:
        return await post_form(
            served, "/oauth/introspect", {"token": token, "client_id": flow.client_id, "client_secret": flow.secret or ""}
        )

    found = (await look(tokens["access_token"])).json()
    shapes.Introspection.model_validate(found)
    assert (found["active"], found["aud"], found["iss"], found["token_type"]) == (True, f"{BASE}/mcp", BASE, "Bearer")
    assert found["exp"] - found["iat"] == 3600 and found["sub"] == public_id("user", ada.user_id)
    assert (await look(tokens["refresh_token"])).json()["active"]
    await app.refresh(tokens["refresh_token"])
    for token in (tokens["refresh_token"], "nonsense", (await public.tokens())["access_token"]):
        assert (await look(token)).json() == {"active": False}
    assert (await look(tokens["access_token"], public)).json()["error"] == "unauthorized_client"
    assert (await look(tokens["access_token"], await Flow.app(served, ada))).json() == {"active": False}


@pytest.mark.requirement("oauth.apps")
async def test_an_administrator_keeps_the_apps_of_their_organisation(served: Served, ada: Browser) -> None:
    made = await served.call("POST", APPS, {"name": "Portal", "redirect_uris": [CALLBACK], "scopes": ["read:servers"]})
    app = shapes.AppCreated.model_validate(made.json())
    assert made.status_code == 201 and app.client_secret and app.confidential and app.id == app.client_id
    path = f"{APPS}/{app.id}"
    listed = shapes.AppList.model_validate((await served.call("GET", f"{APPS}?limit=100")).json())
    assert app.id in [found.id for found in listed.apps] and app.client_secret not in str(listed)
    flow = Flow(served, ada, app.client_id, app.client_secret)
    assert query_of(await flow.show(scope="read:servers execute:tools"))["error"] == "invalid_scope"
    token = (await flow.tokens(scope="read:servers"))["access_token"]
    elsewhere = ["https://other.example/cb"]
    changed = (await served.call("PATCH", path, {"name": "Portal 2", "redirectUris": elsewhere, "scopes": None})).json()
    assert (changed["name"], changed["redirect_uris"], changed["scopes"]) == ("Portal 2", elsewhere, None)
    assert (await flow.show()).status_code == 400, "the old address is no longer one of its own"
    secret = await served.call("POST", f"{path}/secret")
    assert secret.status_code == 200 and secret.json()["client_secret"] != app.client_secret
    assert (await flow.refresh("rt_" + "x" * 43)).json()["error"] == "invalid_client"
    for body in (
        {"name": "x", "redirect_uris": ["http://evil.example"]},
        {"name": "x", "redirect_uris": []},
        {"name": "", "redirect_uris": [CALLBACK]},
    ):
        assert (await served.call("POST", APPS, body)).status_code == 400
    assert (await served.call("PATCH", path, {"redirect_uris": ["javascript:x"]})).json()["error"]["details"]["field"] == "redirect_uris"
    stranger = await served.key_of(await served.organization("Apps elsewhere"))
    assert (await served.call("GET", path, key=stranger)).status_code == 404
    assert await accepted(served, token)
    assert (await served.call("DELETE", path)).status_code == 204
    assert not await accepted(served, token)
    assert (await served.call("GET", path)).status_code == 404
    public = await served.call("POST", APPS, {"name": "Phone", "redirect_uris": ["phone://cb"], "confidential": False})
    assert public.json()["client_secret"] is None
    assert (await served.call("POST", f"{APPS}/{public.json()['id']}/secret")).status_code == 409


@pytest.mark.requirement("oauth.error-shape")
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/device_authorization", "/oauth/register"])
async def test_what_cannot_be_read_is_refused_in_the_words_of_the_rfc(served: Served, path: str) -> None:
    sent: list[tuple[bytes, str, int]] = [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"a":1,"a":1}', "application/json", 400),
        (b"\xff=\xff", FORM, 400),
        (b"a=%ff", FORM, 400),
        (b"grant_type=x&token=%00", FORM, 400),
        (b"&".join(b"a%d=1" % n for n in range(400)), FORM, 400),
        (b"grant_type=x", "text/plain", 400),
        (b"x=" + b"y" * 70_000, FORM, 413),
    ]
    for body, kind, status in sent:
        answer = await served.call("POST", path, body, key="", headers={"Content-Type": kind})
        told = answer.json()
        wanted = {415} if path == "/oauth/register" and kind != "application/json" and status != 413 else {status}
        assert answer.status_code in wanted, (body[:20], answer.text)
        assert told["error"] == "invalid_request" and told["error_description"] and told["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["cache-control"] == "no-store"
    missing = await served.call("POST", path, {}, key="")
    assert missing.status_code in (400, 401) and set(missing.json()) == {"error", "error_description", "request_id"}
    wrong = await served.call("GET", path, key="")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
