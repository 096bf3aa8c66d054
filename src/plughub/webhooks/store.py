"""SQL of webhooks, as people manage them; what the machinery does is in `outbox`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event, profile, project, server, space
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.webhook_tables import delivery, webhook, webhook_cursor
from plughub.events.catalogue import REQUEST_COMPLETED
from plughub.events.log import event_of

_MAKE_CURSOR = text("INSERT INTO webhook_cursor (space_id, seq) VALUES (:space_id, 0) ON CONFLICT DO NOTHING")
# `next_at` of those that wait in the line of an ordered webhook is this and their event's number.
LINE = 1e12
# Between the time of an event and the commit that numbers it: flush, retries, the clocks of two processes.
_CLOCKS_S = 60.0
# (created_at, id) of the last row of a page.
Position = tuple[float, str]


async def begin(uow: UnitOfWork, space_id: str) -> int:
    """The number of the space's newest event: a webhook that is made or switched on is told of what comes after it.

    While nobody was told the log did not become deliveries, and it does not later.
    """
    await uow.execute(_MAKE_CURSOR, {"space_id": space_id})
    # Locked first: two that are made at once must not both believe to be the first.
    await uow.execute(select(webhook_cursor.c.seq).where(webhook_cursor.c.space_id == space_id).with_for_update())
    seq: int = (await uow.execute(select(space.c.seq).where(space.c.id == space_id))).scalar_one()
    told = select(webhook.c.id).where(webhook.c.space_id == space_id, webhook.c.active).limit(1)
    if (await uow.execute(told)).first() is None:
        await uow.execute(update(webhook_cursor).where(webhook_cursor.c.space_id == space_id).values(seq=seq))
    return seq


async def count_webhooks(connection: AsyncConnection, space_id: str) -> int:
    """How many the space has, active or not."""
    query = select(func.count()).select_from(webhook).where(webhook.c.space_id == space_id)
    return (await connection.execute(query)).scalar_one()


async def insert_webhook(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """One row."""
    await uow.execute(insert(webhook).values(**values))


async def update_webhook(uow: UnitOfWork, webhook_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one webhook, and its revision."""
    await uow.execute(update(webhook).where(webhook.c.id == webhook_id).values(**values, revision=webhook.c.revision + 1))


async def delete_webhook(uow: UnitOfWork, webhook_id: str) -> None:
    """The row. Its deliveries go with the next pruning: there may be very many."""
    await uow.execute(delete(webhook).where(webhook.c.id == webhook_id))


async def find_webhook(connection: AsyncConnection, webhook_id: str, space_id: str, *, lock: bool = False) -> RowMapping | None:
    """A webhook of a space."""
    query = select(webhook).where(webhook.c.id == webhook_id, webhook.c.space_id == space_id)
    return (await connection.execute(query.with_for_update() if lock else query)).mappings().first()


async def list_webhooks(connection: AsyncConnection, space_id: str) -> Sequence[RowMapping]:
    """Every webhook of a space, oldest first; there is a bound on them."""
    query = select(webhook).where(webhook.c.space_id == space_id).order_by(webhook.c.created_at, webhook.c.id)
    return (await connection.execute(query)).mappings().all()


async def find_project(connection: AsyncConnection, space_id: str, project_id: str) -> str | None:
    """The id of a project of the space."""
    query = select(project.c.id).where(project.c.id == project_id, project.c.space_id == space_id)
    found: str | None = (await connection.execute(query)).scalar()
    return found


async def find_space(connection: AsyncConnection, space_id: str) -> RowMapping:
    """`epoch` and `seq` of a space."""
    return (await connection.execute(select(space.c.epoch, space.c.seq).where(space.c.id == space_id))).mappings().one()


