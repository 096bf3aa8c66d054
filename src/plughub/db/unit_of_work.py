"""One transaction, and the events that tell what it did."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import CursorResult, Executable, insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db import tables
from plughub.db.audit import THE_HUB, Actor, Chain, Deed, append
from plughub.kit.clock import Clock

# The one way a number is given out, here and in the batching writer: the row lock is held until the commit, so number order is
# commit order (a sequence hands out numbers before the commit, and a reader by number then skips rows).
NEXT_SEQ = "UPDATE space SET seq = seq + :n WHERE id = :space_id RETURNING seq"
NEXT_CHANGE_NO = "UPDATE hub SET change_no = change_no + :n RETURNING change_no"

_next_seq = text(NEXT_SEQ)
_next_change_no = text(NEXT_CHANGE_NO)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a space. `seq` numbers the space's events, `change_no` the changes of the whole hub; both in
    commit order. `change_no` and `data` belong to management events; the fields from `tool` on to tool calls.
    """

    space_id: str
    seq: int
    name: str
    at: float
    change_no: int | None
    server_id: str | None
    key_id: str | None
    data: Mapping[str, Any]
    tool: str | None = None
    request_id: str | None = None
    outcome: str | None = None
    is_error: bool | None = None
    duration_us: int | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    name: str
    space_id: str
    server_id: str | None
    key_id: str | None
    data: Mapping[str, Any]


class UnitOfWork:
    """An open transaction. Made by `Database.unit_of_work()`, which commits it; never held across an await on anything else.

    `actor` is whoever does what is done from now on, for the audit: it changes where several requests share one transaction.
    """

    __slots__ = ("_chain", "_deeds", "_drafts", "actor", "clock", "connection", "dialect")

    def __init__(self, connection: AsyncConnection, clock: Clock, chain: Chain | None = None, actor: Actor = THE_HUB) -> None:
        self.connection = connection
        self.clock = clock
        self.actor = actor
        self.dialect = connection.dialect.name
        self._chain = chain
        self._drafts: list[_Draft] = []
        self._deeds: list[Deed] = []

    async def execute(
        self, statement: Executable, parameters: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run one statement in the transaction."""
        return await self.connection.execute(statement, parameters)

    def emit(
        self,
        name: str,
        *,
        space_id: str,
        data: Mapping[str, Any],
        server_id: str | None = None,
        key_id: str | None = None,
    ) -> None:
        """Say what this transaction does; the event gets its numbers and its row just before the commit, or never."""
        self._drafts.append(_Draft(name, space_id, server_id, key_id, data))

    def audit(self, deed: Deed) -> None:
        """Say who did it: the deed gets its row in the audit just before the commit, or never."""
        self._deeds.append(deed if deed.actor is not None else replace(deed, actor=self.actor))

    async def number(self) -> list[Event]:
        """Give the collected events and deeds their numbers and rows. Called once, as the last thing before the commit.

        Raises LookupError when a space is missing.
        """
        events = await self._number_events() if self._drafts else []
        if self._deeds:
            await append(self.connection, self._chain, self._deeds, self.actor, self.clock.time())
        return events

    async def _number_events(self) -> list[Event]:
        counts: dict[str, int] = {}
        for draft in self._drafts:
            counts[draft.space_id] = counts.get(draft.space_id, 0) + 1
        following: dict[str, int] = {}
        # Always in the same order, spaces before the hub: two transactions can wait for each other in one direction only.
        for space_id in sorted(counts):
            last = (await self.connection.execute(_next_seq, {"n": counts[space_id], "space_id": space_id})).scalar()
            if last is None:
                raise LookupError(f"no space {space_id}")
            following[space_id] = last - counts[space_id] + 1
        change_no = (await self.connection.execute(_next_change_no, {"n": len(self._drafts)})).scalar_one() - len(self._drafts)
        now = self.clock.time()
        events = []
        for draft in self._drafts:
            change_no += 1
            seq = following[draft.space_id]
            following[draft.space_id] = seq + 1
            events.append(Event(draft.space_id, seq, draft.name, now, change_no, draft.server_id, draft.key_id, draft.data))
        await self.connection.execute(insert(tables.event), [_row(event) for event in events])
        return events


def _row(event: Event) -> dict[str, Any]:
    return {
        "space_id": event.space_id,
        "seq": event.seq,
        "name": event.name,
        "at": event.at,
        "change_no": event.change_no,
        "server_id": event.server_id,
        "key_id": event.key_id,
        "data": json.dumps(event.data, ensure_ascii=False, separators=(",", ":")),
    }
