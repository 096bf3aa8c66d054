"""Clients that are known by the URL of a document about them, and that fetching it is no way into anything."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plughub.kit.errors import HubError
from plughub.oauth.documents import MAX_BYTES, Documents
from plughub.settings import Settings
from tests.conftest import FakeClock
from tests.fakes.certificates import certificate
from tests.fakes.client_documents import Host
from tests.oauth.flow import CALLBACK, Flow, query_of
from tests.serving import Served, serving

pytestmark = pytest.mark.anyio
INSIDE = ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"]


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    trusted, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with Host(context, CALLBACK) as found:
        yield found


@pytest.fixture
async def hub(host: Host, fresh_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(fresh_url, tmp_path, allow_private_addresses="127.0.0.0/8 ::1/128") as found:
        yield found


async def flow_of(hub: Served, client_id: str) -> Flow:
    return Flow(hub, await hub.browser(await hub.operator()), client_id)


@pytest.mark.requirement("oauth.client-documents")
async def test_a_client_without_any_registration_goes_through_the_whole_flow(hub: Served, host: Host) -> None:
    flow = await flow_of(hub, host.url)
    page = await flow.show()
    assert page.status_code == 200, page.text
    assert "Known" in page.text and f"a program that localhost:{host.port} vouches for" in page.text and "client.example" in page.text
    tokens = await flow.tokens()
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 200
    assert host.asked == 1, "what is known is not asked for again, and never for a token"
    grant = (await hub.call("GET", "/api/oauth/grants", key=flow.browser)).json()["grants"][0]
    assert (grant["client_id"], grant["client_name"]) == (host.url, "Known")
    hub.clock.advance(3601)
    await flow.show()
    assert host.asked == 2


@pytest.mark.requirement("oauth.client-documents")
@pytest.mark.parametrize(
    ("control", "after_s"), [("no-store", 0), ("max-age=5", 60), ("public, max-age=120", 120), ("max-age=999999999", 86_400)]
)
async def test_a_document_is_kept_as_long_as_it_says_within_bounds(hub: Served, host: Host, control: str, after_s: int) -> None:
    host.headers = (*host.headers, f"Cache-Control: {control}")
    documents = hub.app.hub.documents
    await documents.get(host.url)
    hub.clock.advance(max(0, after_s - 1))
    await documents.get(host.url)
    assert host.asked == (1 if after_s else 2)
    hub.clock.advance(1)
    await documents.get(host.url)
    assert host.asked == (2 if after_s else 3)


@pytest.mark.requirement("oauth.client-documents")
async def test_many_that_ask_for_one_client_at_once_cause_one_request(hub: Served, host: Host) -> None:
    host.held = asyncio.Event()
    asking = [asyncio.create_task(hub.app.hub.documents.get(host.url)) for _ in range(20)]
    while not host.asked:
        await asyncio.sleep(0)
    host.held.set()
    assert {client.name for client in await asyncio.gather(*asking)} == {"Known"}
    assert host.asked == 1


@pytest.mark.requirement("oauth.client-documents")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"document": {"client_id": "https://other.example/client.json"}}, "is not the address"),
        ({"document": {"redirect_uris": ["http://evil.example/cb"]}}, "redirect URI is not allowed"),
        ({"document": {"redirect_uris": []}}, "redirect URI is required"),
        ({"document": {"token_endpoint_auth_method": "client_secret_basic"}}, "only none is"),
        ({"document": {"token_endpoint_auth_method": "private_key_jwt"}}, "only none is"),
        ({"document": {"client_secret": "x"}}, "only none is"),
        ({"document": {"grant_types": ["client_credentials"]}}, "authorization codes"),
        ({"status": "404 Not Found"}, "answers 404"),
        ({"status": "302 Found", "headers": ("Content-Type: application/json", "Location: https://169.254.169.254/")}, "answers 302"),
        ({"headers": ("Content-Type: text/html",)}, "is not JSON"),
        ({"body": b"{"}, "is not JSON"),
        ({"body": b"[]"}, "is not the address"),
        ({"body": b" " * (MAX_BYTES + 1)}, "more than"),
        ({"status": "nonsense\x00"}, "cannot be fetched"),
    ],
)
async def test_a_document_that_is_not_good_is_refused_in_words(hub: Served, host: Host, change: dict[str, Any], reason: str) -> None:
    host.document |= change.pop("document", {})
    for name, value in change.items():
        setattr(host, name, value)
    flow = await flow_of(hub, host.url)
    for _ in range(2):
        answer = await flow.show()
        assert answer.status_code == 400 and "location" not in answer.headers
        assert reason in answer.text, answer.text
    assert host.asked == 1, "nor is a failure asked for again at once"


@pytest.mark.requirement("oauth.client-documents")
async def test_a_client_without_a_name_is_called_by_its_host(hub: Served, host: Host) -> None:
    del host.document["client_name"]
    assert f"Allow “localhost:{host.port}” to act for you?" in (await (await flow_of(hub, host.url)).show()).text


@pytest.mark.requirement("oauth.client-documents", "oauth.redirect-exact")
async def test_a_document_lets_answers_go_to_its_own_addresses_alone(hub: Served, host: Host) -> None:
    flow = await flow_of(hub, host.url)
    assert (await flow.show(redirect_uri="https://evil.example/cb")).status_code == 400
    assert query_of(await flow.show(code_challenge=None, code_challenge_method=None))["error"] == "invalid_request"


@pytest.mark.requirement("oauth.client-documents-guarded")
async def test_nothing_is_fetched_for_whoever_is_not_logged_in(hub: Served, host: Host) -> None:
    flow = await flow_of(hub, host.url)
    assert (await flow.show(who="")).status_code == 303
    fields = {"grant_type": "authorization_code", "code": "ac_" + "x" * 43, "client_id": host.url, "code_verifier": "v" * 43}
    assert (await flow.token(fields)).json()["error"] == "invalid_grant"
    assert host.connected == 0


@pytest.mark.requirement("oauth.client-documents-guarded")
@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"]
)
async def test_a_document_is_never_fetched_from_inside(host: Host, name: str) -> None:
    documents = Documents(Settings(), FakeClock())
    with pytest.raises(HubError) as refused:
        await documents.get(f"https://{name}:{host.port}/client.json")
    assert "cannot be fetched" in refused.value.text and host.connected == 0
    assert not any(word in refused.value.text for word in ("refused", "private", "timed")), "and nothing is told of what is there"


@pytest.mark.requirement("oauth.client-documents-guarded")
@pytest.mark.parametrize(
    "url",
    [
        "http://client.example/client.json",
        "https://client.example",
        "https://client.example/",
        "https://user:pass@client.example/client.json",
        "https://client.example/client.json#x",
        "https://client.example/a/../client.json",
        "https://client.example/./client.json",
        "https://client.example:99999/client.json",
        "https://client.example/client\r\nX: y",
        "https://client.example/\u00e9",
        "https://client.example/" + "x" * 2000,
        "https:///client.json",
    ],
)
async def test_a_client_id_that_may_not_name_a_document(url: str) -> None:
    with pytest.raises(HubError, match=r"A client id|The client id"):
        await Documents(Settings(), FakeClock()).get(url)
