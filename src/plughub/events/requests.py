"""The log of requests: the rows of tool calls and of every other request of a known caller, newest first.

There is no index on request ids and none on most filters. Rows are read by time through the index (space, name, at), or with a
server through (server, name, at), one name after the other, and one answer looks at no more than `EXAMINED` rows of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from plughub.db.tables import event
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import REQUEST_COMPLETED, REQUESTS
from plughub.events.log import event_of
from plughub.kit.caller import Caller
from plughub.kit.ids import REQUEST_STEP_S, request_time

EXAMINED = 50_000
# A row carries the time of its end: most follow their beginning at once, a tool call at the latest after the times for a start and a
# call (330 s by default), a stream when its client leaves.
_STREAMS_S = 86_400.0
_WINDOWS_S = (2.0, 30.0, 900.0, _STREAMS_S)
HTTP_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
# (at, seq) of the last row of a page.
Position = tuple[float, int]
Columns = ReadOnlyColumnCollection[str, Any]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """What to look for; None = anything. `status` is ok, error or an error code; `method` an HTTP or MCP method; times in epoch s."""

    server_id: str | None = None
    status: str | None = None
    tool: str | None = None
    door: str | None = None
    method: str | None = None
    since: float | None = None
    until: float | None = None
    key_id: str | None = None


@dataclass(slots=True)
class RequestPage:
    """`next` is what the next page comes after; a page that is not full has one too when enough rows were looked at for one answer."""

    rows: Sequence[Event]
    next: Position | None


async def list_requests(
    connection: AsyncConnection, caller: Caller, wanted: RequestFilter, after: Position | None, limit: int, examined: int = EXAMINED
) -> RequestPage:
    """The requests that the caller may see, newest first, after `after`; looks at `examined` rows of each name."""
    found: list[Event] = []
    cut: Position | None = None
    for name in REQUESTS:
        rows, reached = await _of_name(connection, caller, name, wanted, after, (limit, examined))
        found += rows
        if reached is not None and (cut is None or reached > cut):
            cut = reached
    # Older than where one name was left there may be rows of that name.
    found = sorted((row for row in found if cut is None or _position(row) >= cut), key=_position, reverse=True)
    if len(found) > limit:
        return RequestPage(found[:limit], _position(found[limit - 1]))
    return RequestPage(found, cut)


async def find_request(connection: AsyncConnection, caller: Caller, request_id: str) -> Event | None:
    """The row of one request that the caller may see. The id tells when it came."""
    at = request_time(request_id)
    if at is None:
        return None
    begin = at - REQUEST_STEP_S
    for until_s in _WINDOWS_S:
        # One name at a time: several together lead SQLite away from the index, over the whole table.
        for name in REQUESTS if until_s != _STREAMS_S else (REQUEST_COMPLETED,):
            query = select(event).where(
                event.c.space_id == caller.space_id,
                event.c.name == name,
                event.c.at >= begin,
                event.c.at < at + until_s,
                event.c.request_id == request_id,
                *_grant(event.c, caller),
            )
            row = (await connection.execute(query.limit(1))).mappings().first()
            if row is not None:
                return event_of(row)
        begin = at + until_s
    return None


async def _of_name(
    connection: AsyncConnection, caller: Caller, name: str, wanted: RequestFilter, after: Position | None, bounds: tuple[int, int]
) -> tuple[list[Event], Position | None]:
    """The matching rows of one name, at most one more than the limit, and how far it was looked when that was not to the end.

    `bounds`: the limit, and how many rows are looked at.
    """
    limit, most = bounds
    # A subquery with a limit: it is read in the order of its index and no further than needed, whatever the conditions outside.
    order = (event.c.at.desc(), event.c.seq.desc())
    examined = select(event).where(*_range(caller, name, wanted, after)).order_by(*order)
    inner = examined.limit(most).subquery()
    conditions = (inner.c.space_id == caller.space_id, *_grant(inner.c, caller), *_matches(inner.c, wanted))
    # Without an order of its own: the rows come in that of the subquery, and to be told so again would have them all sorted.
    query = select(inner).where(*conditions).limit(limit + 1)
    rows = [event_of(row) for row in (await connection.execute(query)).mappings()]
    if len(rows) > limit:
        return rows, None
    last = (await connection.execute(examined.with_only_columns(event.c.at, event.c.seq).offset(most - 1).limit(1))).first()
    return rows, None if last is None else (last.at, last.seq)


def _range(caller: Caller, name: str, wanted: RequestFilter, after: Position | None) -> Iterator[ColumnElement[bool]]:
    """Where in an index the rows of a name are: among those of the server, or of the space."""
    yield event.c.name == name
    # With a server the space is looked at outside: here it would lead to the other index.
    yield event.c.space_id == caller.space_id if wanted.server_id is None else event.c.server_id == wanted.server_id
    if wanted.since is not None:
        yield event.c.at >= wanted.since
    if wanted.until is not None:
        yield event.c.at < wanted.until
    if after is not None:
        yield event.c.at <= after[0]
        yield or_(event.c.at < after[0], event.c.seq < after[1])


def _grant(columns: Columns, caller: Caller) -> Iterator[ColumnElement[bool]]:
    """A key with a server list sees the requests to those servers, and its own."""
    if caller.servers is not None:
        yield or_(columns.server_id.in_(caller.servers), columns.key_id == caller.key_id)


def _matches(columns: Columns, wanted: RequestFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.status in ("ok", "error"):
        yield columns.is_error == (wanted.status == "error")
    elif wanted.status is not None:
        yield columns.outcome == wanted.status
    if wanted.key_id is not None:
        yield columns.key_id == wanted.key_id
    if wanted.tool is not None:
        yield columns.tool == wanted.tool
    if wanted.door is not None:
        yield columns.door == wanted.door
    if wanted.method is not None:
        yield _method(columns, wanted.method)


def _method(columns: Columns, method: str) -> ColumnElement[bool]:
    """An HTTP method, or a method of MCP; the rows of tool calls hold neither, and need not."""
    key = "method" if method in HTTP_METHODS else "rpc"
    told = and_(columns.name == REQUEST_COMPLETED, columns.data.contains(f'"{key}":"{method}"', autoescape=True))
    if method == "POST":
        return or_(told, columns.name != REQUEST_COMPLETED)
    if method == "tools/call":
        return or_(told, and_(columns.name != REQUEST_COMPLETED, columns.door == "mcp"))
    return told


def _position(row: Event) -> Position:
    return row.at, row.seq
