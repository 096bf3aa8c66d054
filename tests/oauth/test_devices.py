"""Devices without a browser: RFC 8628, and the documented way of a command line."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from plughub.api import oauth_shapes as shapes
from plughub.oauth.devices import DEVICE_S, INTERVAL_S
from tests.oauth.flow import Flow, accepted, post_form
from tests.serving import BASE, Browser, Json, Served, serving

pytestmark = pytest.mark.anyio
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CLI = "/api/cli/auth"
_TICKET = re.compile(r'name="ticket" value="([^"]+)"')


@pytest.fixture
async def ada(served: Served) -> Browser:
    return await served.browser(await served.operator())


async def device(served: Served, ada: Browser) -> Flow:
    return await Flow.public(served, ada, grant_types=["authorization_code", GRANT])


async def begun(served: Served, flow: Flow, **more: str) -> Json:
    answer = await post_form(served, "/oauth/device_authorization", {"client_id": flow.client_id, **more})
    assert answer.status_code == 200, answer.text
    assert TypeAdapter(shapes.DeviceOut).validate_json(answer.content).interval == INTERVAL_S
    found: Json = answer.json()
    return found


async def fetch(flow: Flow, started: Json, **more: Any) -> httpx2.Response:
    flow.served.clock.advance(INTERVAL_S)
    return await flow.token({"grant_type": GRANT, "device_code": started["device_code"], "client_id": flow.client_id, **more})


async def decided(served: Served, url: str, who: Browser, decision: str = "allow", **more: Any) -> httpx2.Response:
    page = await served.call("GET", url, key=who)
    found = _TICKET.search(page.text)
    assert page.status_code == 200 and found is not None, page.text
    path = url.removeprefix(BASE).partition("?")[0]
    return await post_form(served, path, {"ticket": found[1], "decision": decision, **more}, who)


@pytest.mark.requirement("oauth.device-flow")
async def test_a_device_is_let_in_by_the_code_that_it_shows(served: Served, ada: Browser) -> None:
    flow = await device(served, ada)
    started = await begun(served, flow, scope="read:servers", resource=f"{BASE}/api")
    assert re.fullmatch(r"[A-HJ-NP-Z2-9]{4}-[A-HJ-NP-Z2-9]{4}", started["user_code"])
    assert started["verification_uri_complete"] == f"{BASE}/oauth/device?user_code={started['user_code']}"
    assert (await fetch(flow, started)).json()["error"] == "authorization_pending"
    form = await served.call("GET", "/oauth/device", key=ada)
    assert form.status_code == 200 and 'name="user_code"' in form.text
    typed = started["user_code"].replace("-", " ").lower()
    page = await served.call("GET", f"/oauth/device?user_code={typed}", key=ada)
    for words in ("Agent", started["user_code"], "read:servers", "when it is yours", f"{BASE}/api"):
        assert words in page.text, words
    done = await decided(served, started["verification_uri_complete"], ada)
    assert done.status_code == 200 and "Connected" in done.text
    tokens = await fetch(flow, started)
    assert (tokens.status_code, tokens.json()["scope"]) == (200, "read:servers")
    assert await accepted(served, tokens.json()["access_token"])
    assert (await fetch(flow, started)).json()["error"] == "invalid_grant", "once"
    assert await accepted(served, tokens.json()["access_token"])
    assert (await flow.refresh(tokens.json()["refresh_token"])).status_code == 200


@pytest.mark.requirement("oauth.device-flow")
async def test_a_device_is_told_of_a_denial_of_haste_and_that_its_time_is_over(served: Served, ada: Browser) -> None:
    flow = await device(served, ada)
    denied = await begun(served, flow)
    assert "Denied" in (await decided(served, denied["verification_uri_complete"], ada, "deny")).text
    assert (await fetch(flow, denied)).json()["error"] == "access_denied"
    hasty = await begun(served, flow)
    assert (await fetch(flow, hasty)).json()["error"] == "authorization_pending"
    again = {"grant_type": GRANT, "device_code": hasty["device_code"], "client_id": flow.client_id}
    assert (await flow.token(again)).json()["error"] == "slow_down"
    assert (await fetch(flow, hasty)).json()["error"] == "slow_down", "it has to wait ten seconds now"
    served.clock.advance(DEVICE_S)
    assert (await fetch(flow, hasty)).json()["error"] == "expired_token"
    late = await served.call("GET", hasty["verification_uri_complete"], key=ada)
    assert late.status_code == 404


@pytest.mark.requirement("oauth.device-flow")
async def test_a_device_code_is_its_clients_alone(served: Served, ada: Browser) -> None:
    flow, other, without = await device(served, ada), await device(served, ada), await Flow.public(served, ada)
    started = await begun(served, flow)
    await decided(served, started["verification_uri_complete"], ada)
    assert (await fetch(other, started)).json()["error"] == "invalid_grant"
    refused = await post_form(served, "/oauth/device_authorization", {"client_id": without.client_id})
    assert refused.json()["error"] == "unauthorized_client"
    answers = await asyncio.gather(*(fetch(flow, started) for _ in range(4)))
    assert [answer.status_code for answer in answers].count(200) == 1


@pytest.mark.requirement("oauth.device-flow", "oauth.consent-csrf")
async def test_a_device_is_let_in_by_nobody_who_was_not_asked(served: Served, ada: Browser) -> None:
    flow = await device(served, ada)
    started = await begun(served, flow)
    to_login = await served.call("GET", started["verification_uri_complete"], key="")
    assert to_login.status_code == 303 and to_login.headers["location"].startswith("/login?next=%2Foauth%2Fdevice%3Fuser_code")
    page = await served.call("GET", started["verification_uri_complete"], key=ada)
    found = _TICKET.search(page.text)
    assert found is not None
    form = {"ticket": found[1], "decision": "allow"}
    other = await served.browser(await served.operator())
    assert (await post_form(served, "/oauth/device", form, other)).status_code == 400
    elsewhere = await post_form(served, "/oauth/authorize", form, ada)
    assert elsewhere.status_code == 400 and "location" not in elsewhere.headers
    assert (await post_form(served, "/oauth/device", form, ada, Origin="https://evil.example")).status_code == 403
    assert (await fetch(flow, started)).json()["error"] == "authorization_pending"


@pytest.mark.requirement("oauth.attempts")
async def test_codes_are_guessed_five_times_in_fifteen_minutes(fresh_url: str, tmp_path: Path) -> None:
    async with serving(fresh_url, tmp_path, credential_attempts=5) as hub:
        somebody = await hub.browser(await hub.operator())
        statuses = [(await hub.call("GET", "/oauth/device?user_code=ABCD-2345", key=somebody)).status_code for _ in range(6)]
        assert statuses == [404] * 5 + [429]
        body = {"user_code": "ABCD-2345"}
        assert (await hub.call("POST", f"{CLI}/approve", body, key=somebody)).status_code == 429
        assert (await hub.call("POST", f"{CLI}/initiate", key="")).status_code == 429


async def initiated(served: Served) -> Json:
    answer = await served.call("POST", f"{CLI}/initiate", key="")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found: Json = shapes.CliBegun.model_validate(answer.json()).model_dump()
    return found


async def polled(served: Served, started: Json) -> httpx2.Response:
    served.clock.advance(INTERVAL_S)
    return await served.call("GET", f"{CLI}/poll?device_code={started['device_code']}", key="")


@pytest.mark.requirement("oauth.cli-flow", "oauth.device-flow")
async def test_a_command_line_gets_its_key_once(served: Served, ada: Browser) -> None:
    started = await initiated(served)
    assert (started["expires_in"], started["interval"]) == (300, 5)
    assert started["verification_url"] == f"{BASE}/cli/authorize?code={started['user_code']}"
    assert re.fullmatch(r"[0-9A-Za-z]{48}", started["device_code"])
    assert (await polled(served, started)).json() == {"status": "authorization_pending"}
    soon = await served.call("GET", f"{CLI}/poll?device_code={started['device_code']}", key="")
    assert (soon.status_code, soon.headers["retry-after"]) == (429, "5")
    page = await served.call("GET", started["verification_url"], key=ada)
    assert "a command line that wants an API key" in page.text and 'name="servers"' not in page.text
    assert "Connected" in (await decided(served, started["verification_url"], ada)).text
    answer = await polled(served, started)
    assert (answer.status_code, answer.json()["status"], answer.headers["cache-control"]) == (200, "approved", "no-store")
    key = answer.json()["api_key"]
    assert key.startswith("pk_live_ph_") and await accepted(served, key)
    assert (await polled(served, started)).json() == {"status": "approved"}
    [made] = [
        key for key in (await served.call("GET", "/api/auth/keys?limit=100")).json()["keys"] if key["name"].startswith("Command line")
    ]
    assert "admin" not in made["scopes"] and made["servers"] == "*"


@pytest.mark.requirement("oauth.cli-flow")
async def test_a_command_line_is_approved_and_denied_over_the_api(served: Served, ada: Browser) -> None:
    approved, denied, late = await initiated(served), await initiated(served), await initiated(served)
    project = (await served.call("POST", "/api/projects", {"name": "Alone"}, key=ada)).json()["uuid"]
    body = {"user_code": approved["user_code"], "project_uuid": project}
    assert (await served.call("POST", f"{CLI}/approve", body, key=ada)).json() == {"status": "approved"}
    again = await served.call("POST", f"{CLI}/approve", body, key=ada)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")
    key = (await polled(served, approved)).json()["api_key"]
    assert (await served.call("GET", "/api/servers", key=key)).json()["servers"] == [], "the project has none"
    assert (await served.call("POST", f"{CLI}/deny", {"user_code": denied["user_code"]}, key=ada)).json() == {"status": "denied"}
    told = await polled(served, denied)
    assert (told.status_code, told.json()["error"]["details"]["status"]) == (403, "denied")
    served.clock.advance(DEVICE_S)
    told = await polled(served, late)
    assert (told.status_code, told.json()["error"]["code"], told.json()["error"]["details"]["status"]) == (410, "GONE", "expired")
    for code, status in (("0" * 48, 404), ("short", 400), ("-" * 48, 400)):
        assert (await served.call("GET", f"{CLI}/poll?device_code={code}", key="")).status_code == status
    for path in ("approve", "deny"):
        assert (await served.call("POST", f"{CLI}/{path}", {"user_code": late["user_code"]}, key=ada)).status_code == 404
    elsewhere = {"user_code": (await initiated(served))["user_code"], "project_uuid": served.demo_id}
    assert (await served.call("POST", f"{CLI}/approve", elsewhere, key=ada)).status_code == 404


@pytest.mark.requirement("oauth.cli-flow")
async def test_nobody_gets_a_key_by_a_command_line_who_may_make_none(served: Served) -> None:
    viewer = await served.browser(await served.organization("Watchers"), "viewer")
    started = await initiated(served)
    answer = await served.call("POST", f"{CLI}/approve", {"user_code": started["user_code"]}, key=viewer)
    assert (answer.status_code, answer.json()["error"]["details"]["required_scope"]) == (403, "write:keys")
    assert (await decided(served, started["verification_url"], viewer)).status_code == 403
    assert (await polled(served, started)).json() == {"status": "authorization_pending"}
