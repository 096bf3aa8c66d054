"""The account pages and the consent page in a real browser: what their strict headers let it do."""

from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Site
from tests.flows.running_hub import RunningHub
from tests.flows.waiting import until
from tests.oauth.flow import pkce

PASSWORD = "correct horse battery"


@pytest.mark.requirement("oauth.browser")
def test_somebody_registers_logs_in_and_allows_a_client_on_their_machine(hub: RunningHub, page: Page, site: Site) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(f"{hub.url}/register")
    for name, value in (("name", "Ada"), ("email", "ada@example.com"), ("password", PASSWORD)):
        page.fill(f"input[name={name}]", value)
    page.click("button:has-text('Open the account')")
    page.wait_for_load_state()
    callback = f"{site.url}/callback"
    metadata = {"client_name": "Loopback", "redirect_uris": [callback], "token_endpoint_auth_method": "none"}
    client = hub.api("POST", "/oauth/register", metadata, key="").json()
    verifier, challenge = pkce()
    asked = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": callback, "state": "s", "scope": "read:servers"}
    page.context.clear_cookies()
    page.goto(f"{hub.url}/oauth/authorize?{urlencode({**asked, 'code_challenge': challenge, 'code_challenge_method': 'S256'})}")
    page.fill("input[name=email]", "ada@example.com")
    page.fill("input[name=password]", PASSWORD)
    page.click("button:has-text('Log in')")
    page.click("button[value=allow]")
    told = until(lambda: page.wait_for_timeout(20) or site.asked.get("/callback"), "the client's own page", 15)
    assert told["state"] == "s" and told["code"], refused
    exchanged = {"grant_type": "authorization_code", "code": told["code"], "redirect_uri": callback, "client_id": client["client_id"]}
    tokens = hub.api("POST", "/oauth/token", {**exchanged, "code_verifier": verifier}, key="")
    assert tokens.status_code == 200 and tokens.json()["access_token"].startswith("at_"), tokens.text
    assert refused == []
