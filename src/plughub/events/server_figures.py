"""What the log tells of the calls to one server: counted in the index (server, name, at, is_error, duration_us), not in the rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event
from plughub.events.catalogue import TOOL_CALLS, TOOL_EXECUTED

DAY_S = 86_400
DAYS = 30
# Percentiles are of the newest calls: so many say enough, and are read in milliseconds.
SAMPLE = 10_000


@dataclass(frozen=True, slots=True)
class Day:
    """One day in UTC, from `begin` (epoch seconds) on."""

    begin: int
    calls: int
    errors: int


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """`days`: the last 30, oldest first, today included. `durations_us`: of the newest calls that were answered, in order of size."""

    days: list[Day]
    durations_us: list[int]
    last_at: float | None


@dataclass(frozen=True, slots=True)
class Called:
    """How often a server was called in the last 30 days, and when last (epoch seconds)."""

    calls: int = 0
    last_at: float | None = None


async def count_calls(connection: AsyncConnection, server_ids: Sequence[str], now: float) -> dict[str, Called]:
    """The calls of several servers; those that were not called are left out."""
    since = int(now // DAY_S - DAYS + 1) * DAY_S
    found: dict[str, Called] = {}
    # One name at a time: several together lead SQLite away from the index.
    for name in TOOL_CALLS:
        of_servers = (event.c.server_id.in_(server_ids), event.c.name == name, event.c.at >= since)
        query = select(event.c.server_id, func.count(), func.max(event.c.at)).where(*of_servers).group_by(event.c.server_id)
        for server_id, calls, last_at in await connection.execute(query):
            before = found.get(server_id, Called())
            found[server_id] = Called(before.calls + calls, max(last_at, before.last_at or last_at))
    return found


async def read_figures(connection: AsyncConnection, server_id: str, now: float) -> ServerFigures:
    """The calls of the last 30 days."""
    today = int(now // DAY_S) * DAY_S
    # A range a day: half the time of one query that groups.
    days = [await _day(connection, server_id, today - back * DAY_S) for back in range(DAYS - 1, -1, -1)]
    of_server = (event.c.server_id == server_id, event.c.at >= days[0].begin)
    sample = select(event.c.duration_us).where(*of_server, event.c.name == TOOL_EXECUTED).order_by(event.c.at.desc()).limit(SAMPLE)
    durations = (await connection.execute(sample)).scalars().all()
    last = [await connection.scalar(select(func.max(event.c.at)).where(*of_server, event.c.name == name)) for name in TOOL_CALLS]
    return ServerFigures(days, sorted(durations), max((at for at in last if at is not None), default=None))


async def _day(connection: AsyncConnection, server_id: str, begin: int) -> Day:
    conditions: list[ColumnElement[bool]] = [event.c.server_id == server_id, event.c.name.in_(TOOL_CALLS)]
    conditions += [event.c.at >= begin, event.c.at < begin + DAY_S]
    failed = func.coalesce(func.sum(event.c.is_error.cast(Integer)), 0)
    row = (await connection.execute(select(func.count(), failed).where(*conditions))).one()
    return Day(begin, row[0], int(row[1]))


def percentile(ordered: list[int], percent: int) -> int | None:
    """The nearest-rank percentile of values in order of size; None of none."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else None
