"""Which of our doors a token is for: `resource` of RFC 8707, and the path that is compared on every request."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from plughub.kit.caller import SCOPES
from plughub.oauth.errors import InvalidScope, InvalidTarget

# The doors that a token can be for; each is a resource of its own (RFC 9728), and those of one server and one profile too.
_DOORS = re.compile(r"/(?:mcp(?:/[0-9a-z-]{1,100})?|sse|servers/[0-9a-f-]{36}/(?:mcp|sse)|api|v1)")
_MAX = 500
MCP_SCOPE = "execute:tools"
# Whoever wants more asks for it by name.
_USUAL = frozenset({"read:servers", MCP_SCOPE})
# Asked for by clients that want a refresh token: here everybody gets one.
_IGNORED = frozenset({"offline_access"})


@dataclass(frozen=True, slots=True)
class Target:
    """`resource` as the client wrote it and the path of it; both None for the whole hub."""

    resource: str | None = None
    audience: str | None = None

    @property
    def mcp(self) -> bool:
        """Whether it is a door of MCP."""
        return self.audience is not None and self.audience not in ("/api", "/v1")


def read_target(resources: list[str], base: str) -> Target:
    """The target of a request's `resource` parameters; `base` is the hub's address. Raises InvalidTarget."""
    if not resources:
        return Target()
    if len(set(resources)) > 1:
        raise InvalidTarget("A token is for one resource: ask for one, or leave it out")
    text = resources[0]
    if len(text) > _MAX:
        raise InvalidTarget
    path = _path(text, base)
    if path in ("", "/"):
        return Target(text, None)
    path = path.removesuffix("/")
    if _DOORS.fullmatch(path) is None:
        raise InvalidTarget
    return Target(text, path)


def narrowed(granted: Target, asked: Target) -> Target:
    """The target of a token request within what was granted. Raises InvalidTarget."""
    if asked.resource is None:
        return granted
    if granted.audience is None or granted.audience == asked.audience:
        return asked
    raise InvalidTarget


def read_scopes(text: str | None, target: Target, most: frozenset[str]) -> frozenset[str]:
    """The scopes of a request; when it names none, what it takes to see servers and call tools, cut to `most`. Raises InvalidScope.

    At the doors of MCP there is use for one alone.
    """
    if text is None:
        return (frozenset({MCP_SCOPE}) if target.mcp else _USUAL) & most
    wanted = frozenset(text.split()) - _IGNORED
    unknown = sorted(wanted - SCOPES)
    if unknown:
        raise InvalidScope(f"Unknown scope '{unknown[0][:50]}'")
    if not wanted <= most:
        raise InvalidScope("The client may not ask for so much")
    return wanted or (frozenset({MCP_SCOPE}) & most)


def _path(text: str, base: str) -> str:
    try:
        given, ours = urlsplit(text), urlsplit(base)
        same = (given.scheme, given.hostname, given.port) == (ours.scheme, ours.hostname, ours.port)
    except ValueError as error:
        raise InvalidTarget from error
    prefix = ours.path.rstrip("/")
    if not same or given.query or given.fragment or given.username is not None or not given.path.startswith(prefix):
        raise InvalidTarget
    return given.path[len(prefix) :]
