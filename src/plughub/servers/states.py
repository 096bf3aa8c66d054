"""What the log was told of each server's state: no state twice, no change too soon after the one before, whichever process saw it."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.unit_of_work import UnitOfWork
from plughub.db.watch_tables import server_state
from plughub.events.catalogue import SERVER_CONNECTED, SERVER_DISCONNECTED, SERVER_ERROR, ServerStatus

# connected: it can be used now, or at the next call. disconnected: it was, and has gone by itself. error: a start or a look has failed.
State = Literal["connected", "disconnected", "error"]
# A server that flaps makes one event in so many seconds at most.
SETTLE_S = 10.0

_EVENTS: dict[State, str] = {"connected": SERVER_CONNECTED, "disconnected": SERVER_DISCONNECTED, "error": SERVER_ERROR}


@dataclass(frozen=True, slots=True)
class Told:
    """How a server was seen at `at` (epoch seconds); `error` is a sentence without secrets."""

    server_id: str
    space_id: str
    slug: str
    state: State
    at: float
    error: str | None = None


async def tell(uow: UnitOfWork, told: Told, *, settle_s: float = SETTLE_S) -> float | None:
    """Emit the event of a state that is another one than the log was told. None: done, or nothing to tell; else when to try again.

    The row is held until the commit: of two processes one comes second and finds what the first has told. What was seen before the
    newest thing that was told is no news.
    """
    row = await _row(uow, told.server_id)
    if row is None or row.state == told.state or (row.seen_at is not None and told.at < row.seen_at):
        return None
    now = uow.clock.time()
    if row.told_at is not None and now < row.told_at + settle_s:
        due: float = row.told_at + settle_s
        return due
    data: ServerStatus = {"server_uuid": told.server_id, "slug": told.slug}
    if told.error is not None:
        data["error"] = told.error
    if row.state is not None:
        data["previous"] = row.state
    uow.emit(_EVENTS[told.state], space_id=told.space_id, server_id=told.server_id, data=data)
    await _set(uow, told.server_id, state=told.state, error=told.error, seen_at=told.at, told_at=now)
    return None


async def hold(uow: UnitOfWork, server_id: str) -> None:
    """Nobody tells of the server until the commit: for what needs the space later, as `tell` does, so that neither waits for the other."""
    await uow.execute(select(server_state.c.server_id).where(server_state.c.server_id == server_id).with_for_update())


async def begin_anew(uow: UnitOfWork, server_id: str) -> None:
    """The server is reached in another way from now on, or again: how it is will be news, and is looked at soon."""
    # What was seen before belongs to what it was.
    values = {"state": None, "error": None, "told_at": None, "probe_at": None, "failures": 0}
    await uow.execute(update(server_state).where(server_state.c.server_id == server_id).values(**values, seen_at=uow.clock.time()))


async def keep_tools_count(uow: UnitOfWork, server_id: str, count: int) -> None:
    """The server has listed so many tools."""
    await _set(uow, server_id, tools_count=count)


async def list_tools_counts(connection: AsyncConnection, limit: int) -> list[tuple[str, int]]:
    """How many tools each server listed last, of `limit` servers at most; those that were told of last come first."""
    query = select(server_state.c.server_id, server_state.c.tools_count).where(server_state.c.tools_count.is_not(None))
    rows = await connection.execute(query.order_by(server_state.c.told_at.desc()).limit(limit))
    return [(row.server_id, row.tools_count) for row in rows]


async def _row(uow: UnitOfWork, server_id: str) -> Row[Any] | None:
    """The server's row, held until the commit; None when there is no such server."""
    return (await uow.execute(select(server_state).where(server_state.c.server_id == server_id).with_for_update())).first()


async def _set(uow: UnitOfWork, server_id: str, **values: Any) -> None:
    await uow.execute(update(server_state).where(server_state.c.server_id == server_id).values(**values))
