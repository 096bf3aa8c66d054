"""The audit over REST: who did what, as a list, as an export, and in the documents' short form."""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from plughub.api.audit_shapes import ActivityList, AuditEntry, AuditList
from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep
from plughub.api.reply import reply
from plughub.db.audit import OK, Deed
from plughub.db.engine import Database
from plughub.door.routes import Route
from plughub.events.audit_log import AuditFilter, AuditRow, list_audit, list_in_order, names_of_actors
from plughub.kit.caller import Caller
from plughub.kit.clock import parse_rfc3339, rfc3339
from plughub.kit.errors import Forbidden, Invalid
from plughub.kit.ids import parse_public_id, public_id

EXPORTED = "audit.exported"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_KIND = re.compile(r"[a-z]+")
_PREFIXES = {
    "key": "key",
    "user": "user",
    "member": "user",
    "session": "ses",
    "invitation": "inv",
    "organization": "org",
    "webhook": "webhook",
}
# What a spreadsheet takes for a formula, in the widths that it reads (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
COLUMNS = (
    "seq",
    "timestamp",
    "action",
    "outcome",
    "actor_type",
    "actor_id",
    "object_type",
    "object_id",
    "object_name",
    "environment",
    "address",
    "request_id",
    "changes",
    "note",
)
Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.*-]*$", max_length=100)]
Text = Annotated[str | None, Field(max_length=100)]


class Wanted(BaseModel):
    """Filters. `start_date`, `end_date` and `user` are the documents' names of `since`, `until` and `actor`."""

    actor: Text = Field(None, description="The id of a key or of a person, or `hub`")
    user: Text = Field(None, description="The same as `actor`")
    action: Word | None = Field(None, description="`server.deleted` (or the documents' `server.delete`), or `server.*`")
    object: Text = Field(None, description="An id, or a kind: `server`, `key`, `project`, …")
    outcome: Word | None = Field(None, description="`ok`, `refused`, or an error code")
    since: Text = Field(None, description="RFC 3339; included")
    until: Text = Field(None, description="RFC 3339; not included")
    start_date: Text = Field(None, description="RFC 3339, or a day (UTC); included")
    end_date: Text = Field(None, description="RFC 3339, not included; or a day (UTC), included")


class WantedPage(Wanted):
    """Filters, and which page."""

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=100)


class WantedExport(Wanted):
    """Filters, and the form."""

    format: Literal["jsonl", "csv"] = "jsonl"


async def list_logs(caller: CallerDep, connection: ReadDep, wanted: Annotated[WantedPage, Query()]) -> Response:
    """Who did what in the organisation, to what, from where, and what changed; newest first, secrets as `***`.

    A key of the test environment sees its own environment and what belongs to neither; a key with a server list sees nothing.
    """
    page = await list_audit(connection, caller.organization_id, _filter(caller, wanted), _position(wanted.cursor), wanted.limit)
    names = await names_of_actors(connection, caller.organization_id, page.rows)
    cursor = str(page.next) if page.next is not None else None
    return reply({"audit_logs": [shown(row, names) for row in page.rows], "limit": wanted.limit, "next_cursor": cursor})


async def export_logs(caller: CallerDep, actor: ActorDep, hub: HubDep, wanted: Annotated[WantedExport, Query()]) -> Response:
    """The whole audit, or what the filters leave of it, oldest first: JSON Lines, or CSV that no spreadsheet takes for formulas.

    That it was exported is itself audited.
    """
    filters = _filter(caller, wanted)
    asked = wanted.model_dump(exclude_none=True)
    async with hub.database.unit_of_work(actor) as uow:
        uow.audit(Deed(EXPORTED, "audit", name=wanted.format, space_id=caller.space_id, note=asked))
    kind = "text/csv; charset=utf-8; header=present" if wanted.format == "csv" else "application/x-ndjson"
    headers = {"content-disposition": f'attachment; filename="audit.{wanted.format}"', "cache-control": "no-store"}
    parts = exported(hub.database, caller.organization_id, filters, wanted.format)
    # What goes wrong with the first is still answered as an error.
    first = await anext(parts)
    return StreamingResponse(_with_first(first, parts), media_type=kind, headers=headers)


async def list_activity(caller: CallerDep, connection: ReadDep, wanted: Annotated[WantedPage, Query()]) -> Response:
    """What was done in the organisation, newest first, in the documents' short form."""
    filters = replace(_filter(caller, wanted), outcome=OK)
    page = await list_audit(connection, caller.organization_id, filters, _position(wanted.cursor), wanted.limit)
    names = await names_of_actors(connection, caller.organization_id, page.rows)
    activities = [
        {
            "user": _name_of_actor(row, names),
            "action": _in_words(row.action),
            "resource": row.object_name or row.object_id or row.object_kind,
            "timestamp": rfc3339(row.at),
        }
        for row in page.rows
    ]
    return reply({"activities": activities, "limit": wanted.limit, "next_cursor": str(page.next) if page.next is not None else None})


