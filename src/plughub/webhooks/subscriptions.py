"""What a webhook may subscribe to: the published events by name, wildcard or alias, as far as whoever subscribes may hear of them."""

from collections.abc import Iterable, Sequence

from plughub.events.names import is_known, matches, meant_by
from plughub.events.published import PUBLISHED
from plughub.kit.caller import Caller
from plughub.kit.errors import Forbidden, Invalid


def is_told(scopes: Iterable[str], name: str) -> bool:
    """Whether a webhook whose maker had these scopes hears of events of that name."""
    published = PUBLISHED.get(name)
    return published is not None and (published.scope is None or published.scope in scopes)


def require_known(events: Sequence[str]) -> list[str]:
    """The subscriptions, each once, in their order. Raises Invalid naming each that is unknown, with what is like it."""
    unknown = [wanted for wanted in events if not is_known(wanted)]
    errors = [{"field": f"events.{events.index(wanted)}", "message": _unknown(wanted)} for wanted in unknown]
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], unknown[0][:200], errors=errors)
    return list(dict.fromkeys(events))


def scopes_for(caller: Caller, events: Sequence[str]) -> list[str]:
    """The caller's scopes without which the subscriptions would hear less.

    Raises Forbidden for a subscription that would hear of nothing at all without a scope that the caller lacks.
    """
    held = set()
    for wanted in events:
        needed = {row.scope for row in PUBLISHED.values() if matches([wanted], row.name)}
        scopes = {scope for scope in needed if scope is not None}
        if needed == scopes and scopes and scopes.isdisjoint(caller.scopes):
            raise Forbidden(required_scope=min(scopes))
        held |= scopes & caller.scopes
    return sorted(held)


def _unknown(wanted: str) -> str:
    near = meant_by(wanted)
    return f"Unknown event '{wanted[:60]}'" + (f". Did you mean '{near}'?" if near is not None else "")
