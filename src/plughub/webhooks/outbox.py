"""SQL of the machinery: the log becomes deliveries, deliveries are leased, and settled.

The event log is the outbox: a space's cursor moves in the transaction that makes the deliveries, so none is lost or made twice,
whoever dies. Many rows go over as one JSON text and are taken apart by the database, away from our interpreter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import RowMapping, TextClause, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.engine import Database
from plughub.db.tables import event, space
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.webhook_tables import delivery, webhook, webhook_cursor
from plughub.events.catalogue import REQUEST_COMPLETED
from plughub.events.log import event_of
from plughub.webhooks.store import LINE

# A lease outlasts an attempt; what its holder has not begun when less than an attempt is left of it, it lets go.
LEASE_S = 30.0
# A process that has not been seen for so long is dead: what it held is taken over.
_DEAD_S = 5.0
# Small transactions: the write lock is never held for long.
_PRUNED_AT_ONCE = 1000
# (id, webhook_id, seq, event, body, next_at, lease_owner)
NewRow = tuple[str, str, int, str, str, float, str | None]
# (id, status, attempts, tries, next_at, last_at, response_status, response_excerpt, error, duration_ms)
SettledRow = tuple[str, str, int, int, float | None, float, int | None, str | None, str | None, int | None]


@dataclass(frozen=True, slots=True)
class Held:
    """A leased delivery. `until`: the end of the lease (epoch seconds). `attempts` and `tries` are those that were made."""

    id: str
    webhook_id: str
    seq: int
    event: str
    body: str
    attempts: int
    tries: int
    until: float


@dataclass(frozen=True, slots=True)
class Behind:
    """A space whose log has become deliveries up to `done`, and reaches to `seq`."""

    space_id: str
    organization_id: str
    epoch: str
    done: int
    seq: int


def _fields(kinds: Sequence[str], dialect: str) -> str:
    """The elements of each row of `:rows`, by place, as columns `c0`, `c1` …"""
    if dialect == "sqlite":
        columns = ", ".join(f"json_extract(value, '$[{at}]') AS c{at}" for at in range(len(kinds)))
        return f"(SELECT {columns} FROM json_each(:rows)) AS r"
    columns = ", ".join(f"(value->>{at})::{kind} AS c{at}" for at, kind in enumerate(kinds))
    return f"(SELECT {columns} FROM json_array_elements(CAST(:rows AS json))) AS r"


def _both(make: Any) -> dict[str, TextClause]:
    return {dialect: text(make(dialect)) for dialect in ("sqlite", "postgresql")}


_TEXT, _INT, _FLOAT = "text", "bigint", "float8"
_INSERT: Final = _both(
    lambda dialect: (
        "INSERT INTO delivery (id, webhook_id, seq, event, body, status, attempts, tries, next_at, lease_owner, created_at) "
        "SELECT c0, c1, c2, c3, c4, 'pending', 0, 0, c5, c6, :now FROM "
        + _fields((_TEXT, _TEXT, _INT, _TEXT, _TEXT, _FLOAT, _TEXT), dialect)
        + " WHERE true ON CONFLICT (id) DO NOTHING RETURNING id"
    )
)
_SETTLE: Final = _both(
    lambda dialect: (
        "UPDATE delivery SET status = c1, attempts = c2, tries = c3, next_at = c4, last_at = c5, response_status = c6,"
        " response_excerpt = c7, error = c8, duration_ms = c9, lease_owner = NULL FROM "
        + _fields((_TEXT, _TEXT, _INT, _INT, _FLOAT, _FLOAT, _INT, _TEXT, _TEXT, _INT), dialect)
        + " WHERE delivery.id = r.c0 AND delivery.lease_owner = :owner AND delivery.attempts = c2 - 1"
    )
)
_RELEASE: Final = _both(
    lambda dialect: (
        "UPDATE delivery SET next_at = c1, lease_owner = NULL FROM "
        + _fields((_TEXT, _FLOAT), dialect)
        + " WHERE delivery.id = r.c0 AND delivery.lease_owner = :owner AND delivery.next_at IS NOT NULL"
    )
)
_SKIP: Final = {"sqlite": "", "postgresql": " FOR UPDATE SKIP LOCKED"}
_CLAIMED = " RETURNING id, seq, event, body, attempts, tries"
_CLAIM: Final = _both(
    lambda dialect: (
        "UPDATE delivery SET next_at = :until, lease_owner = :owner WHERE id IN (SELECT id FROM delivery WHERE webhook_id = :webhook_id"
        f" AND next_at <= :now ORDER BY next_at LIMIT :limit{_SKIP[dialect]}){_CLAIMED}"
    )
)
_CLAIM_DUE_IN_ORDER: Final = text(
    "UPDATE delivery SET next_at = :until, lease_owner = :owner WHERE id IN (SELECT id FROM delivery WHERE webhook_id = :webhook_id"
    f" AND next_at <= :now ORDER BY seq LIMIT :limit){_CLAIMED}"
)
_CLAIM_IN_LINE: Final = text(
    "UPDATE delivery SET next_at = :until, lease_owner = :owner WHERE id IN (SELECT id FROM delivery WHERE webhook_id = :webhook_id"
    f" AND next_at >= :line ORDER BY next_at LIMIT :limit){_CLAIMED}"
)
_BUSY = text("SELECT 1 FROM delivery WHERE webhook_id = :webhook_id AND next_at > :now AND next_at < :line LIMIT 1")
# The soonest of each webhook is one look into the index, however many wait.
_DUE = text(
    "SELECT id FROM (SELECT w.id, (SELECT min(d.next_at) FROM delivery d WHERE d.webhook_id = w.id AND d.next_at IS NOT NULL) AS soonest"
    " FROM webhook w WHERE w.active) AS found WHERE soonest <= :now OR soonest >= :line"
)
_BEHIND = text(
    "SELECT c.space_id FROM webhook_cursor c JOIN space s ON s.id = c.space_id WHERE c.seq < s.seq"
    " AND EXISTS (SELECT 1 FROM webhook w WHERE w.space_id = c.space_id AND w.active)"
)
_ORPHANS = text("UPDATE delivery SET next_at = :now, lease_owner = NULL WHERE next_at IS NOT NULL AND lease_owner IS NOT NULL")
_TAKE_OVER = text(
    "UPDATE delivery SET next_at = :now, lease_owner = NULL WHERE webhook_id IN (SELECT id FROM webhook WHERE active)"
    " AND next_at > :now AND next_at <= :now + :lease_s AND lease_owner IS NOT NULL AND lease_owner <> :owner AND lease_owner NOT IN"
    " (SELECT id FROM node WHERE seen_at > extract(epoch FROM clock_timestamp()) - :dead_s)"
)


async def list_active(connection: AsyncConnection, space_ids: Sequence[str] | None = None) -> Sequence[RowMapping]:
    """Every active webhook, of these spaces or of the hub, in short: `id`, `revision`, `failing_since`."""
    query = select(webhook.c.id, webhook.c.revision, webhook.c.failing_since).where(webhook.c.active)
    if space_ids is not None:
        query = query.where(webhook.c.space_id.in_(space_ids))
    return (await connection.execute(query)).mappings().all()


async def read_webhooks(connection: AsyncConnection, ids: Sequence[str]) -> Sequence[RowMapping]:
    """Those webhooks whole."""
    return (await connection.execute(select(webhook).where(webhook.c.id.in_(ids)))).mappings().all()


async def list_due(connection: AsyncConnection, now: float) -> list[str]:
    """The active webhooks that have a delivery to be claimed."""
    return list((await connection.execute(_DUE, {"now": now, "line": LINE})).scalars())


async def list_behind(connection: AsyncConnection) -> list[str]:
    """The spaces with active webhooks whose log has grown."""
    return list((await connection.execute(_BEHIND)).scalars())


async def lock_cursors(uow: UnitOfWork, space_ids: Sequence[str]) -> list[Behind]:
    """The spaces of these that nobody else is at, locked until the commit."""
    cursors = select(webhook_cursor.c.space_id, webhook_cursor.c.seq).where(webhook_cursor.c.space_id.in_(space_ids))
    locked = (await uow.execute(cursors.order_by(webhook_cursor.c.space_id).with_for_update(skip_locked=True))).all()
    done = {row.space_id: row.seq for row in locked}
    query = select(space.c.id, space.c.organization_id, space.c.epoch, space.c.seq).where(space.c.id.in_(done))
    return [Behind(row.id, row.organization_id, row.epoch, done[row.id], row.seq) for row in await uow.execute(query)]


async def move_cursor(uow: UnitOfWork, space_id: str, seq: int) -> None:
    """So far the log of the space has become deliveries."""
    await uow.execute(webhook_cursor.update().where(webhook_cursor.c.space_id == space_id).values(seq=seq))


async def list_between(uow: UnitOfWork, space_id: str, after: int, until: int, limit: int) -> list[Event]:
    """The events of a space numbered (after, until], in order, without those of requests."""
    of_it = (event.c.space_id == space_id, event.c.seq > after, event.c.seq <= until, event.c.name != REQUEST_COMPLETED)
    query = select(event).where(*of_it).order_by(event.c.seq).limit(limit)
    return [event_of(row) for row in (await uow.execute(query)).mappings()]


async def insert_deliveries(uow: UnitOfWork, rows: Sequence[NewRow]) -> set[str]:
    """Those that are not there yet; which were made."""
    made = await uow.execute(_INSERT[uow.dialect], {"rows": _json(rows), "now": uow.clock.time()})
    return set(made.scalars())


async def settle(uow: UnitOfWork, owner: str, rows: Sequence[SettledRow]) -> None:
    """What came of attempts; a row whose lease was lost is left to whoever has it now."""
    await uow.execute(_SETTLE[uow.dialect], {"rows": _json(rows), "owner": owner})


async def release(uow: UnitOfWork, owner: str, rows: Sequence[tuple[str, float]]) -> None:
    """Let leases go without an attempt: `(id, next_at)`."""
    await uow.execute(_RELEASE[uow.dialect], {"rows": _json(rows), "owner": owner})


async def claim(uow: UnitOfWork, owner: str, webhook_id: str, limit: int, *, ordered: bool) -> list[Held]:
    """Lease due deliveries of one webhook, the longest due first; of an ordered one the next in line, and none while any is under way."""
    now = uow.clock.time()
    values = {"owner": owner, "webhook_id": webhook_id, "now": now, "until": now + LEASE_S, "limit": limit}
    if not ordered:
        return _claimed(await _rows(uow, _CLAIM[uow.dialect], values), webhook_id, now + LEASE_S)
    lock = select(webhook.c.id).where(webhook.c.id == webhook_id).with_for_update(skip_locked=True)
    if (await uow.execute(lock)).first() is None:
        return []
    line = {"webhook_id": webhook_id, "now": now, "line": LINE}
    if (await uow.execute(_BUSY, line)).first() is not None:
        return []
    rows = [*await _rows(uow, _CLAIM_DUE_IN_ORDER, values)]
    if len(rows) < limit:
        del values["now"]
        rows += await _rows(uow, _CLAIM_IN_LINE, {**values, "limit": limit - len(rows), "line": LINE})
    return sorted(_claimed(rows, webhook_id, now + LEASE_S), key=lambda each: each.seq)


async def mark_failing(uow: UnitOfWork, webhook_id: str, since: float | None) -> None:
    """Since when every attempt has failed; None: the last one went well. An earlier time stays."""
    known = [webhook.c.id == webhook_id, *([webhook.c.failing_since.is_(None)] if since is not None else [])]
    await uow.execute(webhook.update().where(*known).values(failing_since=since))


async def switch_off(uow: UnitOfWork, webhook_id: str, reason: str) -> bool:
    """The hub gives it up; what waits, waits. False when it was off already."""
    values = {"active": False, "disabled": reason, "updated_at": uow.clock.time(), "revision": webhook.c.revision + 1}
    return (await uow.execute(webhook.update().where(webhook.c.id == webhook_id, webhook.c.active).values(values))).rowcount > 0


async def prune(uow: UnitOfWork, webhook_id: str, before_at: float | None, limit: int) -> int:
    """Remove at most `limit` deliveries of a webhook made before then (None: all); how many that were."""
    of_it = [delivery.c.webhook_id == webhook_id, *([delivery.c.created_at < before_at] if before_at is not None else [])]
    old = select(delivery.c.id).where(*of_it).order_by(delivery.c.created_at).limit(limit)
    return (await uow.execute(delivery.delete().where(delivery.c.id.in_(old.scalar_subquery())))).rowcount


async def next_of(connection: AsyncConnection, after: str) -> tuple[str, bool] | None:
    """The next webhook, by id, that has deliveries, and whether it is still there; None after the last."""
    found = (await connection.execute(select(func.min(delivery.c.webhook_id)).where(delivery.c.webhook_id > after))).scalar()
    if found is None:
        return None
    return found, (await connection.execute(select(webhook.c.id).where(webhook.c.id == found))).first() is not None


def held(row: NewRow) -> Held:
    """A delivery that was leased when it was made."""
    return Held(row[0], row[1], row[2], row[3], row[4], 0, 0, row[5])


async def take_over(uow: UnitOfWork, owner: str, *, everything: bool) -> None:
    """What dead processes held is due now. `everything`: whatever was held, at the start of the only process there is."""
    now = uow.clock.time()
    if everything:
        await uow.execute(_ORPHANS, {"now": now})
    else:
        await uow.execute(_TAKE_OVER, {"now": now, "owner": owner, "lease_s": LEASE_S, "dead_s": _DEAD_S})


async def _rows(uow: UnitOfWork, statement: TextClause, values: Mapping[str, Any]) -> Sequence[Any]:
    return (await uow.execute(statement, values)).all()


def _claimed(rows: Sequence[Any], webhook_id: str, until: float) -> list[Held]:
    return [Held(row.id, webhook_id, row.seq, row.event, row.body, row.attempts, row.tries, until) for row in rows]


def _json(rows: Sequence[Any]) -> str:
    return msgspec.json.encode(rows).decode()


async def prune_deliveries(database: Database, before_at: float) -> int:
    """Remove every delivery from before `before_at` (epoch seconds), and all of deleted webhooks; how many that were."""
    removed, webhook_id = 0, ""
    while True:
        async with database.read() as connection:
            found = await next_of(connection, webhook_id)
        if found is None:
            return removed
        webhook_id, there = found
        gone = _PRUNED_AT_ONCE
        while gone == _PRUNED_AT_ONCE:
            async with database.unit_of_work() as uow:
                gone = await prune(uow, webhook_id, before_at if there else None, _PRUNED_AT_ONCE)
            removed += gone
