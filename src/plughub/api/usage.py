"""Usage over REST: of one key, and of everything, by server, tool or key, by minute, hour or day; as JSON or CSV."""

import asyncio
import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api import usage_figures as figures
from plughub.api.framework import CallerDep, HubDep, ReadDep
from plughub.api.keys import shown_flag
from plughub.api.logs import shown_row
from plughub.api.models import Success
from plughub.api.reply import Offset, public_or_404, reply, success
from plughub.api.usage_shapes import KeyUsageOut, UsageList, V1KeyUsage, V1Usage
from plughub.door.routes import Route
from plughub.events.requests import RequestFilter, list_requests
from plughub.keys import service as keys
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Invalid, KeyNotFound
from plughub.kit.ids import parse_public_id, public_id
from plughub.usage.cells import CLASSES, Grain, Place
from plughub.usage.flags import list_flags
from plughub.usage.reading import Figures, Period, Span, Usage, UsageFilter, read_usage, span_of

MOST_TOOLS, MOST_RECENT = 100, 20
_FINE_SPANS = ("hour", "day")
_COLUMNS = ("at", "server_uuid", "tool", "key_id", "requests", "calls", "errors", "error_rate", "bytes_in", "bytes_out")
_PERCENTILES = ("p50", "p95", "p99")
KeyPeriod = Annotated[Literal["day", "week", "month"], Query(description="The last 24 hours, 7 or 30 days (UTC, today included)")]
Date = Annotated[str | None, Query(max_length=50, description="YYYY-MM-DD, in the place of `period`; both ends are included")]


class Wanted(BaseModel):
    """What to count, and by what. A period ends now; its days are those of UTC."""

    period: Period = "day"
    dimension: Literal["none", "server", "tool", "key"] = "none"
    granularity: Literal["none", "minute", "hour", "day"] = Field("none", description="`minute` for an hour or a day")
    server: str | None = Field(None, max_length=100, description="The server's uuid or `mcp_` id")
    key: str | None = Field(None, max_length=100, description="The key's id")
    tool: str | None = Field(None, max_length=256)
    format: Literal["json", "csv"] | None = Field(None, description="The same as `Accept: text/csv`")
    limit: int = Field(100, ge=1, le=1000)
    offset: Offset = 0


