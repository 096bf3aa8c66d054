"""What the log tells of the calls to one server: counted in the index (server, name, at, is_error, duration_us), not in the rows."""

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
