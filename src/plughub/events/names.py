"""Which events a subscription names: the catalogue's names, the documents' aliases, and wildcards (CONTRACT section 7)."""

from collections.abc import Iterable
from functools import lru_cache

ALIASES = {
    "mcp.": "server.",
    "api_key.": "key.",
    "team.member_added": "member.added",
    "team.member_removed": "member.removed",
    "usage.threshold": "usage.limit_reached",
}


def matches(subscriptions: Iterable[str], name: str) -> bool:
    """Whether an event of this name is one of those: `server.error`, `server.*`, `*`, or an alias of them."""
    return any(_fits(canonical(wanted), name) for wanted in subscriptions)


@lru_cache(4096)
def canonical(wanted: str) -> str:
    """What an alias stands for; anything else as it is."""
    for alias, meant in ALIASES.items():
        if wanted == alias or (alias.endswith(".") and wanted.startswith(alias)):
            return meant + wanted[len(alias) :]
    return wanted


def _fits(wanted: str, name: str) -> bool:
    return wanted in ("*", name) or (wanted.endswith(".*") and name.startswith(wanted[:-1]))
