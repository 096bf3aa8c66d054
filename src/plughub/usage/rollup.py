"""Counting the log into cells, each row exactly once: the cursor moves in the transaction that writes the cells."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import and_, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.engine import Database
from plughub.db.tables import event, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.usage_tables import usage_cell, usage_cursor
from plughub.usage.cells import CLASSES, GRAIN_S, Grain, LogRow, Place, Tally, bounded, coarser, fold
from plughub.usage.sketch import merged

# Rows of the log counted in one transaction.
AT_ONCE = 5_000
# Of one server and key in a minute, an hour or a day; servers name their tools as they like.
MAX_TOOLS = 200
OTHER: Final = "(other)"
DAY_S = 86_400
# How long the cells of a grain are kept.
KEPT_S: Final[Mapping[Grain, int]] = {"minute": 2 * DAY_S, "hour": 35 * DAY_S, "day": 400 * DAY_S}
# Pieces of time whose cells go in one transaction.
_PRUNED_AT_ONCE = 10
# More than so many ids in a list cost more than they save.
_LISTED = 200
_PLACE = ("start", "kind", "key_id", "server_id", "tool")
_COUNTED = (*CLASSES, "bytes_in", "bytes_out")
_COLUMNS = ("space_id", "grain", *_PLACE, *_COUNTED, "digest")
# As text: SQLAlchemy would build so wide a statement anew for each number of rows.
_ADD = text(
    f"INSERT INTO usage_cell ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"
    f" ON CONFLICT (space_id, grain, {', '.join(_PLACE)}) DO UPDATE SET "
    + ", ".join(f"{name} = usage_cell.{name} + excluded.{name}" for name in _COUNTED)
    + ", digest = excluded.digest"
)
_BEGIN = text("INSERT INTO usage_cursor (space_id, seq) VALUES (:space_id, 0) ON CONFLICT DO NOTHING")


async def roll_up(database: Database, at_once: int = AT_ONCE) -> int:
    """Count everything that is in the log; how many numbers of events that were. Several processes may do it at once."""
    counted = 0
    async with database.read() as connection:
        behind = await list_behind(connection)
    for space_id, until in behind.items():
        step = 1
        while step:
            step = await roll_space(database, space_id, until, at_once)
            counted += step
    return counted


async def list_behind(connection: AsyncConnection) -> dict[str, int]:
    """The spaces whose log is longer than what was counted of it, and how long it is."""
    query = select(space.c.id, space.c.seq).outerjoin(usage_cursor, usage_cursor.c.space_id == space.c.id)
    query = query.where(space.c.seq > func.coalesce(usage_cursor.c.seq, 0))
    return {row.id: row.seq for row in await connection.execute(query)}


async def roll_space(database: Database, space_id: str, until: int, at_once: int = AT_ONCE) -> int:
    """Count the next events of a space up to number `until`, which is committed; how many numbers, 0 = all are counted.

    The rows are read before the transaction: what was committed changes no more. Of two that count the same, one moves the cursor, and
    the other one's work is dropped.
    """
    async with database.read() as connection:
        begin = await read_cursor(connection, space_id)
        end = min(until, begin + at_once)
        if end <= begin:
            return 0
        rows = await read_log(connection, space_id, begin, end)
    minutes = await asyncio.to_thread(fold, rows)
    async with database.unit_of_work() as uow:
        await uow.execute(_BEGIN, {"space_id": space_id})
        moved = update(usage_cursor).where(usage_cursor.c.space_id == space_id, usage_cursor.c.seq == begin).values(seq=end)
        if (await uow.execute(moved)).rowcount and minutes:
            for grain in GRAIN_S:
                await _add(uow, space_id, grain, minutes if grain == "minute" else coarser(minutes, grain))
    return end - begin


async def read_cursor(connection: AsyncConnection, space_id: str) -> int:
    """How far a space is counted."""
    return (await connection.execute(select(usage_cursor.c.seq).where(usage_cursor.c.space_id == space_id))).scalar() or 0


async def read_log(connection: AsyncConnection, space_id: str, after: int, until: int) -> list[LogRow]:
    """The rows of a space's log with numbers in between, `until` included. By number alone: the names are looked at afterwards."""
    columns = [event.c[name] for name in LogRow._fields]
    query = select(*columns).where(event.c.space_id == space_id, event.c.seq > after, event.c.seq <= until).order_by(event.c.seq)
    return [LogRow(*row) for row in await connection.execute(query)]


async def prune(uow: UnitOfWork, grain: Grain) -> bool:
    """Remove the oldest of a grain's cells that are kept no longer, a few pieces of time at most; whether there were any."""
    before = int(uow.clock.time()) - KEPT_S[grain]
    oldest = (await uow.execute(select(func.min(usage_cell.c.start)).where(usage_cell.c.grain == grain))).scalar()
    if oldest is None or oldest >= before:
        return False
    until = min(before, oldest + _PRUNED_AT_ONCE * GRAIN_S[grain])
    await uow.execute(delete(usage_cell).where(usage_cell.c.grain == grain, usage_cell.c.start < until))
    return True


async def _add(uow: UnitOfWork, space_id: str, grain: Grain, cells: Mapping[Place, Tally]) -> None:
    known = await _known(uow, space_id, grain, list(cells))
    rows: dict[Place, Tally] = {}
    for place, tally in bounded(cells, known, MAX_TOOLS, OTHER):
        rows.setdefault(place, Tally()).add(tally)
    await uow.execute(_ADD, [_row(space_id, grain, place, rows[place], known.get(place)) for place in sorted(rows)])


async def _known(uow: UnitOfWork, space_id: str, grain: Grain, places: Sequence[Place]) -> dict[Place, bytes | None]:
    """The sketches of the cells that are there already, of every tool of the servers and keys in question."""
    starts, servers, keys = ({place[n] for place in places} for n in (0, 3, 2))
    columns = [usage_cell.c[name] for name in _PLACE]
    conditions = and_(
        usage_cell.c.space_id == space_id,
        usage_cell.c.grain == grain,
        usage_cell.c.start.in_(starts),
        *([usage_cell.c.key_id.in_(keys)] if len(keys) <= _LISTED else []),
        *([usage_cell.c.server_id.in_(servers)] if len(servers) <= _LISTED else []),
    )
    found = await uow.execute(select(*columns, usage_cell.c.digest).where(conditions))
    return {Place._make(row[:-1]): row.digest for row in found}


def _row(space_id: str, grain: Grain, place: Place, tally: Tally, digest: bytes | None) -> dict[str, Any]:
    counts = dict(zip(CLASSES, tally.counts, strict=True))
    sizes = {"bytes_in": tally.bytes_in, "bytes_out": tally.bytes_out}
    return {"space_id": space_id, "grain": grain, **place._asdict(), **counts, **sizes, "digest": merged(digest, tally.durations_us)}
