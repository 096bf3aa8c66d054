"""Independent clients through the whole of OAuth against a running hub: the official MCP client, and Authlib."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import mcp_types
import pytest
from authlib.integrations.requests_client import OAuth2Session
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.fakes.certificates import certificate
from tests.fakes.client_documents import Host
from tests.flows.person import SETTINGS, Person
from tests.flows.running_hub import RunningHub

pytestmark = pytest.mark.anyio
CALLBACK = "http://127.0.0.1:3030/callback"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("oauth") / "data", settings=SETTINGS) as running:
        yield running


class Kept:
    """What the official client keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@asynccontextmanager
async def connected(url: str, person: Person, kept: Kept, mode: str, document: str | None = None) -> AsyncIterator[Client]:
    """The official client: it knows the address alone, and finds out everything else."""
    answers: list[str] = []

    async def open_browser(url: str) -> None:
        answers.append(await anyio.to_thread.run_sync(person.allow, url))

    async def wait_for_answer() -> AuthorizationCodeResult:
        told = {name: values[0] for name, values in parse_qs(urlsplit(answers.pop()).query).items()}
        return AuthorizationCodeResult(code=told["code"], state=told["state"], iss=told["iss"])

    metadata = OAuthClientMetadata(client_name="Official client", redirect_uris=[CALLBACK], token_endpoint_auth_method="none")  # type: ignore[list-item]
    provider = OAuthClientProvider(url, metadata, kept, open_browser, wait_for_answer, client_metadata_url=document)
    async with httpx2.AsyncClient(auth=provider) as http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        yield client


@pytest.mark.requirement("oauth.official-client", "oauth.well-known", "oauth.registration", "oauth.code-flow")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_official_client_goes_from_a_401_to_a_call(hub: RunningHub, mode: str) -> None:
    kept = Kept()
    with closing(Person(hub)) as person:
        await _connect_twice(hub, person, kept, mode)
    assert kept.tokens is not None
    elsewhere = hub.api("GET", "/api/servers", key=kept.tokens.access_token)
    assert elsewhere.status_code == 401 and 'error="invalid_token"' in elsewhere.headers["www-authenticate"]


async def _connect_twice(hub: RunningHub, person: Person, kept: Kept, mode: str) -> None:
    with anyio.fail_after(30):
        async with connected(f"{hub.url}/mcp", person, kept, mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("weather-server__echo", {"text": "by consent"})
    assert "weather-server__echo" in names
    assert isinstance(block := result.content[0], mcp_types.TextContent) and block.text == "by consent"
    [page] = person.pages
    assert "Official client" in page and f"{hub.url}/mcp" in page and "execute:tools" in page
    assert kept.tokens is not None and kept.tokens.refresh_token is not None and kept.tokens.scope == "execute:tools"
    # A second time: no page, the token is good still.
    with anyio.fail_after(30):
        async with connected(f"{hub.url}/mcp", person, kept, mode) as client:
            await client.list_tools()
    assert len(person.pages) == 1


@pytest.mark.requirement("oauth.official-client", "oauth.client-documents")
async def test_the_official_client_is_known_by_its_document_without_registering(tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    more = {"SSL_CERT_FILE": str(trusted), "PLUGHUB_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/8"}
    kept = Kept()
    with RunningHub(tmp_path / "data", settings={**SETTINGS, **more}) as hub, closing(Person(hub)) as person:
        async with Host(context, CALLBACK) as host:
            with anyio.fail_after(30):
                async with connected(f"{hub.url}/mcp", person, kept, "2026-07-28", host.url) as client:
                    result = await client.call_tool("weather-server__add", {"a": 20, "b": 22})
    assert not result.is_error and kept.client is not None and kept.client.client_id == host.url
    assert host.asked == 1 and "vouches for" in person.pages[0]


@pytest.mark.requirement("oauth.independent-client", "oauth.refresh-rotation", "oauth.revocation", "oauth.introspection")
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_goes_through_code_refresh_introspection_and_revocation(hub: RunningHub, method: str) -> None:
    metadata = hub.api("GET", "/.well-known/oauth-authorization-server", key="").json()
    body = {"redirect_uris": ["https://app.example/cb"], "client_name": "Authlib", "token_endpoint_auth_method": method}
    client = hub.api("POST", "/oauth/register", body, key="").json()
    session = OAuth2Session(
        client["client_id"],
        client["client_secret"],
        token_endpoint_auth_method=method,
        scope="read:servers read:profile",
        redirect_uri="https://app.example/cb",
        code_challenge_method="S256",
    )
    verifier = "v" * 43
    with closing(session), closing(Person(hub)) as person:
        url, state = session.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
        location = person.allow(url)
        token = session.fetch_token(metadata["token_endpoint"], authorization_response=location, state=state, code_verifier=verifier)
        assert token["token_type"] == "Bearer" and token["scope"] == "read:profile read:servers"
        assert [row["slug"] for row in session.get(f"{hub.url}/api/servers").json()["servers"]] == ["weather-server"]
        fresh = session.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
        assert fresh["refresh_token"] != token["refresh_token"]
        looked = session.introspect_token(metadata["introspection_endpoint"], token=fresh["access_token"])
        assert looked.json()["active"] is True
        assert session.revoke_token(metadata["revocation_endpoint"], token=fresh["refresh_token"]).status_code == 200
        assert session.introspect_token(metadata["introspection_endpoint"], token=fresh["access_token"]).json() == {"active": False}
