"""The operator with a browser, at a hub that runs: logs in by the page, and says yes to whoever asks."""

import re

import httpx2

from tests.flows.running_hub import RunningHub

EMAIL, PASSWORD = "operator@example.com", "correct horse battery"
# What the hub is started with.
SETTINGS = {"PLUGHUB_CREDENTIAL_ATTEMPTS": "1000", "PLUGHUB_OPERATOR_EMAIL": EMAIL, "PLUGHUB_OPERATOR_PASSWORD": PASSWORD}
_TICKET = re.compile(r'name="ticket" value="([^"]+)"')


class Person:
    """The operator with a browser, who allows what they are asked."""

    def __init__(self, hub: RunningHub) -> None:
        self._http = httpx2.Client(base_url=hub.url, headers={"Origin": hub.url})
        page = self._http.post("/login", data={"email": EMAIL, "password": PASSWORD})
        assert page.status_code == 303, page.text
        self.pages: list[str] = []

    def answer(self, url: str) -> None:
        """Say yes, and go where the browser is sent."""
        assert httpx2.get(self.allow(url)).status_code < 400

    def close(self) -> None:
        """Close the browser."""
        self._http.close()

    def allow(self, url: str) -> str:
        """Open an authorization URL and say yes; where the browser is sent."""
        page = self._http.get(url)
        found = _TICKET.search(page.text)
        assert page.status_code == 200 and found is not None, page.text
        self.pages.append(page.text)
        answer = self._http.post("/oauth/authorize", data={"ticket": found[1], "decision": "allow", "servers": "all"})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])
