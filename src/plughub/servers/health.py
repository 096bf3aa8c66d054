"""What was seen of a server: changes of its state and the hub's own looks, their history, and the uptime that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import server, server_health
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.ids import new_id
from plughub.kit.pagination import Page

Kind = Literal["status", "probe"]
DAY_S = 86_400.0
# A day of looks every 15 s, which is the most there can be: uptime is of a day. Every 60 s it is four. Older rows of a server go first.
KEPT_ROWS = 6000
_COLUMNS = ("id", "server_id", "at", "kind", "status", "latency_us", "error")


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry. `status` is a status of a server; `error` a sentence without secrets."""

    at: float
    kind: Kind
    status: str
    latency_us: int | None = None
    error: str | None = None


async def keep_seen(uow: UnitOfWork, server_id: str, seen: Seen) -> None:
    """One more row of a server, unless that is gone by now."""
    values = (new_id(), server_id, seen.at, seen.kind, seen.status, seen.latency_us, seen.error)
    row = select(*(literal(value, server_health.c[name].type) for name, value in zip(_COLUMNS, values, strict=True)))
    await uow.execute(insert(server_health).from_select(list(_COLUMNS), row.where(server.c.id == server_id)))


async def list_seen(connection: AsyncConnection, server_id: str, limit: int, offset: int) -> Page[Seen]:
    """The history of a server, newest first."""
    of_server = server_health.c.server_id == server_id
    total = (await connection.execute(select(func.count()).select_from(server_health).where(of_server))).scalar_one()
    return Page([_seen(row) for row in await _newest(connection, of_server, limit, offset)], total, limit, offset)


async def find_probe(connection: AsyncConnection, server_id: str) -> Seen | None:
    """The newest look."""
    rows = await _newest(connection, (server_health.c.server_id == server_id) & (server_health.c.kind == "probe"), 1, 0)
    return _seen(rows[0]) if rows else None


async def find_uptime(connection: AsyncConnection, server_id: str, now: float) -> float | None:
    """The share of the last 24 hours, as far as something is known of them, in which the last thing seen was no error.

    A server that rests, or that nobody needs, is as good as it was when last seen. None when nothing is known.
    """
    since = now - DAY_S
    of_server = server_health.c.server_id == server_id
    columns = (server_health.c.at, server_health.c.status)
    inside = select(*columns).where(of_server, server_health.c.at > since).order_by(server_health.c.at, server_health.c.id)
    before = select(*columns).where(of_server, server_health.c.at <= since).order_by(server_health.c.at.desc(), server_health.c.id.desc())
    marks = [(max(row.at, since), row.status) for row in (await connection.execute(before.limit(1))).all()]
    marks += [(row.at, row.status) for row in (await connection.execute(inside)).all()]
    return uptime(marks, now)


def uptime(marks: Sequence[tuple[float, str]], now: float) -> float | None:
    """`marks`: (at, status) in the order of time; the state holds from each to the next."""
    if not marks:
        return None
    ends = [*(at for at, _ in marks[1:]), now]
    spans = [(max(0.0, end - at), status != "error") for (at, status), end in zip(marks, ends, strict=True)]
    whole = sum(span for span, _ in spans)
    return sum(span for span, good in spans if good) / whole if whole else float(spans[-1][1])


async def prune_seen(uow: UnitOfWork, before_at: float, kept_rows: int = KEPT_ROWS) -> int:
    """Remove what was seen before `before_at`, and of each server all but the newest `kept_rows`; the number removed."""
    removed = (await uow.execute(delete(server_health).where(server_health.c.at < before_at))).rowcount
    many = select(server_health.c.server_id).group_by(server_health.c.server_id).having(func.count() > kept_rows)
    for server_id in (await uow.execute(many)).scalars().all():
        of_server = server_health.c.server_id == server_id
        newest = select(server_health.c.id).where(of_server).order_by(server_health.c.at.desc(), server_health.c.id.desc())
        old = newest.offset(kept_rows).limit(10 * kept_rows).scalar_subquery()
        removed += (await uow.execute(delete(server_health).where(of_server, server_health.c.id.in_(old)))).rowcount
    return removed


async def _newest(connection: AsyncConnection, condition: ColumnElement[bool], limit: int, offset: int) -> Sequence[RowMapping]:
    query = select(server_health).where(condition).order_by(server_health.c.at.desc(), server_health.c.id.desc())
    return (await connection.execute(query.limit(limit).offset(offset))).mappings().all()


def _seen(row: RowMapping) -> Seen:
    return Seen(row["at"], row["kind"], row["status"], row["latency_us"], row["error"])
