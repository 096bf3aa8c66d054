"""The log of requests over REST: every REST and MCP request of the caller's space, and the story of one of them."""

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api.framework import CallerDep, ReadDep
from plughub.api.log_shapes import RequestList, RequestStory
from plughub.api.reply import reply
from plughub.db.unit_of_work import Event
from plughub.door.routes import Route
from plughub.events.catalogue import REQUEST_COMPLETED
from plughub.events.requests import Position, RequestFilter, find_request, list_requests
from plughub.keys.store import find_key
from plughub.kit.caller import Caller
from plughub.kit.clock import parse_rfc3339, rfc3339
from plughub.kit.errors import HubError, Invalid, NotFound
from plughub.kit.ids import parse_public_id, public_id, request_time
from plughub.servers.store import find_server

_TOOL_SCOPE = "execute:tools"
_ROUTES_OF_DOORS = {"api": "/api/servers/{uuid}/tools/{tool}/execute", "v1": "/v1/mcp/invoke", "mcp": "/mcp"}
_INVALID_PARAMS = -32602
# Outcomes that are no errors of the hub.
_OTHER = {
    "CANCELLED": (499, "The call was given up, by its client or by the hub's stop, before an answer came"),
    "CLIENT_GONE": (499, "The client closed the connection before the answer"),
}
Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_/.:-]*$", max_length=100)]


class Wanted(BaseModel):
    """Filters; times are RFC 3339. `status`: ok, error, or an error code; `method`: of HTTP or of MCP."""

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=100)
    server: str | None = Field(None, max_length=100, description="The server's uuid or `mcp_` id")
    key: str | None = Field(None, max_length=100, description="The key's id; that of a session or a grant is one too")
    status: Word | None = Field(None, description="`ok`, `error`, or an error code")
    tool: str | None = Field(None, max_length=256)
    door: Literal["api", "v1", "mcp", "plain"] | None = None
    method: Word | None = Field(None, description="Of HTTP (`GET`) or of MCP (`tools/list`)")
    since: str | None = Field(None, max_length=100, description="RFC 3339; included")
    until: str | None = Field(None, max_length=100, description="RFC 3339; not included")
    request_id: str | None = Field(None, max_length=100)


async def list_logs(caller: CallerDep, connection: ReadDep, wanted: Annotated[Wanted, Query()]) -> Response:
    """Requests, newest first, one row each, within 50 ms of their end. A key with a server list sees those to its servers, and its own.

    With a `next_cursor` there may be more, even when the page is not full: one answer looks at 50,000 rows of a kind at most.
    """
    if wanted.request_id is not None:
        found = await find_request(connection, caller, wanted.request_id)
        return reply({"logs": [shown_row(found)] if found is not None else [], "limit": wanted.limit, "next_cursor": None})
    page = await list_requests(connection, caller, _filter(wanted), _position(wanted.cursor), wanted.limit)
    cursor = f"{page.next[0]!r}_{page.next[1]}" if page.next is not None else None
    return reply({"logs": [shown_row(event) for event in page.rows], "limit": wanted.limit, "next_cursor": cursor})


async def get_log(caller: CallerDep, connection: ReadDep, request_id: str) -> Response:
    """The story of one request: route, key, scope, server, tool, outcome, limits, times, and what went wrong, in words."""
    event = await find_request(connection, caller, request_id)
    if event is None:
        raise NotFound("No such request" if request_time(request_id) is not None else None)
    row = shown_row(event)
    shared = ("request_id", "at", "door", "method", "path", "rpc_method", "status", "http_status", "tool")
    upstream_us = event.data.get("upstream_us", event.duration_us) if event.outcome == "ok" and _is_call(event) else None
    story = {
        **{name: row[name] for name in shared},
        "scope": event.data.get("scope", _TOOL_SCOPE),
        "key": await _key(connection, caller, event),
        "server": await _server(connection, caller, event),
        "is_tool_error": event.outcome == "ok" and bool(event.is_error),
        "timings": {"total_ms": row["duration_ms"], "upstream_ms": upstream_us / 1000 if upstream_us is not None else None},
        "error": _error(event),
        "error_text": event.data.get("text"),
        **{name: event.data.get(name) for name in ("context", "arguments", "result")},
    }
    return reply(story)


