"""The cookie of a browser that is logged in: its name, where it is good, and that only our own pages speak with it."""

from typing import Any, Protocol
from urllib.parse import urlsplit

from plughub.identity.session_directory import SessionDirectory
from plughub.kit.caller import Caller, Environment
from plughub.kit.errors import Forbidden, Invalid, SessionEnded
from plughub.settings import Settings

# Over TLS the prefix binds the cookie to this very host (RFC 6265bis section 4.1.3.2); without it no browser would take the prefix.
SECURE_NAME = "__Host-plughub"
PLAIN_NAME = "plughub"
_SAFE = ("GET", "HEAD")
_OWN_PAGES = (b"same-origin", b"none")  # none: the person typed the address, or followed a bookmark
_ENVIRONMENTS: dict[bytes, Environment] = {b"live": "live", b"test": "test"}
_MAX_TOKEN = 100


class Browsed(Protocol):
    """What is read of a request."""

    scope: Any
    headers: dict[bytes, bytes]
    door: str


class Headed(Protocol):
    """Whatever has headers."""

    headers: dict[bytes, bytes]


def wanted_environment(arrival: Headed) -> Environment:
    """In which environment a session or a token acts. Raises Invalid."""
    wanted = arrival.headers.get(b"x-plughub-environment", b"live")
    environment = _ENVIRONMENTS.get(wanted)
    if environment is None:
        raise Invalid("X-Plughub-Environment", "The 'X-Plughub-Environment' header must be live or test", wanted.decode("latin-1"))
    return environment


class Cookies:
    """Reads and writes the one cookie there is."""

    def __init__(self, settings: Settings, sessions: SessionDirectory) -> None:
        self._sessions = sessions
        self._max_age_s = int(settings.login_lifetime_s)
        public = urlsplit(settings.public_url)
        self._public_origin = f"{public.scheme}://{public.netloc}".lower().encode() if settings.public_url else None
        self._public_secure = public.scheme == "https"

    def find_token(self, arrival: Browsed) -> str | None:
        """The token of the cookie, if there is exactly one."""
        header = arrival.headers.get(b"cookie")
        if header is None:
            return None
        name = self._name(arrival)
        pairs = [part.strip().partition("=") for part in header.decode("latin-1").split(";")]
        found = {value for key, _, value in pairs if key == name and 0 < len(value) <= _MAX_TOKEN}
        return found.pop() if len(found) == 1 else None

    async def admit(self, arrival: Browsed, token: str) -> Caller:
        """The caller of a token, in the environment that the request names.

        Raises SessionEnded, Forbidden for what may come from another site, Invalid for another environment than live and test.
        """
        entry = await self._sessions.find(token)
        if entry is None:
            raise SessionEnded
        self.check_origin(arrival)
        return entry.callers[wanted_environment(arrival)]

    async def admit_digest(self, digest: bytes, environment: Environment) -> Caller:
        """The caller of the token of which `kit.crypto.token_digest` was kept. Raises SessionEnded."""
        entry = await self._sessions.find_by_digest(digest)
        if entry is None:
            raise SessionEnded
        return entry.callers[environment]

    def check_origin(self, arrival: Browsed) -> None:
        """Raise Forbidden unless the request is from a page of ours, or one that changes nothing.

        Browsers say by themselves where a request is from (Fetch Metadata, else Origin); who says nothing of it is refused too.
        """
        if arrival.scope["method"] in _SAFE:
            return
        site = arrival.headers.get(b"sec-fetch-site")
        if site is not None:
            ours = site in _OWN_PAGES
        else:
            ours = self._is_own(arrival.headers.get(b"origin", b"").lower(), arrival)
        if not ours:
            raise Forbidden("A login is good for this hub's own pages alone", reason="cross_site")

    def set(self, arrival: Browsed, token: str) -> str:
        """The Set-Cookie header of a login."""
        return self._written(arrival, token, self._max_age_s)

    def clear(self, arrival: Browsed) -> str:
        """The Set-Cookie header of a logout."""
        return self._written(arrival, "", 0)

    def _written(self, arrival: Browsed, value: str, max_age_s: int) -> str:
        secure = "; Secure" if self._secure(arrival) else ""
        return f"{self._name(arrival)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"

    def _name(self, arrival: Browsed) -> str:
        return SECURE_NAME if self._secure(arrival) else PLAIN_NAME

    def _secure(self, arrival: Browsed) -> bool:
        return self._public_secure or arrival.scope["scheme"] == "https"

    def _is_own(self, origin: bytes, arrival: Browsed) -> bool:
        asked = arrival.scope["scheme"].encode() + b"://" + arrival.headers.get(b"host", b"").lower()
        return origin in (asked, self._public_origin)
