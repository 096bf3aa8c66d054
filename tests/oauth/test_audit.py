"""What the audit tells of what people allow clients: who said yes to what, and why it ended; never a code, a token or a secret."""

from typing import Any

import pytest

from plughub.kit.ids import public_id
from tests.oauth.flow import Flow, post_form
from tests.oauth.test_devices import CLI, begun, decided, device, initiated, polled
from tests.serving import Browser, Json, Served

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("audit.every-change", "oauth.audited")]


@pytest.fixture
async def ada(served: Served) -> Browser:
    return await served.browser(await served.operator())


async def told(served: Served, action: str, key: str | None = None) -> Json:
    """The newest row of that action."""
    found: Json = (await served.call("GET", f"/api/audit-logs?limit=1&action={action}", key=key)).json()["audit_logs"][0]
    assert found["address"] == "127.0.0.1" and found["request_id"]
    return found


def without(row: Json, *secrets: Any) -> bool:
    return not [secret for secret in secrets if secret is not None and str(secret) in str(row)]


async def test_a_consent_is_told_with_its_person_and_what_it_allows(served: Served, ada: Browser) -> None:
    flow = await Flow.app(served, ada)
    tokens = await flow.tokens(choice={"servers": "listed", "server": served.demo_id})
    row = await told(served, "grant.created")
    assert (row["actor"]["type"], row["actor"]["user_id"]) == ("user", public_id("user", ada.user_id))
    assert (row["object"]["type"], row["object"]["name"]) == ("grant", "Portal")
    allowed = {field: sides["after"] for field, sides in row["changes"].items()}
    assert allowed == {
        "client_id": flow.client_id,
        "user_id": public_id("user", ada.user_id),
        "scopes": ["execute:tools", "read:servers"],
        "servers": [served.demo_id],
        "resource": None,
    }
    assert without(row, flow.secret, flow.verifier, tokens["access_token"], tokens["refresh_token"])


@pytest.mark.parametrize("stolen", ["code", "refresh_token"])
async def test_the_end_of_a_family_whose_code_or_token_came_twice_is_told_as_such(served: Served, ada: Browser, stolen: str) -> None:
    flow = await Flow.public(served, ada)
    code = await flow.code()
    tokens = (await flow.exchange(code)).json()
    await flow.refresh(tokens["refresh_token"])
    again = await (flow.exchange(code) if stolen == "code" else flow.refresh(tokens["refresh_token"]))
    assert again.json()["error"] == "invalid_grant"
    row = await told(served, "grant.revoked")
    assert (row["note"], row["actor"]["type"]) == ({"reason": f"{stolen}_used_again"}, "anonymous")
    assert row["request_id"] == again.headers["x-request-id"]
    assert row["changes"]["client_id"] == {"before": flow.client_id} and without(row, code, tokens["refresh_token"])


async def test_a_client_that_gives_a_token_back_is_told_as_such(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada)
    tokens = await flow.tokens()
    fields = {"token": tokens["access_token"], "client_id": flow.client_id}
    answer = await post_form(served, "/oauth/revoke", fields)
    assert answer.status_code == 200
    row = await told(served, "grant.revoked")
    assert (row["note"], row["request_id"]) == ({"reason": "revoked_by_client"}, answer.headers["x-request-id"])


async def test_an_app_that_is_removed_is_told_to_everybody_who_allowed_it_something(served: Served) -> None:
    elsewhere = await served.organization("Elsewhere", "enterprise")
    flow = await Flow.app(served, await served.browser(elsewhere))
    await flow.tokens()
    assert (await served.call("DELETE", f"/api/oauth/apps/{flow.client_id}")).status_code == 204
    assert (await told(served, "app.deleted"))["actor"]["type"] == "key"
    query = "/api/audit-logs?limit=1&action=grant.revoked"
    row = (await served.call("GET", query, key=await served.key_of(elsewhere, scopes=["admin"]))).json()["audit_logs"][0]
    # Whoever removed it is of another organisation, and not told to this one.
    assert (row["note"], row["actor"]["type"], row["address"]) == ({"reason": "app_deleted"}, "hub", None)


async def test_another_secret_of_an_app_is_told_and_not_shown(served: Served, ada: Browser) -> None:
    flow = await Flow.app(served, ada)
    secret = (await served.call("POST", f"/api/oauth/apps/{flow.client_id}/secret")).json()["client_secret"]
    row = await told(served, "app.updated")
    assert row["changes"] == {"client_secret": {"before": "***", "after": "***"}} and without(row, secret, flow.secret)


async def test_a_client_that_registers_itself_is_told_to_the_operator(served: Served, ada: Browser) -> None:
    flow = await Flow.public(served, ada, token_endpoint_auth_method="client_secret_basic")
    row = await told(served, "client.registered")
    assert (row["object"]["name"], row["actor"]["type"]) == ("Agent", "anonymous") and without(row, flow.secret)


async def test_who_lets_a_device_in_is_told_and_so_is_who_refuses(served: Served, ada: Browser) -> None:
    flow = await device(served, ada)
    for decision, action in (("allow", "device.approved"), ("deny", "device.denied")):
        started = await begun(served, flow)
        await decided(served, started["verification_uri_complete"], ada, decision)
        row = await told(served, action)
        assert (row["actor"]["user_id"], row["object"]["name"]) == (public_id("user", ada.user_id), flow.client_id)
        assert without(row, started["device_code"], started["user_code"])


async def test_the_key_of_a_command_line_is_told_as_its_persons(served: Served, ada: Browser) -> None:
    started = await initiated(served)
    assert (await served.call("POST", f"{CLI}/approve", {"user_code": started["user_code"]}, key=ada)).status_code == 200
    assert (await told(served, "device.approved"))["actor"]["user_id"] == public_id("user", ada.user_id)
    key = (await polled(served, started)).json()["api_key"]
    row = await told(served, "key.created")
    assert (row["actor"]["type"], row["actor"]["user_id"]) == ("user", public_id("user", ada.user_id)) and without(row, key)