async def list_deliveries(
    connection: AsyncConnection, webhook_id: str, wanted: Sequence[ColumnElement[bool]], after: Position | None, limit: int
) -> Sequence[RowMapping]:
    """Deliveries of one webhook, newest first."""
    conditions = [delivery.c.webhook_id == webhook_id, *wanted]
    if after is not None:
        conditions += [delivery.c.created_at <= after[0], or_(delivery.c.created_at < after[0], delivery.c.id < after[1])]
    query = select(delivery).where(*conditions).order_by(delivery.c.created_at.desc(), delivery.c.id.desc()).limit(limit)
    return (await connection.execute(query)).mappings().all()


async def find_delivery(connection: AsyncConnection, webhook_id: str, delivery_id: str) -> RowMapping | None:
    """One delivery of a webhook."""
    query = select(delivery).where(delivery.c.id == delivery_id, delivery.c.webhook_id == webhook_id)
    return (await connection.execute(query)).mappings().first()


async def insert_delivery(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """One row that is settled already."""
    await uow.execute(insert(delivery).values(**values))


async def revive(uow: UnitOfWork, ids: Collection[str], next_at: float | None) -> int:
    """Send deliveries that are settled, or wait for a later attempt, now and with a schedule of its own each; how many that were.

    `next_at` None: in their line's order.
    """
    values = {"status": "pending", "tries": 0, "lease_owner": None, "next_at": LINE + delivery.c.seq if next_at is None else next_at}
    waits = and_(delivery.c.lease_owner.is_(None), delivery.c.next_at > uow.clock.time(), delivery.c.next_at < LINE)
    theirs = (delivery.c.id.in_(ids), or_(delivery.c.status != "pending", waits))
    return (await uow.execute(update(delivery).where(*theirs).values(**values))).rowcount


async def line_up(uow: UnitOfWork, webhook_id: str, *, ordered: bool) -> None:
    """What waits goes into the line of a webhook that is ordered from now on, or out of it."""
    waiting = [delivery.c.webhook_id == webhook_id, delivery.c.next_at.is_not(None), delivery.c.lease_owner.is_(None)]
    if ordered:
        await uow.execute(update(delivery).where(*waiting).values(next_at=LINE + delivery.c.seq))
    else:
        await uow.execute(update(delivery).where(*waiting, delivery.c.next_at >= LINE).values(next_at=uow.clock.time()))


async def first_since(connection: AsyncConnection, space_id: str, at: float) -> int:
    """A number of the space from which on all events of that time or later stand (epoch seconds).

    There is no index of times alone: numbers are in the order of commits, times nearly so, and halving finds the place.
    """
    low, high = 0, (await connection.execute(select(space.c.seq).where(space.c.id == space_id))).scalar_one() + 1
    while low + 1 < high:
        middle = (low + high) // 2
        query = select(event.c.at).where(event.c.space_id == space_id, event.c.seq >= middle).order_by(event.c.seq).limit(1)
        found = (await connection.execute(query)).scalar()
        if found is not None and found < at - _CLOCKS_S:
            low = middle
        else:
            high = middle
    return low


async def list_walked(connection: AsyncConnection, space_id: str, after_seq: int, limit: int) -> list[Event]:
    """The next events of a space after a number, in order, without those of requests."""
    of_it = (event.c.space_id == space_id, event.c.seq > after_seq, event.c.name != REQUEST_COMPLETED)
    query = select(event).where(*of_it).order_by(event.c.seq).limit(limit)
    return [event_of(row) for row in (await connection.execute(query)).mappings()]


async def list_statuses(connection: AsyncConnection, ids: Collection[str]) -> dict[str, str]:
    """The status of each delivery of these that there is."""
    query = select(delivery.c.id, delivery.c.status).where(delivery.c.id.in_(ids))
    return {row.id: row.status for row in await connection.execute(query)}


async def list_servers_of(connection: AsyncConnection, project_id: str) -> frozenset[str]:
    """The servers at home in a project."""
    query = select(server.c.id).join(profile, profile.c.id == server.c.profile_id).where(profile.c.project_id == project_id)
    return frozenset((await connection.execute(query)).scalars())
