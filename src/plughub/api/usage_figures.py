"""Usage as both dialects show it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import server
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Invalid
from plughub.usage.cells import CLASSES, OK, Place
from plughub.usage.reading import Figures, Span, Usage

DAY_S = 86_400
MOST_DAYS = 366
# A rolled day is kept so long.
_FAR_BACK_DAYS = 400


def shown(figures: Figures) -> dict[str, Any]:
    """The figures of a group."""
    p50, p95, p99 = figures.percentiles_ms()
    return {
        "requests": figures.requests,
        "calls": figures.calls,
        "errors": figures.errors,
        "error_rate": round(figures.errors / figures.calls, 4) if figures.calls else 0.0,
        "by_status": by_class(figures.counts),
        "bytes_in": figures.bytes_in,
        "bytes_out": figures.bytes_out,
        "latency_ms": {"p50": _round(p50), "p95": _round(p95), "p99": _round(p99)},
    }


def by_class(counts: Iterable[int]) -> dict[str, int]:
    """Counts by the name of their class."""
    return dict(zip(CLASSES, counts, strict=True))


def frame(span: Span, usage: Usage) -> dict[str, Any]:
    """Which time it is of."""
    as_of = None if usage.as_of is None else rfc3339(usage.as_of)
    return {"since": rfc3339(span.begin), "until": rfc3339(span.end), "as_of": as_of}


def by_day(usage: Usage, span: Span) -> dict[str, Figures]:
    """The figures of every day of the span by date, oldest first; days without any are there too."""
    found = usage.by(lambda place: date_of(place.start))
    first, last = span.begin // DAY_S, (span.end - 1) // DAY_S
    return {date: found.get(date, Figures()) for date in (date_of(day * DAY_S) for day in range(first, last + 1))}


def by_server(usage: Usage) -> dict[str, Figures]:
    """The figures of every server that was asked something, the most asked first."""
    return _ordered(usage.by(lambda place: place.server_id or None))


def by_tool(usage: Usage) -> dict[tuple[str, str], Figures]:
    """The figures of every tool, the most called first."""
    return _ordered(usage.by(_tool))


async def names_of(connection: AsyncConnection, space_id: str, server_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name and slug of servers that are still there."""
    query = select(server.c.id, server.c.name, server.c.slug).where(server.c.space_id == space_id, server.c.id.in_(list(server_ids)))
    return {row.id: (row.name, row.slug) for row in await connection.execute(query)}


def span_of_dates(start: str | None, end: str | None, now: float) -> Span | None:
    """The days from one date to another, both included; None without a start. Raises Invalid."""
    first, last = _day(start, "start_date"), _day(end, "end_date")
    if first is None:
        if last is not None:
            raise Invalid("start_date", "The 'start_date' field is required with end_date")
        return None
    today = int(now // DAY_S)
    last = today if last is None else last
    if last < first:
        raise Invalid("end_date", "The 'end_date' field must not be before start_date", end)
    if last - first >= MOST_DAYS:
        raise Invalid("start_date", f"The 'start_date' field is more than {MOST_DAYS} days before the end", start)
    return Span(max(first, today - _FAR_BACK_DAYS) * DAY_S, (last + 1) * DAY_S, "day")


def date_of(start: int) -> str:
    """The date in UTC."""
    return datetime.fromtimestamp(start, UTC).date().isoformat()


def succeeded(figures: Figures) -> dict[str, int]:
    """How all requests went."""
    return {"success": figures.all_counts[OK], "error": figures.requests - figures.all_counts[OK]}


def _ordered(found: Mapping[Any, Figures]) -> dict[Any, Figures]:
    return dict(sorted(found.items(), key=lambda item: (-item[1].calls, -item[1].requests, item[0])))


def _tool(place: Place) -> tuple[str, str] | None:
    return (place.server_id, place.tool) if place.tool else None


def _day(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise Invalid(field, f"The '{field}' field must be a date, YYYY-MM-DD", text[:50]) from error
    return int(day.timestamp() // DAY_S)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
