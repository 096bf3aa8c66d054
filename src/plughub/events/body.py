"""An event as the outside sees it: one body for the stream, for webhooks and for the log over REST. Source: CONTRACT section 7."""

from collections.abc import Callable, Mapping
from typing import Any

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import TOOL_CALLS
from plughub.kit.clock import rfc3339
from plughub.kit.ids import public_id

# Members of `data` that the log keeps as uuids or epoch seconds, wherever they stand, and how they are told.
_TOLD: Mapping[str, Callable[[Any], Any]] = {
    "key_id": lambda id_: public_id("key", id_),
    "user_id": lambda id_: public_id("user", id_),
    "organization_id": lambda id_: public_id("org", id_),
    "invitation_id": lambda id_: public_id("inv", id_),
    "expires_at": rfc3339,
    "since_at": rfc3339,
    "until": rfc3339,
    "failing_since": rfc3339,
    "alert_id": lambda id_: public_id("alert", id_),
    "webhook_id": lambda id_: public_id("webhook", id_),
    "notification_id": lambda id_: public_id("notif", id_),
}
# What the row of a tool call keeps in its `data` and the outside is told; the rest is for the log of requests.
_OF_CALLS = ("error", "arguments", "result")


def event_body(event: Event, organization_id: str, epoch: str) -> dict[str, Any]:
    """`{"id","event","type","timestamp","organization_id","data"}`. `organization_id` is the uuid, `epoch` the one of the event's space.

    The id is the same in every process and after every restart. `data.server_uuid` and `data.mcp_id` are always there, null for an event
    that is about no server.
    """
    server_id = event.server_id
    data = _of_call(event) if event.name in TOOL_CALLS else _told(event.data)
    return {
        "id": f"evt_{epoch}_{event.seq}",
        "event": event.name,
        "type": event.name,
        "timestamp": rfc3339(event.at),
        "organization_id": public_id("org", organization_id),
        "data": {"server_uuid": server_id, "mcp_id": None if server_id is None else public_id("mcp", server_id)} | data,
    }


def _of_call(event: Event) -> dict[str, Any]:
    whole_ms, rest_us = divmod(event.duration_us or 0, 1000)
    return {
        "tool": event.tool,
        "request_id": event.request_id,
        "outcome": event.outcome,
        "is_error": bool(event.is_error),
        # Whole milliseconds as JavaScript writes them, without a point.
        "duration_ms": whole_ms + rest_us / 1000 if rest_us else whole_ms,
        "key_id": None if not event.key_id else public_id("key", event.key_id),
    } | {name: event.data[name] for name in _OF_CALLS if name in event.data}


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            found[name] = _told(value)
        else:
            tell = _TOLD.get(name)
            found[name] = value if tell is None or value is None else tell(value)
    return found
