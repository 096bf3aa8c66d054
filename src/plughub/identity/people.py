"""People: what is known of them, and the SQL of their rows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import membership, organization, person
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.roles import Role
from plughub.kit.errors import Invalid
from plughub.kit.ids import new_id

MAX_EMAIL = 254
# Whether an address is one only its mail can tell; this keeps out what would break a header, a URL or a page.
_EMAIL = re.compile(
    r"[^\s@<>\"'(),:;\\\[\]\x00-\x1f\x7f]{1,64}@[^\s@<>\"'(),:;\\\[\]\x00-\x1f\x7f]+\.?[^\s@<>\"'(),:;\\\[\]\x00-\x1f\x7f]+"
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account. Times are epoch seconds."""

    id: str
    email: str
    name: str
    password_hash: str
    password_at: float
    verified_at: float | None
    totp_secret: bytes | None
    totp_confirmed_at: float | None
    totp_step: int | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Place:
    """An organisation that a person belongs to."""

    organization_id: str
    name: str
    slug: str
    role: Role


def normal_email(text: str) -> str:
    """The form in which addresses are kept and compared. Raises Invalid."""
    email = text.strip().lower()
    if len(email) > MAX_EMAIL or _EMAIL.fullmatch(email) is None:
        raise Invalid("email", "The 'email' field must be an e-mail address", text)
    return email


async def find_person(connection: AsyncConnection, *, email: str | None = None, person_id: str | None = None) -> Person | None:
    """The person of an address in its normal form, or of an id."""
    condition = person.c.email == email if email is not None else person.c.id == person_id
    row = (await connection.execute(select(person).where(condition))).mappings().first()
    return None if row is None else Person(**row)


async def insert_person(uow: UnitOfWork, email: str, name: str, password_hash: str, *, verified: bool) -> Person:
    """A new account. The caller has looked that the address is free; a race ends in an IntegrityError."""
    now = uow.clock.time()
    made = Person(new_id(), email, name, password_hash, now, now if verified else None, None, None, None, now)
    await uow.execute(insert(person).values(**{name: getattr(made, name) for name in Person.__slots__}))
    return made


async def update_person(uow: UnitOfWork, person_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of one person."""
    await uow.execute(update(person).where(person.c.id == person_id).values(**values))


async def lock_person(uow: UnitOfWork, person_id: str) -> Person | None:
    """The person as they are now, held until the commit."""
    row = (await uow.execute(select(person).where(person.c.id == person_id).with_for_update())).mappings().first()
    return None if row is None else Person(**row)


async def list_places(connection: AsyncConnection, person_id: str) -> list[Place]:
    """The organisations of a person, the longest joined first."""
    query = (
        select(organization.c.id, organization.c.name, organization.c.slug, membership.c.role)
        .join(membership, membership.c.organization_id == organization.c.id)
        .where(membership.c.person_id == person_id)
        .order_by(membership.c.created_at, organization.c.id)
    )
    return [Place(*row) for row in await connection.execute(query)]


async def insert_membership(uow: UnitOfWork, organization_id: str, person_id: str, role: Role) -> None:
    """One row."""
    values = {"organization_id": organization_id, "person_id": person_id, "role": role, "created_at": uow.clock.time()}
    await uow.execute(insert(membership).values(**values))


async def find_role(connection: AsyncConnection, organization_id: str, person_id: str) -> Role | None:
    """The role of a person in an organisation."""
    query = select(membership.c.role).where(membership.c.organization_id == organization_id, membership.c.person_id == person_id)
    role: Role | None = (await connection.execute(query)).scalar()
    return role
