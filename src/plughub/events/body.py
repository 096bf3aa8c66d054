"""An event as the public sees it: one body for streams and webhooks (CONTRACT section 7)."""

from typing import Any

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import TOOL_CALLS
from plughub.kit.clock import rfc3339
from plughub.kit.ids import public_id


def event_id(epoch: str, seq: int) -> str:
    """The same for everybody who is told of the event, and without a dot: dots part what webhooks sign."""
    return f"evt_{epoch}_{seq}"


def event_body(event: Event, organization_id: str, epoch: str) -> dict[str, Any]:
    """`{id, event, type, timestamp, organization_id, data}`; `data.server_uuid` and `data.mcp_id` are always there, null without a server.

    `epoch`: of the space's numbers.
    """
    return {
        "id": event_id(epoch, event.seq),
        "event": event.name,
        "type": event.name,
        "timestamp": rfc3339(event.at),
        "organization_id": public_id("org", organization_id),
        "data": {**_data(event), "server_uuid": event.server_id, "mcp_id": event.server_id and public_id("mcp", event.server_id)},
    }


def _data(event: Event) -> dict[str, Any]:
    if event.name not in TOOL_CALLS:
        return dict(event.data)
    return {
        "server_uuid": event.server_id,
        "tool": event.tool,
        "request_id": event.request_id,
        "outcome": event.outcome,
        "is_error": event.is_error,
        "duration_ms": (event.duration_us or 0) / 1000,
    }
