"""What the log tells of the calls of one key."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import TOOL_CALLS
from plughub.events.log import event_of
from plughub.kit.caller import Caller

# The log has no index on keys: so many of the space's newest calls of each name are looked at.
EXAMINED = 10_000


async def list_recent_calls(connection: AsyncConnection, caller: Caller, key_id: str, limit: int = 10) -> Sequence[Event]:
    """The newest calls of a key of the caller's space, to servers that the caller may see."""
    found: list[Event] = []
    for name in TOOL_CALLS:
        newest = select(event).where(event.c.space_id == caller.space_id, event.c.name == name)
        inner = newest.order_by(event.c.at.desc(), event.c.seq.desc()).limit(EXAMINED).subquery()
        conditions = [inner.c.key_id == key_id]
        if caller.servers is not None:
            conditions.append(inner.c.server_id.in_(caller.servers))
        rows = (await connection.execute(select(inner).where(*conditions).limit(limit))).mappings()
        found += [event_of(row) for row in rows]
    return sorted(found, key=lambda one: (one.at, one.seq), reverse=True)[:limit]
