"""Which events make a notification, and what it says: one table. An event that is not in it makes none.

The words hold no secret and nobody's address: whoever may read notifications reads them. What an event lacks is left out of the words, so
that an event of another version makes a poorer notification, never none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import (
    KEY_FLAGGED,
    KEY_REVOKED,
    KEY_SUSPENDED,
    KEY_UPDATED,
    MEMBER_ADDED,
    MEMBER_INVITED,
    MEMBER_REMOVED,
    MEMBER_UPDATED,
    SERVER_CONNECTED,
    SERVER_DISCONNECTED,
    SERVER_ERROR,
    USAGE_LIMIT_REACHED,
)
from plughub.kit.clock import rfc3339
from plughub.kit.ids import parse_uuid, public_id

Severity = Literal["INFO", "SUCCESS", "WARNING", "ALERT"]
# Those that are also sent by mail.
SEVERE: Final = "ALERT"
_MAX_WORD = 300


@dataclass(frozen=True, slots=True)
class Telling:
    """What to say of an event. `link` is a path of the hub; `subject` is the id of what it is about: a second one within the hour about
    the same is counted, not added."""

    title: str
    message: str
    severity: Severity
    link: str | None = None
    subject: str | None = None


Tell = Callable[[Event], Telling | None]


def telling_of(event: Event) -> Telling | None:
    """What is to be said of the event, if anything."""
    tell = TELLINGS.get(event.name)
    return tell(event) if tell is not None else None


def details_of(event: Event) -> dict[str, Any]:
    """What of an event's data goes with its notification: plain values, ids as they are shown, and nobody's address."""
    found: dict[str, Any] = {"event": event.name}
    for name, value in event.data.items():
        if name == "email" or not isinstance(value, str | int | float | bool | None):
            continue
        shown = _PREFIXES.get(name)
        uuid = parse_uuid(value) if shown is not None and isinstance(value, str) else None
        found[name] = public_id(shown, uuid) if shown is not None and uuid is not None else value
    return found


_PREFIXES = {"key_id": "key", "user_id": "user", "organization_id": "org", "webhook_id": "webhook", "invitation_id": "inv"}


def _word(data: Mapping[str, Any], *names: str, otherwise: str = "") -> str:
    """The first of these members that there is, as one line."""
    value = next((data[name] for name in names if data.get(name) not in (None, "")), otherwise)
    return " ".join(str(value).split())[:_MAX_WORD]


def _server(title: str, severity: Severity, otherwise: str, path: str = "/health") -> Tell:
    def tell(event: Event) -> Telling:
        slug, server_id = _word(event.data, "slug", "name", otherwise="?"), event.server_id or ""
        message = _word(event.data, "error", "reason", otherwise=otherwise)
        return Telling(title.format(slug), message, severity, f"/api/servers/{server_id}{path}", server_id)

    return tell


def _back(event: Event) -> Telling | None:
    """That a server is connected is worth telling when it was told that it was not."""
    if event.data.get("previous") not in ("error", "disconnected"):
        return None
    return _server("Server '{}' is back", "SUCCESS", "It can be used again")(event)


def _key_link(event: Event) -> str:
    return f"/api/auth/keys/{public_id('key', event.key_id)}" if event.key_id else "/api/auth/keys"


def _flagged(event: Event) -> Telling:
    data, name = event.data, _word(event.data, "name", otherwise="?")
    flag = _word(data, "flag", otherwise="flagged")
    severity: Severity = "WARNING"
    if flag == "rotation_due":
        title, message = f"Key '{name}' should be rotated", f"Its secret is {_word(data, 'days')} days old"
    elif flag == "expires_soon":
        days, expires_at = data.get("days"), data.get("expires_at")
        when = f" ({rfc3339(expires_at)})" if isinstance(expires_at, int | float) else ""
        title, message = f"Key '{name}' expires soon", f"It is good for {days} more day{'' if days == 1 else 's'} at most{when}"
    else:
        known = ("key_id", "name", "prefix", "kind", "environment", "flag", "email")
        numbers = ", ".join(f"{key} {value}" for key, value in data.items() if key not in known and isinstance(value, str | int | float))
        title, message = f"Key '{name}' was flagged: {flag.replace('_', ' ')}", numbers[:_MAX_WORD] or "Somebody should look at it"
        severity = "ALERT" if flag == "dormant_key_used" else "WARNING"
    return Telling(title, message, severity, _key_link(event), f"{event.key_id}/{flag}")


def _leaked(title: str, otherwise: str) -> Tell:
    """A key that somebody has ended themselves is no news; one that was found in public is."""

    def tell(event: Event) -> Telling | None:
        if event.data.get("reason") != "leaked":
            return None
        where = _word(event.data, "url")
        message = f"{otherwise}: it was found in public" + (f" at {where}" if where else "")
        return Telling(title.format(_word(event.data, "name", otherwise="?")), message, "ALERT", _key_link(event), event.key_id)

    return tell


def _suspended(event: Event) -> Telling | None:
    """Whoever suspends a key knows it; a policy says why it has."""
    reason = _word(event.data, "reason")
    if not reason:
        return None
    return Telling(f"Key '{_word(event.data, 'name', otherwise='?')}' was suspended", reason, "WARNING", _key_link(event), event.key_id)


def _limit(event: Event) -> Telling:
    data = event.data
    percent, limit = _word(data, "threshold"), _word(data, "limit")
    policy = _word(data, "policy", otherwise="hourly")
    severity: Severity = "ALERT" if data.get("threshold") == 100 else "WARNING"
    message = f"{percent} % of {limit} calls ({policy}) are used" + (": further calls are refused for now" if severity == "ALERT" else "")
    return Telling(f"{percent} % of the {policy} limit are used", message, severity, "/api/rate-limit", f"{policy}/{percent}")


def _webhook(event: Event) -> Telling:
    webhook_id = _word(event.data, "webhook_id", "id")
    message = _word(event.data, "reason", "error", otherwise="Its deliveries fail")
    url = _word(event.data, "url")
    uuid = parse_uuid(webhook_id)
    link = f"/api/webhooks/{public_id('webhook', uuid) if uuid else webhook_id}"
    return Telling("A webhook was switched off", f"{url}: {message}" if url else message, "ALERT", link, webhook_id or None)


def _alert(event: Event) -> Telling:
    data = event.data
    title = f"Alert: {_word(data, 'name', 'metric', otherwise='a threshold was crossed')}"
    parts = (("metric", "{}"), ("value", "is {}"), ("threshold", "threshold {}"), ("window", "over {}"))
    words = [form.format(_word(data, name)) for name, form in parts if _word(data, name)]
    message = _word(data, "message") or " ".join(words) or "A threshold was crossed"
    return Telling(title, message, "WARNING", "/api/alerts", _word(data, "alert_id") or None)


def _member(title: str, message: str) -> Tell:
    def tell(event: Event) -> Telling:
        role = _word(event.data, "role", otherwise="member")
        return Telling(title, message.format(role), "INFO", "/api/organizations", _word(event.data, "user_id", "invitation_id") or None)

    return tell


# Some of these names belong to parts that tell of them later or elsewhere.
TELLINGS: Final[Mapping[str, Tell]] = {
    SERVER_ERROR: _server("Server '{}' has failed", "WARNING", "It could not be reached"),
    SERVER_DISCONNECTED: _server("Server '{}' has gone", "WARNING", "Its connection ended"),
    SERVER_CONNECTED: _back,
    "server.installed": _server("Server '{}' was installed", "SUCCESS", "It is ready to be used", ""),
    "server.uninstalled": _server("Server '{}' was uninstalled", "INFO", "It is no longer there", ""),
    "server.quarantined": _server("Server '{}' is in quarantine", "ALERT", "Somebody has to look at it", ""),
    "tool.changed": _server("A tool of server '{}' has changed", "WARNING", "Its new definition has to be approved", "/tools/changes"),
    KEY_FLAGGED: _flagged,
    KEY_REVOKED: _leaked("Key '{}' was revoked", "It is refused from now on"),
    KEY_UPDATED: _leaked("An earlier secret of key '{}' was ended", "The key itself goes on"),
    KEY_SUSPENDED: _suspended,
    USAGE_LIMIT_REACHED: _limit,
    "webhook.disabled": _webhook,
    "alert.fired": _alert,
    MEMBER_ADDED: _member("Somebody has joined", "The organization has a new {}"),
    MEMBER_UPDATED: _member("A role was changed", "Somebody is {} from now on"),
    MEMBER_REMOVED: _member("Somebody has left", "The organization has lost a {}"),
    MEMBER_INVITED: _member("Somebody was invited", "They are to be {}"),
}