async def read(caller: CallerDep, connection: ReadDep, hub: HubDep, request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
    """What was called in the caller's environment. A key with a server list sees what went to those servers, and its own."""
    grain: Grain | None = None if wanted.granularity == "none" else wanted.granularity
    if grain == "minute" and wanted.period not in _FINE_SPANS:
        raise Invalid("granularity", "The 'granularity' field can be minute for the periods hour and day alone", grain)
    span = span_of(wanted.period, hub.clock.time(), grain)
    usage = await read_usage(connection, caller.space_id, span, _filter(caller, wanted))
    as_csv = wanted.format == "csv" or (wanted.format is None and "text/csv" in request.headers.get("accept", ""))
    # Of many keys and tools it takes a while, in which others go on.
    return await asyncio.to_thread(_answer, wanted, span, usage, as_csv=as_csv)


async def of_key(caller: CallerDep, connection: ReadDep, hub: HubDep, key_id: str, period: KeyPeriod = "week") -> Response:
    """What one key did: in all, by day, server, tool and outcome; its newest requests, where it was used from, and its flags."""
    key = await keys.get_key(connection, caller, public_or_404("key", key_id, KeyNotFound.message))
    now = hub.clock.time()
    span = span_of(period, now)
    usage = await read_usage(connection, caller.space_id, span, UsageFilter(who=caller, key_id=key.id))
    names = await figures.names_of(connection, caller.space_id, usage.server_ids())
    recent = await list_requests(connection, caller, RequestFilter(key_id=key.id), None, MOST_RECENT)
    flags = (await list_flags(connection, [key.id], now)).get(key.id, ())
    body = {
        "key_id": public_id("key", key.id),
        "period": period,
        **figures.frame(span, usage),
        **await asyncio.to_thread(_parts, span, usage, names),
        "recent": [shown_row(event) for event in recent.rows],
        "addresses": [
            {"address": seen.address, "first_seen_at": rfc3339(seen.first_seen_at), "last_seen_at": rfc3339(seen.last_seen_at)}
            for seen in await keys.list_addresses(connection, key)
        ],
        "flags": [shown_flag(flag) for flag in flags],
    }
    return reply(body)


async def v1_of_key(
    caller: CallerDep,
    connection: ReadDep,
    hub: HubDep,
    key_id: str,
    period: KeyPeriod = "month",
    start_date: Date = None,
    end_date: Date = None,
) -> Response:
    """What one key did, in the words of the documents."""
    key = await keys.get_key(connection, caller, public_or_404("key", key_id, KeyNotFound.message))
    now = hub.clock.time()
    span = figures.span_of_dates(start_date, end_date, now) or span_of(period, now)
    usage = await read_usage(connection, caller.space_id, span, UsageFilter(who=caller, key_id=key.id), times=False)
    body = {
        "key_id": public_id("key", key.id),
        "total_requests": usage.figures().requests,
        **await _v1_parts(connection, caller, period, span, usage),
    }
    return success(body)


async def v1_read(
    caller: CallerDep,
    connection: ReadDep,
    hub: HubDep,
    period: KeyPeriod = "month",
    start_date: Date = None,
    end_date: Date = None,
) -> Response:
    """What the organization did in the caller's environment. Requests are limited by the hour here: `limit` is null."""
    now = hub.clock.time()
    span = figures.span_of_dates(start_date, end_date, now) or span_of(period, now)
    usage = await read_usage(connection, caller.space_id, span, UsageFilter(who=caller), times=False)
    requests = {"total": usage.figures().requests, "limit": None, "percentage": None}
    return success({"requests": requests, **await _v1_parts(connection, caller, period, span, usage)})


def _parts(span: Span, usage: Usage, names: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The figures of a key: in all, by day, server, tool and outcome."""
    totals = usage.figures()
    return {
        "totals": figures.shown(totals),
        "by_day": [{"date": date, **figures.shown(found)} for date, found in figures.by_day(usage, span).items()],
        "by_server": [_server(server_id, found, names) for server_id, found in figures.by_server(usage).items()],
        "by_tool": [
            {"server_uuid": server_id, "tool": tool, **figures.shown(found)}
            for (server_id, tool), found in list(figures.by_tool(usage).items())[:MOST_TOOLS]
        ],
        "by_status": figures.by_class(totals.all_counts),
    }


async def _v1_parts(connection: AsyncConnection, caller: Caller, period: str, span: Span, usage: Usage) -> dict[str, Any]:
    by_server = figures.by_server(usage)
    names = await figures.names_of(connection, caller.space_id, by_server)
    return {
        "period": period,
        "start_date": figures.date_of(span.begin),
        "end_date": figures.date_of(span.end - 1),
        "by_mcp": [
            {"mcp_id": public_id("mcp", server_id), "name": names.get(server_id, (None, None))[0], "requests": found.requests}
            for server_id, found in by_server.items()
        ],
        "by_day": [{"date": date, "requests": found.requests} for date, found in figures.by_day(usage, span).items()],
        "by_status": figures.succeeded(usage.figures()),
    }


def _answer(wanted: Wanted, span: Span, usage: Usage, *, as_csv: bool) -> Response:
    groups = _groups(usage, wanted.dimension, timed=wanted.granularity != "none")
    if as_csv:
        return _csv([_row(*group) for group in groups])
    body = {
        "usage": [_row(*group) for group in groups[wanted.offset : wanted.offset + wanted.limit]],
        "total": len(groups),
        "limit": wanted.limit,
        "offset": wanted.offset,
        **{name: getattr(wanted, name) for name in ("period", "dimension", "granularity")},
        **figures.frame(span, usage),
        "totals": figures.shown(usage.figures()),
    }
    return reply(body)


def _filter(caller: Caller, wanted: Wanted) -> UsageFilter:
    ids: dict[str, str | None] = {}
    for name, prefix in (("server", "mcp"), ("key", "key")):
        text: str | None = getattr(wanted, name)
        ids[name] = parse_public_id(prefix, text) if text is not None else None
        if text is not None and ids[name] is None:
            raise Invalid(name, f"The '{name}' field is no id of a {name}", text)
    tool = wanted.tool.replace("\0", "\ufffd") if wanted.tool is not None else None
    return UsageFilter(caller, ids["server"], ids["key"], tool)


# (start, server, tool, key), None for what it is not grouped by.
_Group = tuple[int | None, str | None, str | None, str | None]


def _groups(usage: Usage, dimension: str, *, timed: bool) -> list[tuple[_Group, Figures]]:
    """The groups that there is anything of: in order of time, then the most called first."""

    def group(place: Place) -> _Group | None:
        start = place.start if timed else None
        if dimension == "server":
            return (start, place.server_id, None, None) if place.server_id else None
        if dimension == "tool":
            return (start, place.server_id, place.tool, None) if place.tool else None
        if dimension == "key":
            return (start, None, None, place.key_id) if place.key_id else None
        return (start, None, None, None)

    def order(item: tuple[_Group, Figures]) -> tuple[Any, ...]:
        found, its = item
        return (found[0] or 0, -its.calls, -its.requests, *(part or "" for part in found[1:]))

    return sorted(usage.by(group).items(), key=order)


def _row(group: _Group, found: Figures) -> dict[str, Any]:
    start, server_id, tool, key_id = group
    return {
        "at": None if start is None else rfc3339(start),
        "server_uuid": server_id,
        "tool": tool,
        "key_id": None if key_id is None else public_id("key", key_id),
        **figures.shown(found),
    }


def _server(server_id: str, found: Figures, names: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    name, slug = names.get(server_id, (None, None))
    return {"server_uuid": server_id, "name": name, "slug": slug, **figures.shown(found)}


def _csv(rows: Sequence[dict[str, Any]]) -> Response:
    """All groups, one a line (RFC 4180). A name of a tool that a spreadsheet would take for a formula gets a quote before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    classes = CLASSES
    writer.writerow([*_COLUMNS, *classes, *(f"latency_{name}_ms" for name in _PERCENTILES)])
    for row in rows:
        values = [*(row[name] for name in _COLUMNS), *(row["by_status"][name] for name in classes)]
        values += [row["latency_ms"][name] for name in _PERCENTILES]
        writer.writerow([f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value for value in values])
    return Response(text.getvalue(), media_type="text/csv", headers={"Content-Disposition": 'attachment; filename="usage.csv"'})


_SCOPE = "read:usage"
ROUTES = [
    Route("GET", "/api/usage", _SCOPE, read, "Read usage", "Usage", output=UsageList, other_kinds=("text/csv",)),
    Route("GET", "/api/auth/keys/{key_id}/usage", _SCOPE, of_key, "Usage of a key", "Usage", output=KeyUsageOut, secret=True),
    Route(
        "GET",
        "/v1/api-keys/{key_id}/usage",
        _SCOPE,
        v1_of_key,
        "Usage of a key",
        "Usage (v1)",
        "v1",
        output=Success[V1KeyUsage],
        secret=True,
    ),
    Route("GET", "/v1/usage", _SCOPE, v1_read, "Read usage", "Usage (v1)", "v1", output=Success[V1Usage]),
    Route("GET", "/v1/organization/usage", _SCOPE, v1_read, "Read usage", "Usage (v1)", "v1", output=Success[V1Usage]),
    Route("GET", "/v1/usage/history", _SCOPE, v1_read, "Read usage day by day", "Usage (v1)", "v1", output=Success[V1Usage]),
]
