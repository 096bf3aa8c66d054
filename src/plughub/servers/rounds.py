"""When each server is looked at next: taken by one process at a time, spread in time, seldom where nobody is or nothing answers."""

import random
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event, server
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.watch_tables import server_state

# A server that fails is looked at less and less often, down to this.
MOST_S = 900.0
# So seldom is every server of a space in which nothing has happened for so long.
IDLE_EVERY_S = 3600.0
IDLE_AFTER_S = 7 * 86_400.0
# Of an interval, each way: what was due together is not due together for ever.
_SPREAD = 0.1
_ENTERED = 500  # at once


@dataclass(frozen=True, slots=True)
class Due:
    """A server to look at now. `failures`: so many looks have failed in a row."""

    server_id: str
    space_id: str
    failures: int


async def has_due(connection: AsyncConnection, now: float, connected: Collection[str]) -> bool:
    """Whether a claim would find anything: asked first, because a claim takes the write lock."""
    query = select(server.c.id).join(server_state, _same()).where(_due(now, connected))
    return (await connection.execute(query.limit(1))).first() is not None


async def claim(uow: UnitOfWork, connected: Collection[str], interval_s: float, limit: int) -> list[Due]:
    """Take at most `limit` servers that are due, the longest due first: remote ones, and of the commands the `connected` ones.

    They are due again an interval later, whatever becomes of whoever has taken them. A server that was never taken gets its first time
    at random within the interval.
    """
    now = uow.clock.time()
    # SKIP LOCKED: processes pass each other instead of queueing; on SQLite the transaction is alone.
    query = (
        select(server.c.id, server.c.space_id, server_state.c.failures)
        .join(server_state, _same())
        .where(_taken(connected), server_state.c.probe_at <= now)
        .order_by(server_state.c.probe_at, server.c.id)
        .limit(limit)
        .with_for_update(of=server_state, skip_locked=True)
    )
    found = [Due(row.id, row.space_id, row.failures) for row in (await uow.execute(query)).all()]
    idle = {space_id for space_id in {due.space_id for due in found} if await _is_idle(uow.connection, space_id, now)}
    for every_s, ids in (
        (interval_s, [due.server_id for due in found if due.space_id not in idle]),
        (max(IDLE_EVERY_S, interval_s), [due.server_id for due in found if due.space_id in idle]),
    ):
        if ids:
            await uow.execute(update(server_state).where(server_state.c.server_id.in_(ids)).values(probe_at=now + _spread(every_s)))
    # After it, so that no row is changed twice: the second change would hold its server's row, which somebody may have.
    await _enter(uow, connected, interval_s)
    return found


async def settle(uow: UnitOfWork, due: Due, interval_s: float, *, good: bool) -> None:
    """How the look went, when that changes when the next one is."""
    if good and not due.failures:
        return  # as the claim has left it
    failures = 0 if good else min(due.failures + 1, 30)
    values: dict[str, float] = {"failures": failures}
    if failures:
        values["probe_at"] = uow.clock.time() + _spread(max(interval_s, min(MOST_S, interval_s * 2.0**failures)))
    await uow.execute(update(server_state).where(server_state.c.server_id == due.server_id).values(**values))


async def _enter(uow: UnitOfWork, connected: Collection[str], interval_s: float) -> None:
    """Give servers without a time their first one."""
    timeless = select(server_state.c.server_id).join(server, _same()).where(_taken(connected), server_state.c.probe_at.is_(None))
    query = timeless.limit(_ENTERED).with_for_update(of=server_state, skip_locked=True)
    ids = (await uow.execute(query)).scalars().all()
    if ids:
        first = update(server_state).where(server_state.c.server_id == bindparam("id")).values(probe_at=bindparam("at"))
        await uow.connection.execute(first, [{"id": id_, "at": uow.clock.time() + random.uniform(0, interval_s)} for id_ in ids])


async def _is_idle(connection: AsyncConnection, space_id: str, now: float) -> bool:
    newest = select(event.c.at).where(event.c.space_id == space_id).order_by(event.c.seq.desc()).limit(1)
    at = (await connection.execute(newest)).scalar()
    return at is not None and at < now - IDLE_AFTER_S


def _taken(connected: Collection[str]) -> ColumnElement[bool]:
    """What is looked at at all: a command that rests is never started for it."""
    return server.c.enabled & or_(server.c.transport != "STDIO", server.c.id.in_(connected))


def _due(now: float, connected: Collection[str]) -> ColumnElement[bool]:
    return _taken(connected) & or_(server_state.c.probe_at.is_(None), server_state.c.probe_at <= now)


def _same() -> ColumnElement[bool]:
    return server_state.c.server_id == server.c.id


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)
