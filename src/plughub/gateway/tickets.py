"""Tickets: what opens an event stream where a key may not stand, in an address.

A ticket is good for one stream that is opened within 30 s. As a browser opens a stream again by itself, at the same address, a ticket
that is spent opens its own stream again for a day, for whoever says with `Last-Event-ID` that they have been on it. It stands for the
credential that it was made with, never for more: a key that is revoked takes its tickets along.

They are rows, so that they outlive a restart, and any process takes them.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from sqlalchemy import delete, insert, select, update

from plughub.db.engine import Database
from plughub.db.tables import space, stream_ticket
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.frames import StreamId
from plughub.kit.caller import Caller, Environment
from plughub.kit.crypto import token_digest
from plughub.kit.errors import Invalid, Unauthorized

PREFIX = "tkt_"
HEADER = b"bearer tkt_"
OPENS_S = 30
AGAIN_S = 86_400.0
_BYTES = 24
_ELSEWHERE = "A ticket opens an event stream, and nothing else"
_OVER = "The ticket is unknown, used or older than 30 s: make another with POST /api/events/tickets"


class Arriving(Protocol):
    """What is read of a request."""

    scope: Any
    headers: dict[bytes, bytes]
    route: Any


@dataclass(frozen=True, slots=True)
class Shown:
    """A credential as its directory looks it up: a `kit.caller.Credential`, and its digest."""

    credential: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Ticket:
    """One that is good now. `opened` is the stream that it opened, None before."""

    digest: bytes
    shown: Shown
    environment: Environment
    scopes: frozenset[str]
    opened: str | None


class Tickets:
    """Makes, finds and spends them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock

    @staticmethod
    def carried(header: bytes | None) -> bool:
        """Whether an Authorization header carries a ticket."""
        return header is not None and header[: len(HEADER)].lower() == HEADER

    async def make(self, uow: UnitOfWork, caller: Caller, shown: Shown) -> str:
        """A new ticket for who shows this credential; those of more than a day ago go."""
        ticket = PREFIX + secrets.token_urlsafe(_BYTES)
        await forget_tickets(uow)
        values = {
            "digest": token_digest(ticket),
            "credential": shown.credential,
            "shown": shown.digest,
            "environment": caller.environment,
            "space_id": caller.space_id,
            "scopes": sorted(caller.scopes),
            "created_at": self._clock.time(),
        }
        await uow.execute(insert(stream_ticket).values(**values))
        return ticket

    async def find(self, arrival: Arriving) -> Ticket:
        """The ticket that a request carries. Raises Unauthorized, Invalid for a Last-Event-ID that is none."""
        if arrival.route is None or not arrival.route.event_source:
            raise Unauthorized(hint=_ELSEWHERE)
        digest = token_digest(arrival.headers[b"authorization"][len("bearer ") :].decode("latin-1"))
        query = select(*stream_ticket.c, space.c.epoch, space.c.seq).join(space, space.c.id == stream_ticket.c.space_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query.where(stream_ticket.c.digest == digest))).first()
        if row is None:
            raise Unauthorized(hint=_OVER)
        last_id = last_event_id(arrival)
        age_s = self._clock.time() - row.created_at
        if row.opened is None:
            good = age_s < OPENS_S
        else:
            good = age_s < AGAIN_S and last_id is not None and last_id.epoch == row.epoch and row.opened_seq <= last_id.seq <= row.seq
        if not good:
            raise Unauthorized(hint=_OVER)
        return Ticket(digest, Shown(row.credential, row.shown), row.environment, frozenset(row.scopes), row.opened)

    async def spend(self, ticket: Ticket, stream: str, seq: int) -> None:
        """Open `stream`, which names where it is and what it lets through, after event `seq`. Raises Unauthorized when the ticket has
        opened another one, or somebody else was quicker."""
        if ticket.opened is not None:
            if ticket.opened != stream:
                raise Unauthorized(hint=_OVER)
            return
        unspent = update(stream_ticket).where(stream_ticket.c.digest == ticket.digest, stream_ticket.c.opened.is_(None))
        async with self._database.unit_of_work() as uow:
            found = await uow.execute(unspent.values(opened=stream, opened_seq=seq).returning(stream_ticket.c.opened_seq))
            if found.first() is None:
                raise Unauthorized(hint=_OVER)


def last_event_id(arrival: Arriving) -> StreamId | None:
    """How far the client of a stream came, by its Last-Event-ID header, else by `?last_event_id=`; None for one that begins.

    A browser that comes back by itself sends the header, to an address that may hold the number it began with. Raises Invalid.
    """
    text = arrival.headers.get(b"last-event-id", b"").decode("latin-1")
    if not text:
        query: bytes = arrival.scope["query_string"]
        text = parse_qs(query.decode("latin-1")).get("last_event_id", [""])[-1]
    if not text:
        return None
    found = StreamId.parse(text)
    if found is None:
        raise Invalid("last_event_id", "The 'last_event_id' field is no id of this stream", text[:50])
    return found


async def forget_tickets(uow: UnitOfWork) -> None:
    """Remove those that open nothing any more."""
    await uow.execute(delete(stream_ticket).where(stream_ticket.c.created_at < uow.clock.time() - AGAIN_S))
