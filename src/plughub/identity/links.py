"""Links that are good once: for a registration, an address, a password, the operator's own account.

The token is kept as a digest. Where no mail is sent it is also kept sealed, so that the operator can hand it over.
"""

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import invitation, person_link
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.crypto import Sealer, token_digest
from plughub.kit.errors import LinkNotFound
from plughub.kit.ids import new_id

LinkKind = Literal["register", "verify", "reset", "setup"]
_DAY_S = 86_400.0
LIFETIMES_S: Mapping[LinkKind, float | None] = {"register": _DAY_S, "verify": 7 * _DAY_S, "reset": 3600.0, "setup": None}
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Link:
    """A link that was just used up: `data` is what it was made with."""

    kind: LinkKind
    email: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PendingLink:
    """A link that its addressee has not got by mail. `kind` may also be invitation."""

    kind: str
    email: str
    token: str
    created_at: float
    expires_at: float | None


def new_token() -> str:
    """192 random bits, safe in a URL."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


async def make_link(
    uow: UnitOfWork,
    sealer: Sealer,
    kind: LinkKind,
    email: str,
    *,
    data: Mapping[str, Any] | None = None,
    shown: bool,
    token: str | None = None,
) -> str:
    """A new link in the place of an older one of that kind for that address; its token. `shown`: the operator can read it."""
    await uow.execute(delete(person_link).where(person_link.c.kind == kind, person_link.c.email == email))
    token, now, lifetime_s = token or new_token(), uow.clock.time(), LIFETIMES_S[kind]
    id_ = new_id()
    kept = json.dumps({"token": token if shown else None, "data": dict(data or {})})
    await uow.execute(
        insert(person_link).values(
            id=id_,
            kind=kind,
            email=email,
            digest=token_digest(token),
            sealed=sealer.seal(kept.encode(), _aad(id_)),
            created_at=now,
            expires_at=None if lifetime_s is None else now + lifetime_s,
        )
    )
    return token


async def find_link(connection: AsyncConnection, sealer: Sealer, kinds: Collection[LinkKind], token: str, now: float) -> Link | None:
    """The link, if it is good."""
    alive = or_(person_link.c.expires_at.is_(None), person_link.c.expires_at > now)
    query = select(person_link).where(person_link.c.digest == token_digest(token), person_link.c.kind.in_(kinds), alive)
    row = (await connection.execute(query)).first()
    return None if row is None else Link(row.kind, row.email, json.loads(sealer.open(row.sealed, _aad(row.id)))["data"])


async def use_link(uow: UnitOfWork, sealer: Sealer, kinds: Collection[LinkKind], token: str) -> Link:
    """Use the link up. Raises LinkNotFound for one that was used, has run out, or is of another kind."""
    link = await find_link(uow.connection, sealer, kinds, token, uow.clock.time())
    if link is None:
        raise LinkNotFound
    used = await uow.execute(delete(person_link).where(person_link.c.digest == token_digest(token)).returning(person_link.c.id))
    if used.first() is None:  # by somebody else, just now
        raise LinkNotFound
    return link


async def drop_links(uow: UnitOfWork, kinds: Collection[LinkKind], email: str) -> None:
    """What was sent before is worth nothing from now on."""
    await uow.execute(delete(person_link).where(person_link.c.kind.in_(kinds), person_link.c.email == email))


async def list_pending(connection: AsyncConnection, sealer: Sealer, now: float, limit: int) -> list[PendingLink]:
    """The good links that the operator has to hand over, the newest first; of the operator's own set-up code nothing is told."""
    found = []
    alive = or_(person_link.c.expires_at.is_(None), person_link.c.expires_at > now)
    query = select(person_link).where(alive, person_link.c.kind != "setup").order_by(person_link.c.created_at.desc()).limit(limit)
    for row in await connection.execute(query):
        token = json.loads(sealer.open(row.sealed, _aad(row.id)))["token"]
        if token is not None:
            found.append(PendingLink(row.kind, row.email, token, row.created_at, row.expires_at))
    query = select(invitation).where(invitation.c.expires_at > now, invitation.c.sealed.is_not(None))
    for row in await connection.execute(query.order_by(invitation.c.created_at.desc()).limit(limit)):
        token = sealer.open(row.sealed, f"invitation:{row.id}").decode()
        found.append(PendingLink("invitation", row.email, token, row.created_at, row.expires_at))
    return sorted(found, key=lambda link: link.created_at, reverse=True)[:limit]


async def prune_links(uow: UnitOfWork) -> None:
    """Remove what has run out."""
    now = uow.clock.time()
    await uow.execute(delete(person_link).where(person_link.c.expires_at < now))
    await uow.execute(delete(invitation).where(invitation.c.expires_at < now))


def _aad(id_: str) -> str:
    return f"person_link:{id_}"
