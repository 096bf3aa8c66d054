"""Which events somebody hears of: what they asked for, within what they may."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from plughub.db.tables import event
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import TOOL_CALLS
from plughub.events.log import event_of
from plughub.events.names import matches
from plughub.events.published import names_for
from plughub.kit.caller import Caller

# One answer looks at no more rows than this.
EXAMINED = 50_000
# Events stand in the order of their commits; the clocks of two processes may differ by so much.
_CLOCKS_S = 60.0


@dataclass(frozen=True, slots=True)
class Selection:
    """`names` are whole. `granted`: the servers of a grant that lists them, and then nothing that is about no server. The others
    narrow it further, when they are there. Equal selections let the same events through.
    """

    names: frozenset[str]
    granted: frozenset[str] | None = None
    server_id: str | None = None
    key_id: str | None = None

    def lets(self, found: Event) -> bool:
        """Whether the event belongs to it."""
        return (
            found.name in self.names
            and (self.granted is None or found.server_id in self.granted)
            and (self.server_id is None or found.server_id == self.server_id)
            and (self.key_id is None or found.key_id == self.key_id)
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Where in the log to look: events after number `after` (before it, when the newest come first), from `since` to before `until`
    (epoch seconds); None: no bound."""

    after: int | None = None
    since: float | None = None
    until: float | None = None
    newest_first: bool = True


def select_for(caller: Caller, subscriptions: Sequence[str], server_id: str | None = None, key_id: str | None = None) -> Selection:
    """What the caller hears of when they ask for these names; for all of them when they name none."""
    names = names_for(caller)
    if subscriptions:
        names = frozenset(name for name in names if matches(subscriptions, name))
    return Selection(names, caller.servers, server_id, key_id)


async def list_selected(
    connection: AsyncConnection, space_id: str, wanted: Selection, span: Span, limit: int, examined: int = EXAMINED
) -> tuple[list[Event], int | None]:
    """The events of a space, at most `limit`, and the number to go on after; None when there are no more.

    A page that is not full has such a number too when `examined` rows were looked at.
    """
    after = span.after
    if after is None:
        after = await _edge(connection, space_id, wanted.names, span)
    backwards = span.newest_first
    order = event.c.seq.desc() if backwards else event.c.seq
    of_it = [event.c.space_id == space_id]
    if after is not None:
        of_it.append(event.c.seq < after if backwards else event.c.seq > after)
    if wanted.names.isdisjoint(TOOL_CALLS):
        of_it.append(event.c.change_no.is_not(None))  # an index of its own
    # A subquery with a limit: it is read in the order of its index and no further than needed, whatever the conditions outside.
    looked_at = select(event).where(*of_it).order_by(order).limit(examined).subquery()
    query = select(looked_at).where(*_conditions(looked_at.c, wanted, span))
    query = query.order_by(looked_at.c.seq.desc() if backwards else looked_at.c.seq).limit(limit + 1)
    rows = [event_of(row) for row in (await connection.execute(query)).mappings()]
    if len(rows) > limit:
        return rows[:limit], rows[limit - 1].seq
    # The last that was looked at, when that was not the last there is.
    query = select(event.c.seq, event.c.at).where(*of_it).order_by(order).offset(examined - 1).limit(1)
    last = (await connection.execute(query)).first()
    if last is None or _over(span, last.at):
        return rows, None
    return rows, last.seq


async def _edge(connection: AsyncConnection, space_id: str, names: Iterable[str], span: Span) -> int | None:
    """Where to begin so that a time far away is found by the index of times: a number that nothing wanted lies beyond."""
    at = span.until if span.newest_first else span.since
    if at is None:
        return None
    found = []
    for name in names:
        of_it = select(event.c.seq).where(event.c.space_id == space_id, event.c.name == name)
        if span.newest_first:
            of_it = of_it.where(event.c.at >= at + _CLOCKS_S).order_by(event.c.at, event.c.seq)
        else:
            of_it = of_it.where(event.c.at < at - _CLOCKS_S).order_by(event.c.at.desc(), event.c.seq.desc())
        found.append(select(of_it.limit(1).subquery().c.seq))
    if not found:
        return None
    every = union_all(*found).subquery()
    edge: int | None = (await connection.execute(select((func.min if span.newest_first else func.max)(every.c.seq)))).scalar()
    return edge


def _over(span: Span, at: float) -> bool:
    """Whether nothing that is wanted can come after a row of that time."""
    if span.newest_first:
        return span.since is not None and at < span.since - _CLOCKS_S
    return span.until is not None and at >= span.until + _CLOCKS_S


def _conditions(columns: ReadOnlyColumnCollection[str, Any], wanted: Selection, span: Span) -> Iterator[ColumnElement[bool]]:
    yield columns.name.in_(wanted.names)
    if wanted.granted is not None:
        yield columns.server_id.in_(wanted.granted)
    if wanted.server_id is not None:
        yield columns.server_id == wanted.server_id
    if wanted.key_id is not None:
        yield columns.key_id == wanted.key_id
    if span.since is not None:
        yield columns.at >= span.since
    if span.until is not None:
        yield columns.at < span.until