async def exported(database: Database, organization_id: str, filters: AuditFilter, form: str) -> AsyncIterator[bytes]:
    """The rows in `form`, jsonl or csv, a few hundred at a time; at least one part."""
    after: int | None = 0
    written: Callable[[AuditRow, Mapping[str, str]], bytes] = csv_line if form == "csv" else _json_line
    head = _csv(COLUMNS) if form == "csv" else b""
    while after is not None:
        async with database.read() as connection:
            rows, after = await list_in_order(connection, organization_id, filters, after)
            names = await names_of_actors(connection, organization_id, rows)
        yield head + b"".join([written(row, names) for row in rows])
        head = b""


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def shown(row: AuditRow, names: Mapping[str, str]) -> dict[str, Any]:
    """The row as the API shows it; `names`: of keys and people, by id."""
    return {
        "seq": row.seq,
        "timestamp": rfc3339(row.at),
        "action": row.action,
        "outcome": row.outcome,
        "actor": {
            "type": row.actor_kind,
            "key_id": public_id("key", row.key_id) if row.key_id and row.actor_kind != "user" else None,  # a person's is their session
            "user_id": public_id("user", row.user_id) if row.user_id else None,
            "name": names.get(row.user_id or row.key_id or ""),
        },
        "object": {"type": row.object_kind, "id": _object_id(row), "name": row.object_name},
        "environment": row.environment,
        "address": row.address,
        "request_id": row.request_id,
        "changes": row.changes,
        "note": row.note,
    }


def csv_line(row: AuditRow, names: Mapping[str, str]) -> bytes:
    """The row as a line of CSV (RFC 4180), in the order of COLUMNS."""
    told = shown(row, names)
    actor, about = told["actor"], told["object"]
    cells = {
        **told,
        "actor_type": actor["type"],
        "actor_id": actor["user_id"] or actor["key_id"],
        **{f"object_{name}": about[name] for name in ("type", "id", "name")},
        "changes": msgspec.json.encode(row.changes).decode(),
        "note": msgspec.json.encode(row.note).decode(),
    }
    return _csv([cells[column] for column in COLUMNS])


def _csv(cells: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow([_harmless(cell) for cell in cells])
    return line.getvalue().encode("utf-8", "replace")


def _harmless(cell: Any) -> str:
    text = "" if cell is None else str(cell)
    return "'" + text if text.startswith(_FORMULA) else text


def _json_line(row: AuditRow, names: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(shown(row, names)) + b"\n"


def _object_id(row: AuditRow) -> str | None:
    prefix = _PREFIXES.get(row.object_kind)
    return public_id(prefix, row.object_id) if prefix and row.object_id and parse_public_id(prefix, row.object_id) else row.object_id


def _name_of_actor(row: AuditRow, names: Mapping[str, str]) -> str:
    if row.user_id is not None:
        return names.get(row.user_id, public_id("user", row.user_id))
    return names.get(row.key_id, public_id("key", row.key_id)) if row.key_id is not None else "hub"


def _in_words(action: str) -> str:
    what, _, done = action.rpartition(".")
    return f"{done}_{what}" if what else action


def _filter(caller: Caller, wanted: Wanted) -> AuditFilter:
    if caller.servers is not None:
        raise Forbidden("A key with a server list cannot read the audit", reason="server_list")
    return AuditFilter(
        actor=_actor("actor", wanted.actor) or _actor("user", wanted.user),
        action=wanted.action,
        object=_object(wanted.object),
        outcome=wanted.outcome,
        since=_time("since", wanted.since) or _time("start_date", wanted.start_date, day=0),
        until=_time("until", wanted.until) or _time("end_date", wanted.end_date, day=1),
        environment=None if caller.environment == "live" else caller.environment,
    )


def _actor(name: str, text: str | None) -> str | None:
    if text is None or text == "hub":
        return text
    found = parse_public_id("key", text) or parse_public_id("user", text)
    if found is None:
        raise Invalid(name, f"The '{name}' field is no id of a key or of a person", text)
    return found


def _object(text: str | None) -> str | None:
    if text is None or _KIND.fullmatch(text):
        return text
    found = parse_public_id(text.split("_", 1)[0], text)
    if found is None:
        raise Invalid("object", "The 'object' field is neither an id nor a kind of object", text)
    return found


def _time(name: str, text: str | None, *, day: int | None = None) -> float | None:
    """Epoch seconds; with `day` a date will do too, and stands for its beginning (0) or its end (1)."""
    if text is None:
        return None
    found = parse_rfc3339(text)
    if found is None and day is not None and _DAY.fullmatch(text):
        try:
            found = (datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=day)).timestamp()
        except (ValueError, OverflowError):
            found = None
    if found is None:
        raise Invalid(name, f"The '{name}' field must be an RFC 3339 time with its offset", text)
    return found


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise Invalid("cursor", "The 'cursor' field is no cursor of this list", cursor)
    return int(cursor)


_PATH = "/api/audit-logs"
ROUTES = [
    Route("GET", _PATH, "admin", list_logs, "Who did what", "Audit", output=AuditList),
    Route(
        "GET",
        _PATH + "/export",
        "admin",
        export_logs,
        "Export the audit",
        "Audit",
        output=AuditEntry,
        output_kind="application/x-ndjson",
        other_kinds=("text/csv",),
    ),
    Route("GET", "/api/organizations/activity", "admin", list_activity, "Activity of the organisation", "Audit", output=ActivityList),
]
