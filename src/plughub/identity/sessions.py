"""Sessions of browsers: opened by a login, ended by its person, by time, or by a change that makes old logins worthless."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import THE_HUB, Actor
from plughub.db.tables import person, person_session, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import SESSION_ENDED, SESSION_SWITCHED, SessionChanged
from plughub.identity.deeds import SESSION_OPENED, session_deed
from plughub.identity.people import find_role
from plughub.kit.crypto import token_digest
from plughub.kit.errors import OrganizationNotFound, SessionNotFound
from plughub.kit.ids import new_id, public_id

# Of one person; a further login ends the one that was unused longest.
MAX_SESSIONS = 20
_TOKEN_BYTES = 32
_MAX_AGENT = 300


@dataclass(frozen=True, slots=True)
class Visit:
    """From where somebody comes: the address of the client and what it calls itself; `actor` is what the audit tells of them."""

    address: str
    agent: str = ""
    actor: Actor = THE_HUB


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A login that is good. Times are epoch seconds."""

    id: str
    person_id: str
    organization_id: str
    created_at: float
    seen_at: float
    expires_at: float
    address: str
    agent: str


_COLUMNS = [person_session.c[name] for name in BrowserSession.__slots__]


async def open_session(
    uow: UnitOfWork, person_id: str, organization_id: str, visit: Visit, lifetime_s: float
) -> tuple[BrowserSession, str]:
    """A new session and its token (256 random bits), which is kept nowhere."""
    query = select(person_session.c.id).where(person_session.c.person_id == person_id).order_by(person_session.c.seen_at.desc())
    surplus = (await uow.execute(query.offset(MAX_SESSIONS - 1))).scalars().all()
    if surplus:
        await _end(uow, person_session.c.id.in_(surplus))
    now, token = uow.clock.time(), secrets.token_urlsafe(_TOKEN_BYTES)
    made = BrowserSession(new_id(), person_id, organization_id, now, now, now + lifetime_s, visit.address[:100], visit.agent[:_MAX_AGENT])
    values = {name: getattr(made, name) for name in BrowserSession.__slots__}
    await uow.execute(insert(person_session).values(**values, digest=token_digest(token)))
    email = (await _emails(uow, [person_id]))[person_id]
    uow.audit(session_deed(SESSION_OPENED, made.id, email, organization_id, after=_told(made)))
    return made, token


async def list_sessions(connection: AsyncConnection, person_id: str, now: float, idle_s: float) -> list[BrowserSession]:
    """The good sessions of a person, the one used last first."""
    alive = (person_session.c.expires_at > now, person_session.c.seen_at > now - idle_s)
    query = select(*_COLUMNS).where(person_session.c.person_id == person_id, *alive).order_by(person_session.c.seen_at.desc())
    return [BrowserSession(*row) for row in await connection.execute(query)]


async def end_session(uow: UnitOfWork, person_id: str, session_id: str) -> None:
    """Log one browser of the person out. Raises SessionNotFound."""
    if not await _end(uow, person_session.c.person_id == person_id, person_session.c.id == session_id):
        raise SessionNotFound


async def end_sessions(uow: UnitOfWork, person_id: str, *, keep: str | None = None, organization_id: str | None = None) -> int:
    """Log the person out, but for the session `keep`; with an organisation only those that act for it. How many that were."""
    conditions = [person_session.c.person_id == person_id, person_session.c.id != (keep or "")]
    if organization_id is not None:
        conditions.append(person_session.c.organization_id == organization_id)
    return await _end(uow, *conditions)


async def switch_session(uow: UnitOfWork, person_id: str, session_id: str, organization_id: str) -> None:
    """Let the session act for another organisation of its person. Raises OrganizationNotFound, SessionNotFound."""
    if await find_role(uow.connection, organization_id, person_id) is None:
        raise OrganizationNotFound
    condition = (person_session.c.id == session_id, person_session.c.person_id == person_id)
    found = (await uow.execute(select(*_COLUMNS).where(*condition))).all()
    if not found:
        raise SessionNotFound
    await uow.execute(update(person_session).where(*condition).values(organization_id=organization_id))
    await _emit(uow, SESSION_SWITCHED, found)
    email, before = (await _emails(uow, [person_id]))[person_id], found[0].organization_id
    # Both organisations tell of it: one was left, and in the other somebody acts from now on.
    for of in dict.fromkeys((before, organization_id)):
        deed = session_deed(
            SESSION_SWITCHED,
            session_id,
            email,
            of,
            before={"organization": public_id("org", before)},
            after={"organization": public_id("org", organization_id)},
        )
        uow.audit(deed)


async def prune_sessions(uow: UnitOfWork, idle_s: float) -> None:
    """Remove the rows of sessions whose time is over: they are refused without that."""
    now = uow.clock.time()
    await uow.execute(delete(person_session).where((person_session.c.expires_at < now) | (person_session.c.seen_at < now - idle_s)))


async def _end(uow: UnitOfWork, *conditions: ColumnElement[bool]) -> int:
    ended = (await uow.execute(delete(person_session).where(*conditions).returning(*_COLUMNS))).all()
    await _emit(uow, SESSION_ENDED, ended)
    emails = await _emails(uow, [row.person_id for row in ended])
    for row in ended:
        uow.audit(session_deed(SESSION_ENDED, row.id, emails[row.person_id], row.organization_id, before=_told(row)))
    return len(ended)


async def _emails(uow: UnitOfWork, person_ids: Sequence[str]) -> Mapping[str, str]:
    if not person_ids:
        return {}
    query = select(person.c.id, person.c.email).where(person.c.id.in_({*person_ids}))
    return {row.id: row.email for row in await uow.execute(query)}


def _told(session: BrowserSession | Row[Any]) -> Mapping[str, str]:
    """What the audit tells of a session."""
    return {"address": session.address, "agent": session.agent}


async def _emit(uow: UnitOfWork, name: str, rows: Sequence[Row[Any]]) -> None:
    if not rows:
        return
    query = select(space.c.organization_id, space.c.id).where(
        space.c.organization_id.in_({row.organization_id for row in rows}), space.c.environment == "live"
    )
    spaces = {row.organization_id: row.id for row in await uow.execute(query)}
    for row in rows:
        data: SessionChanged = {"session_id": row.id, "user_id": row.person_id}
        uow.emit(name, space_id=spaces[row.organization_id], key_id=row.id, data=data)
