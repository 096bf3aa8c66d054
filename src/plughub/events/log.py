"""Reading the event log, and pruning what has grown old."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event, space
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.events.catalogue import REQUEST_COMPLETED, REQUESTS, TOOL_CALLS

PAGE = 500


async def list_since(connection: AsyncConnection, space_id: str, seq: int, limit: int = PAGE) -> list[Event]:
    """The events of a space after `seq`, in order, at most `limit`."""
    query = select(event).where(event.c.space_id == space_id, event.c.seq > seq).order_by(event.c.seq).limit(limit)
    return [event_of(row) for row in (await connection.execute(query)).mappings()]


class Head(NamedTuple):
    """How far a space's log goes. Public events up to `pruned_seq` may be gone."""

    organization_id: str
    epoch: str
    seq: int
    pruned_seq: int


async def read_head(connection: AsyncConnection, space_id: str) -> Head | None:
    """The head of a space's log; None when there is no such space."""
    query = select(space.c.organization_id, space.c.epoch, space.c.seq, space.c.pruned_seq).where(space.c.id == space_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Head(*row)


async def list_told(connection: AsyncConnection, space_id: str, after: int, until: int, limit: int = PAGE) -> list[Event]:
    """`list_since` up to and with `until`, without the many rows that are for the log of requests alone."""
    query = select(event).where(event.c.space_id == space_id, event.c.seq > after, event.c.seq <= until, event.c.name != REQUEST_COMPLETED)
    return [event_of(row) for row in (await connection.execute(query.order_by(event.c.seq).limit(limit))).mappings()]


async def list_changes(connection: AsyncConnection, change_no: int, limit: int = PAGE) -> list[Event]:
    """The management events of the whole hub after `change_no`, in order, at most `limit`."""
    query = select(event).where(event.c.change_no > change_no).order_by(event.c.change_no).limit(limit)
    return [event_of(row) for row in (await connection.execute(query)).mappings()]


async def list_lately(connection: AsyncConnection, space_id: str, name: str, since: float) -> list[Event]:
    """The events of that name in a space since then (epoch seconds), in order; for names that are rare."""
    query = select(event).where(event.c.space_id == space_id, event.c.name == name, event.c.at > since).order_by(event.c.seq).limit(PAGE)
    return [event_of(row) for row in (await connection.execute(query)).mappings()]


async def list_space_ids(connection: AsyncConnection) -> Sequence[str]:
    """Every space of the hub."""
    return (await connection.execute(select(space.c.id))).scalars().all()


async def prune_requests(uow: UnitOfWork, space_id: str, before_at: float, limit: int) -> int:
    """Remove at most `limit` rows of tool calls and other requests of a space from before `before_at`; the number removed."""
    removed = 0
    for name in REQUESTS:  # one at a time: several together lead SQLite away from the index, over the whole table
        old = select(event.c.seq).where(event.c.space_id == space_id, event.c.name == name, event.c.at < before_at)
        old = old.order_by(event.c.at).limit(limit - removed)
        if name in TOOL_CALLS:  # whoever was told of events up to an earlier one learns that some are gone
            newest = (await uow.execute(select(func.max(old.subquery().c.seq)))).scalar()
            if newest is not None:
                await uow.execute(update(space).where(space.c.id == space_id, space.c.pruned_seq < newest).values(pruned_seq=newest))
        done = await uow.execute(delete(event).where(event.c.space_id == space_id, event.c.seq.in_(old.scalar_subquery())))
        removed += done.rowcount
    return removed


def event_of(row: RowMapping) -> Event:
    """A row as the event that it is."""
    values = dict(row)
    values["data"] = json.loads(values["data"])
    return Event(**values)
