"""A client and a browser of one person, who go through the flows as they would be gone through over the network."""

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from tests.serving import BASE, Browser, Json, Served

CALLBACK = "https://client.example/callback"
FORM = "application/x-www-form-urlencoded"
_TICKET = re.compile(r'name="ticket" value="([^"]+)"')


def pkce() -> tuple[str, str]:
    """A verifier and its challenge."""
    verifier = secrets.token_urlsafe(48)
    return verifier, urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def query_of(answer: httpx2.Response) -> dict[str, str]:
    """What the client is told by a redirect."""
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


@dataclass
class Flow:
    """A registered client with what it remembers of its flow."""

    served: Served
    browser: Browser
    client_id: str
    secret: str | None = None
    redirect_uri: str = CALLBACK
    verifier: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    @classmethod
    async def public(cls, served: Served, browser: Browser, redirect_uri: str = CALLBACK, **metadata: Any) -> "Flow":
        """A client that has registered itself and keeps no secret."""
        body = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none", "client_name": "Agent", **metadata}
        answer = await served.call("POST", "/oauth/register", body, key="")
        assert answer.status_code == 201, answer.text
        return cls(served, browser, answer.json()["client_id"], answer.json().get("client_secret"), redirect_uri)

    @classmethod
    async def app(cls, served: Served, browser: Browser, key: str | None = None, **body: Any) -> "Flow":
        """An app with a secret, of the organisation of a key: the operator's unless said otherwise."""
        answer = await served.call("POST", "/api/oauth/apps", {"name": "Portal", "redirect_uris": [CALLBACK], **body}, key=key)
        assert answer.status_code == 201, answer.text
        return cls(served, browser, answer.json()["client_id"], answer.json()["client_secret"])

    def asked(self, **more: Any) -> dict[str, Any]:
        """The parameters of an authorization request with everything a careful client sends; None takes one away."""
        self.verifier, challenge = pkce()
        usual = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "read:servers execute:tools",
            "state": "s-1",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in {**usual, **more}.items() if value is not None}

    async def show(self, *, who: Browser | str | None = None, **more: Any) -> httpx2.Response:
        """The consent page."""
        query = urlencode(self.asked(**more), doseq=True)
        return await self.served.call("GET", f"/oauth/authorize?{query}", key=self.browser if who is None else who)

    async def decide(self, page: httpx2.Response, decision: str = "allow", *, who: Browser | None = None, **more: Any) -> httpx2.Response:
        """The answer to the page's form."""
        found = _TICKET.search(page.text)
        assert found is not None, page.text
        return await post_form(self.served, "/oauth/authorize", {"ticket": found[1], "decision": decision, **more}, who or self.browser)

    async def code(self, *, choice: Json | None = None, **more: Any) -> str:
        """A code that the person has allowed."""
        page = await self.show(**more)
        assert page.status_code == 200, page.text
        told = query_of(await self.decide(page, **(choice or {})))
        assert told["iss"] == BASE
        return told["code"]

    async def exchange(self, code: str, **more: Any) -> httpx2.Response:
        """The token request for a code; None takes a parameter away."""
        usual = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "code_verifier": self.verifier,
        }
        if self.secret is not None:
            usual["client_secret"] = self.secret
        return await self.token({**usual, **more})

    async def token(self, fields: Json) -> httpx2.Response:
        """A request at the token endpoint, as a form."""
        return await post_form(self.served, "/oauth/token", {name: value for name, value in fields.items() if value is not None})

    async def tokens(self, *, choice: Json | None = None, **more: Any) -> Json:
        """Through the whole flow."""
        resource = more.get("resource")
        answer = await self.exchange(await self.code(choice=choice, **more), resource=resource)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def refresh(self, token: str, **more: Any) -> httpx2.Response:
        """New tokens in the place of a refresh token."""
        usual = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self.client_id, "client_secret": self.secret}
        return await self.token({**usual, **more})


async def post_form(served: Served, path: str, fields: Json, who: Browser | str = "", **headers: str) -> httpx2.Response:
    """A form, from a browser or from a client."""
    content = urlencode(fields, doseq=True).encode()
    return await served.call("POST", path, content, key=who, headers={"Content-Type": FORM, **headers})


async def accepted(served: Served, token: str, path: str = "/api/servers") -> bool:
    """Whether a token is good for reading there."""
    answer = await served.call("GET", path, key=token)
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200