def _filter(wanted: Wanted) -> RequestFilter:
    server_id = parse_public_id("mcp", wanted.server) if wanted.server is not None else None
    if wanted.server is not None and server_id is None:
        raise Invalid("server", "The 'server' field is no id of a server", wanted.server)
    times = {}
    for name in ("since", "until"):
        text: str | None = getattr(wanted, name)
        times[name] = parse_rfc3339(text) if text is not None else None
        if text is not None and times[name] is None:
            raise Invalid(name, f"The '{name}' field must be an RFC 3339 time with its offset", text)
    # PostgreSQL takes no NUL, and no tool has one.
    tool = wanted.tool.replace("\0", "\ufffd") if wanted.tool is not None else None
    key_id = parse_public_id("key", wanted.key) if wanted.key is not None else None
    if wanted.key is not None and key_id is None:
        raise Invalid("key", "The 'key' field is no id of a key", wanted.key)
    return RequestFilter(server_id, wanted.status, tool, wanted.door, wanted.method, key_id=key_id, **times)


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    at, mark, seq = cursor.partition("_")
    try:
        found = float(at), int(seq)
    except ValueError:
        found = (-1.0, -1)
    if not mark or not (0 <= found[0] < 1e11 and 0 <= found[1] < 2**63):
        raise Invalid("cursor", "The 'cursor' field is no cursor of this list", cursor)
    return found


def _is_call(event: Event) -> bool:
    return event.name != REQUEST_COMPLETED


def shown_row(event: Event) -> dict[str, Any]:
    """A request as the log lists it."""
    door = event.door or ""
    is_mcp_call = _is_call(event) and door == "mcp"
    return {
        "request_id": event.request_id,
        "at": rfc3339(event.at),
        "door": door,
        "method": event.data.get("method", "POST"),
        "path": event.data.get("path", _ROUTES_OF_DOORS.get(door, "")),
        "rpc_method": "tools/call" if is_mcp_call else event.data.get("rpc"),
        "status": "error" if event.is_error else "ok",
        "http_status": event.data.get("status") or _http_status(event),
        "error": None if event.outcome == "ok" else event.outcome,
        "duration_ms": (event.duration_us or 0) / 1000,
        "key_id": public_id("key", event.key_id) if event.key_id else None,
        "server_uuid": event.server_id,
        "tool": event.tool,
    }


def _http_status(event: Event) -> int:
    """What the door of a tool call answered; its row keeps the outcome, and the status follows from it."""
    outcome = event.outcome or ""
    if outcome in _OTHER:
        return _OTHER[outcome][0]
    if event.door == "mcp":  # what concerns the call itself is a JSON-RPC error in a 200
        return 200
    if outcome == "ok":
        return 502 if event.is_error and event.door == "v1" else 200
    if event.data.get("rpc_code") == _INVALID_PARAMS:
        return 400
    return _KINDS[outcome].status if outcome in _KINDS else 500


def _error(event: Event) -> dict[str, Any] | None:
    code = event.outcome or ""
    if code == "ok":
        return None
    kind = _KINDS.get(code, HubError)
    message = event.data.get("error") or (_OTHER[code][1] if code in _OTHER else kind.message)
    return {"code": code, "message": message, "hint": kind.hint, "policy": event.data.get("policy")}


def _kinds(base: type[HubError] = HubError) -> dict[str, type[HubError]]:
    """The errors by code; of several with one code the most general."""
    found: dict[str, type[HubError]] = {}
    for kind in base.__subclasses__():
        found.setdefault(kind.code, kind)
        found = _kinds(kind) | found
    return found


_KINDS = _kinds()


async def _key(connection: AsyncConnection, caller: Caller, event: Event) -> dict[str, Any]:
    row = await find_key(connection, event.key_id, caller.space_id) if event.key_id else None
    return {"id": public_id("key", event.key_id) if event.key_id else None, "prefix": row.prefix if row is not None else None}


async def _server(connection: AsyncConnection, caller: Caller, event: Event) -> dict[str, Any] | None:
    if event.server_id is None:
        return None
    row = await find_server(connection, event.server_id, caller.space_id) if caller.granted(event.server_id) else None
    return {"uuid": event.server_id, "slug": row["slug"] if row is not None else None, "name": row["name"] if row is not None else None}


_PATH = "/api/logs"
ROUTES = [
    Route("GET", _PATH, "read:servers", list_logs, "List requests", "Logs", output=RequestList),
    Route("GET", _PATH + "/{request_id}", "read:servers", get_log, "The story of a request", "Logs", output=RequestStory),
]
