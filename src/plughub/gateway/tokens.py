"""Access tokens of the authorization server at the doors: good until they run out, and where they were made for."""

from typing import Any, Protocol

from plughub.gateway.cookies import wanted_environment
from plughub.gateway.tickets import Tickets
from plughub.kit.caller import Caller, Environment
from plughub.kit.errors import TokenRefused
from plughub.oauth.secret import ACCESS_HEADER
from plughub.oauth.token_directory import TokenDirectory

_LENGTH = len(ACCESS_HEADER)
_BEARER = len(b"bearer ")
# Paths that belong to the door before them.
_MESSAGES = "/messages"
_DIGEST_BYTES = 32


class Carrying(Protocol):
    """What is read of a request."""

    headers: dict[bytes, bytes]
    route: Any
    values: tuple[str, ...]


class Tokens:
    """Admits who carries an access token. Beside them the tickets, which stand for one, or for another credential."""

    def __init__(self, directory: TokenDirectory, tickets: Tickets) -> None:
        self._directory = directory
        self.tickets = tickets

    @staticmethod
    def carried(header: bytes | None) -> bool:
        """Whether an Authorization header carries an access token, and no API key."""
        return header is not None and header[:_LENGTH].lower() == ACCESS_HEADER

    async def admit(self, arrival: Carrying) -> Caller:
        """The caller of the request's token. Raises TokenRefused, Invalid for another environment than live and test."""
        entry = await self._directory.find(arrival.headers[b"authorization"][_BEARER:].decode("latin-1"))
        if entry is None:
            raise TokenRefused
        if entry.audience is not None and entry.audience != audience_of(arrival):
            raise TokenRefused("The access token was issued for another resource", hint="Ask for a token with this resource (RFC 8707)")
        return entry.callers[wanted_environment(arrival)]

    def digest(self, header: bytes) -> bytes:
        """What the token of an Authorization header is looked up by later."""
        return b"".join(self._directory.digests(header[_BEARER:].decode("latin-1")))

    async def admit_digest(self, digest: bytes, environment: Environment) -> Caller:
        """The caller of the token of which `digest` was kept. Raises TokenRefused."""
        parts = tuple(digest[at : at + _DIGEST_BYTES] for at in range(0, len(digest), _DIGEST_BYTES))
        entry = await self._directory.find_by_digests(parts)
        if entry is None:
            raise TokenRefused
        return entry.callers[environment]


def audience_of(arrival: Carrying) -> str:
    """The path that a token for this route is made for: the door of MCP with its profile or server, else `/api` or `/v1`."""
    path: str = arrival.route.path if arrival.route is not None else ""
    if arrival.route is None or arrival.route.door != "mcp":
        return "/" + path.split("/", 2)[1] if path else ""
    values = iter(arrival.values)
    segments = [next(values) if segment.startswith("{") else segment for segment in path.split("/")]
    return "/".join(segments).removesuffix(_MESSAGES)
