"""What a webhook may subscribe to: the names of the contract, their aliases, and wildcards over them."""

import difflib
from collections.abc import Sequence

from plughub.events import catalogue
from plughub.events.names import ALIASES, canonical
from plughub.kit.errors import Invalid

# Of the catalogue, but for the public neither here nor in a stream.
_HIDDEN = frozenset(
    {
        catalogue.ORGANIZATION_UPDATED,
        catalogue.SESSION_ENDED,
        catalogue.SESSION_SWITCHED,
        catalogue.REQUEST_COMPLETED,
        catalogue.WEBHOOK_CREATED,
        catalogue.WEBHOOK_UPDATED,
        catalogue.WEBHOOK_DELETED,
        catalogue.NOTIFICATION_READ,
        catalogue.NOTIFICATION_DELETED,
    }
)
# Promised by the contract; the parts of the hub that they tell of bring them into the catalogue.
_PROMISED = (
    "server.installed",
    "server.uninstalled",
    "server.quarantined",
    "tool.changed",
    "document.created",
    "document.updated",
    "document.deleted",
    "collection.created",
    "collection.updated",
    "collection.deleted",
    "collection.shared",
)
PUBLIC = frozenset(
    {value for name, value in vars(catalogue).items() if name.isupper() and isinstance(value, str) and "." in value} - _HIDDEN
) | frozenset(_PROMISED)
_WILDCARDS = frozenset({name.partition(".")[0] + ".*" for name in PUBLIC} | {"*"})
_PREFIXES = [(alias, meant) for alias, meant in ALIASES.items() if alias.endswith(".")]
_OFFERED = sorted(
    PUBLIC
    | _WILDCARDS
    | {alias + "*" for alias, _ in _PREFIXES}
    | {alias for alias in ALIASES if not alias.endswith(".")}
    | {alias + name.partition(".")[2] for alias, meant in _PREFIXES for name in PUBLIC if name.startswith(meant)}
)


def is_public(name: str) -> bool:
    """Whether an event of this name leaves the hub."""
    return name not in _HIDDEN


def require_known(events: Sequence[str]) -> list[str]:
    """The subscriptions, each once, in their order. Raises Invalid naming each that is unknown, with what is like it."""
    unknown = [wanted for wanted in events if canonical(wanted) not in PUBLIC | _WILDCARDS]
    errors = [{"field": f"events.{events.index(wanted)}", "message": _unknown(wanted)} for wanted in unknown]
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], unknown[0][:200], errors=errors)
    return list(dict.fromkeys(events))


def _unknown(wanted: str) -> str:
    near = difflib.get_close_matches(wanted, _OFFERED, 1)
    return f"Unknown event '{wanted[:60]}'" + (f". Did you mean '{near[0]}'?" if near else "")
