"""Access tokens of the authorization server at the doors: good until they run out, and where they were made for."""

from typing import Any, Protocol

from plughub.gateway.cookies import wanted_environment
from plughub.kit.caller import Caller
from plughub.kit.errors import TokenRefused
from plughub.oauth.secret import ACCESS_HEADER
from plughub.oauth.token_directory import TokenDirectory

_LENGTH = len(ACCESS_HEADER)
_BEARER = len(b"bearer ")
# Paths that belong to the door before them.
_MESSAGES = "/messages"


class Carrying(Protocol):
    """What is read of a request."""

    headers: dict[bytes, bytes]
    route: Any
    values: tuple[str, ...]


class Tokens:
    """Admits who carries an access token."""

    def __init__(self, directory: TokenDirectory) -> None:
        self._directory = directory

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


def audience_of(arrival: Carrying) -> str:
    """The path that a token for this route is made for: the door of MCP with its profile or server, else `/api` or `/v1`."""
    path: str = arrival.route.path if arrival.route is not None else ""
    if arrival.route is None or arrival.route.door != "mcp":
        return "/" + path.split("/", 2)[1] if path else ""
    values = iter(arrival.values)
    segments = [next(values) if segment.startswith("{") else segment for segment in path.split("/")]
    return "/".join(segments).removesuffix(_MESSAGES)
