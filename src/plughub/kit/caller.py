"""Who is calling, what they may do, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
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
    "enterprise": Tier("enterprise", 1_000_000_000, 1_000_000, 100_000),
}
# The tier whose numbers an operator sets for each organisation; those above are what holds without.
NUMBERED_TIER = "enterprise"
# Of one person, in whatever organisation: a browser asks more often than its person does, and spends nothing of the organisation's.
SESSION_TIER = Tier("session", 20_000, 600, 30)
# The names of a tier's numbers, and the most that each can be: what the arithmetic of both forms of the limits holds exactly.
NUMBERS: Mapping[str, int] = {"hourly": 1_000_000_000, "burst": 1_000_000, "concurrency": 100_000}


@lru_cache(4096)
def tier_with(name: str, hourly: int | None, burst: int | None, concurrency: int | None) -> Tier:
    """The tier of that name with an organisation's own numbers; equal ones are one object, by which meters know that nothing changed."""
    tier = TIERS[name]
    return Tier(name, hourly or tier.hourly, burst or tier.burst, concurrency or tier.concurrency)


@lru_cache(4096)
def narrowed(tier: Tier, hourly: int | None, burst: int | None, concurrency: int | None) -> Tier:
    """What a key with these numbers of its own may use of what its organisation may: of each the smaller one."""
    return Tier("key", _least(hourly, tier.hourly), _least(burst, tier.burst), _least(concurrency, tier.concurrency))


def _least(own: int | None, whole: int) -> int:
    return min(own or whole, whole)


@dataclass(frozen=True, slots=True)
class Caller:
    """Made by admission from a credential, once; whatever acts for somebody takes it as an argument.

    `scopes` is already expanded: a key with `admin` holds every scope. `servers` is None for "all present and future".
    `stdio_allowed`: the organisation may register servers that run commands on the host. `key_id` is the id of the credential, be it a
    key or a session; `user_id` the person behind it, when there is one. `generation` counts the secrets of a key; `until` is when this
    one ends by itself (epoch seconds), and `superseded` says that a rotation is the reason. `key_limit`: what the key alone may use,
    within what its organisation may, which is `tier`; sessions count against their person's limit instead.
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
    generation: int = 0
    until: float | None = None
    superseded: bool = False
    key_limit: Tier | None = None
    # Of them: the name of the counters that its requests count against, and what these allow. Made once, for every request asks.
    counters: str = field(init=False)
    allowance: Tier = field(init=False)

    def __post_init__(self) -> None:
        if self.credential == "session" and self.user_id is not None:
            counters, allowance = session_counters(self.user_id), SESSION_TIER
        else:
            counters, allowance = self.organization_id if self.environment == "live" else self.organization_id + ":test", self.tier
        object.__setattr__(self, "counters", counters)
        object.__setattr__(self, "allowance", allowance)

    def require(self, scope: str) -> None:
        """Raise Forbidden naming the scope that is missing."""
        if scope not in self.scopes:
            raise Forbidden(required_scope=scope)

    def granted(self, server_id: str) -> bool:
        """Whether the server grant includes this server."""
        return self.servers is None or server_id in self.servers


def session_counters(user_id: str) -> str:
    """The name of what the browser sessions of a person count against, all of them together."""
    return f"user:{user_id}"


def expand_scopes(scopes: frozenset[str]) -> frozenset[str]:
    """`admin` implies all within the organisation."""
    return SCOPES if "admin" in scopes else scopes
