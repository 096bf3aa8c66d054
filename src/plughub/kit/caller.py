"""Who is calling, what they may do, and how much of it."""

from dataclasses import dataclass
from typing import Literal

from plughub.kit.errors import Forbidden

Environment = Literal["live", "test"]
KeyKind = Literal["public", "secret"]
Credential = Literal["key", "session", "token"]

DOCUMENTED_SCOPES = (
    "read:servers",
    "write:servers",
    "delete:servers",
    "read:documents",
    "write:documents",
    "read:profile",
    "write:profile",
    "read:collections",
    "write:collections",
    "admin",
)
OWN_SCOPES = (
    "execute:tools",
    "read:webhooks",
    "write:webhooks",
    "read:events",
    "read:usage",
    "read:keys",
    "write:keys",
    "read:notifications",
    "write:notifications",
)
SCOPES = frozenset(DOCUMENTED_SCOPES + OWN_SCOPES)
# The scope of routes for whoever runs the hub: `admin` in the operator's organisation. No key can be given it.
OPERATOR = "operator"
# "None given" means what a key for daily work needs: everything that cannot make or see keys (CONTRACT section 3).
DEFAULT_SCOPES = SCOPES - {"admin", "read:keys", "write:keys"}


@dataclass(frozen=True, slots=True)
class Tier:
    """What an organisation may use: calls an hour, calls in a burst (refilled over 60 s), calls at once."""

    name: str
    hourly: int
    burst: int
    concurrency: int


TIERS = {
    "free": Tier("free", 100, 10, 2),
    "pro": Tier("pro", 1_000, 50, 10),
    "business": Tier("business", 10_000, 200, 50),
    # In practice unlimited, on the same code path, so that headers are always numbers.
    "enterprise": Tier("enterprise", 1_000_000_000, 1_000_000, 1_000_000),
}
# Of one person, in whatever organisation: a browser asks more often than its person does, and spends nothing of the organisation's.
SESSION_TIER = Tier("session", 20_000, 600, 30)


@dataclass(frozen=True, slots=True)
class Caller:
    """Made by admission from a credential, once; whatever acts for somebody takes it as an argument.

    `scopes` is already expanded: a key with `admin` holds every scope. `servers` is None for "all present and future".
    `stdio_allowed`: the organisation may register servers that run commands on the host. `key_id` is the id of the credential, be it a
    key or a session; `user_id` the person behind it, when there is one.
    """

    organization_id: str
    space_id: str
    environment: Environment
    key_id: str
    kind: KeyKind
    scopes: frozenset[str]
    servers: frozenset[str] | None
    tier: Tier
    operator: bool
    stdio_allowed: bool
    credential: Credential = "key"
    user_id: str | None = None

    def require(self, scope: str) -> None:
        """Raise Forbidden naming the scope that is missing."""
        if scope not in self.scopes:
            raise Forbidden(required_scope=scope)

    def granted(self, server_id: str) -> bool:
        """Whether the server grant includes this server."""
        return self.servers is None or server_id in self.servers


def expand_scopes(scopes: frozenset[str]) -> frozenset[str]:
    """`admin` implies all within the organisation."""
    return SCOPES if "admin" in scopes else scopes
