"""What a subscription names: an event, a family (`server.*`), everything (`*`), or one of the documents' other words for these."""

import difflib
from collections.abc import Iterable
from functools import lru_cache

from plughub.events.catalogue import SERVER_CONNECTED, SERVER_DISCONNECTED, SERVER_ERROR
from plughub.events.published import COMING, PUBLISHED

EVERYTHING = "*"
_MAX_NAME = 100
# The PlexMCP documents' words; a family's stands for the beginning of every name in it.
_FAMILIES = {"mcp.": "server.", "api_key.": "key.", "team.member_": "member."}
_WORDS = {
    "usage.threshold": ("usage.limit_reached",),
    "mcp.health_changed": (SERVER_CONNECTED, SERVER_DISCONNECTED, SERVER_ERROR),
    "team.*": ("member.*",),
}
# Every name that may be subscribed to.
KNOWN = (*PUBLISHED, *sorted(COMING))


def matches(subscriptions: Iterable[str], name: str) -> bool:
    """Whether the event of that name is among what was subscribed to."""
    return any(_matches_one(subscription, name) for subscription in subscriptions)


def is_known(subscription: str) -> bool:
    """Whether it names anything that there is, or that is promised."""
    return any(_matches_one(subscription, name) for name in KNOWN)


def meant_by(subscription: str) -> str | None:
    """What may have been meant by one that is not known."""
    families = {name.partition(".")[0] + "." for name in KNOWN}
    spelled = {alias + name.removeprefix(family) for alias, family in _FAMILIES.items() for name in KNOWN if name.startswith(family)}
    offered = {*KNOWN, *_WORDS, *spelled, *(beginning + "*" for beginning in (*families, *_FAMILIES)), EVERYTHING}
    return next(iter(difflib.get_close_matches(subscription[:_MAX_NAME], sorted(offered), n=1)), None)


@lru_cache(4096)
def _patterns(subscription: str) -> tuple[str, ...]:
    if (words := _WORDS.get(subscription)) is not None:
        return words
    for alias, family in _FAMILIES.items():
        if subscription.startswith(alias):
            return (family + subscription.removeprefix(alias),)
    return (subscription,)


def _matches_one(subscription: str, name: str) -> bool:
    for pattern in _patterns(subscription):
        if pattern in (EVERYTHING, name) or (pattern.endswith(".*") and name.startswith(pattern[:-1])):
            return True
    return False
