"""The public events as data: `contract/events.json`. For the generator alone; the running hub needs no schemas."""

import json
from typing import Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import TypeAdapter

from plughub.db.unit_of_work import Event
from plughub.events.body import event_body
from plughub.events.catalogue import TOOL_CALLS
from plughub.events.published import PUBLISHED, EventType

_ORGANIZATION = "0198c0de-0000-7000-8000-000000000000"
_EPOCH = "4f1c09ab"
_AT = 1_767_225_600.0
_MCP_ID = {"type": "string", "pattern": "^mcp_[0-9A-Za-z]{22}$"}
_UUID = {"type": "string", "format": "uuid"}
_NULL = {"type": "null"}


def render_events() -> str:
    """The document as the file in `contract/` holds it."""
    document = {
        "title": "Plughub's events",
        "description": "The body of every event: on the stream, in webhooks (there with `retry_count`), and in GET /api/event-log.",
        "envelope": _envelope(),
        "events": {row.name: _described(row) for row in PUBLISHED.values()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def schema_of(row: EventType) -> dict[str, Any]:
    """The JSON Schema of the event's `data`, as it is told."""
    schema = _object(row.data)
    always = row.name.startswith(("server.", "tool."))
    told = {"server_uuid": _UUID, "mcp_id": _MCP_ID}
    schema["properties"] |= {name: kind if always else {"anyOf": [kind, _NULL]} for name, kind in told.items()}
    schema["required"] = sorted({*schema.get("required", ()), *told})
    return schema


def example_of(row: EventType) -> dict[str, Any]:
    """A whole body."""
    data = dict(row.example)
    server_id = "0198c0de-0000-7000-8000-000000000001" if row.name.startswith(("server.", "tool.")) else None
    event = Event("", 42, row.name, _AT, None, server_id, None, data)
    if row.name in TOOL_CALLS:
        columns = {name: data.pop(name) for name in ("tool", "request_id", "outcome", "is_error")}
        duration_us = int(data.pop("duration_ms") * 1000)
        event = Event("", 42, row.name, _AT, None, server_id, data.pop("key_id"), data, **columns, duration_us=duration_us)
    return event_body(event, _ORGANIZATION, _EPOCH)


def _object(kind: Any) -> dict[str, Any]:
    """The schema of a TypedDict, member by member: pydantic reads none of the standard library's before Python 3.12."""
    members = get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "properties": {name: _member(hint) for name, hint in members.items()},
        "required": sorted(kind.__required_keys__),
    }


def _member(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is NotRequired:
        [hint] = get_args(hint)
    return _object(hint) if is_typeddict(hint) else TypeAdapter(hint).json_schema(mode="serialization")


def _described(row: EventType) -> dict[str, Any]:
    scopes = ["read:events", *([row.scope] if row.scope is not None else [])]
    return {
        "version": row.version,
        "description": row.description,
        "scopes": scopes,
        "data": schema_of(row),
        "example": example_of(row),
    }


def _envelope() -> dict[str, Any]:
    word = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^evt_[0-9a-f]+_[0-9]+$"},
            "event": word,
            "type": word,
            "timestamp": {"type": "string", "format": "date-time"},
            "organization_id": {"type": "string", "pattern": "^org_[0-9A-Za-z]{22}$"},
            "data": {"type": "object"},
        },
        "required": ["id", "event", "type", "timestamp", "organization_id", "data"],
    }
