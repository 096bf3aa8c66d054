"""Who is in an organisation, and who may change that: one owner at least, and owners are made and unmade by owners alone."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import membership, organization, person, person_session, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import MEMBER_ADDED, MEMBER_REMOVED, MEMBER_UPDATED, MemberChanged
from plughub.identity.people import Person, find_role, insert_membership
from plughub.identity.roles import Role
from plughub.identity.sessions import end_sessions
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, Forbidden, MemberNotFound, OrganizationNotFound
from plughub.kit.pagination import Page


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in an organisation. `seen_at`: when a browser of theirs last acted for it, None when none is logged in."""

    person_id: str
    email: str
    name: str
    role: Role
    verified: bool
    two_factor: bool
    joined_at: float
    seen_at: float | None


async def list_members(connection: AsyncConnection, organization_id: str, *, role: Role | None, limit: int, offset: int) -> Page[Member]:
    """The members, the longest joined first."""
    conditions = [membership.c.organization_id == organization_id, *([membership.c.role == role] if role else [])]
    total = (await connection.execute(select(func.count()).select_from(membership).where(*conditions))).scalar_one()
    query = _query().where(*conditions).order_by(membership.c.created_at, membership.c.person_id).limit(limit).offset(offset)
    return Page([Member(*row) for row in await connection.execute(query)], total, limit, offset)


async def get_member(connection: AsyncConnection, organization_id: str, person_id: str) -> Member:
    """Raises MemberNotFound."""
    query = _query().where(membership.c.organization_id == organization_id, membership.c.person_id == person_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise MemberNotFound
    return Member(*row)


async def require_authority(uow: UnitOfWork, caller: Caller, *roles: Role) -> None:
    """Raise Forbidden unless the caller may give and take these roles. Holds the organisation's row: changes of members queue up.

    A key acts as an administrator, and as an owner as long as there is none. What is narrower than its organisation (a test key, a key
    with a server list) changes no people: they could do more than the key.
    """
    await uow.execute(select(organization.c.id).where(organization.c.id == caller.organization_id).with_for_update())
    if caller.credential != "session" and (caller.environment != "live" or caller.servers is not None):
        raise Forbidden("People are changed by live keys without a server list", reason="narrow_key")
    mine = await _role_of(uow, caller)
    if mine not in ("owner", "admin"):
        raise Forbidden(required_scope="admin")
    if "owner" in roles and mine != "owner":
        raise Forbidden("Owners are made and unmade by owners", reason="owners_only")


async def add_member(uow: UnitOfWork, organization_id: str, somebody: Person, role: Role) -> None:
    """Raises Conflict when they are in already."""
    if await find_role(uow.connection, organization_id, somebody.id) is not None:
        raise Conflict("Already a member of this organization")
    await insert_membership(uow, organization_id, somebody.id, role)
    await _emit(uow, MEMBER_ADDED, organization_id, {"user_id": somebody.id, "email": somebody.email, "role": role})


async def change_role(uow: UnitOfWork, caller: Caller, person_id: str, role: Role) -> Member:
    """Raises MemberNotFound, Forbidden, Conflict for the last owner."""
    member = await get_member(uow.connection, caller.organization_id, person_id)
    await require_authority(uow, caller, member.role, role)
    if member.role == role:
        return member
    if member.role == "owner":
        await _require_another_owner(uow, caller.organization_id, person_id)
    condition = (membership.c.organization_id == caller.organization_id, membership.c.person_id == person_id)
    await uow.execute(update(membership).where(*condition).values(role=role))
    await _emit(uow, MEMBER_UPDATED, caller.organization_id, {"user_id": person_id, "email": member.email, "role": role})
    return await get_member(uow.connection, caller.organization_id, person_id)


async def remove_member(uow: UnitOfWork, caller: Caller, person_id: str) -> Member:
    """Their sessions for this organisation end; what becomes of their keys is decided elsewhere.

    Raises MemberNotFound, Forbidden, Conflict for the last owner.
    """
    member = await get_member(uow.connection, caller.organization_id, person_id)
    await require_authority(uow, caller, member.role)
    await _remove(uow, caller.organization_id, member)
    return member


async def leave_organization(uow: UnitOfWork, organization_id: str, person_id: str) -> None:
    """What anybody may do who is not the last owner. Raises OrganizationNotFound, Conflict."""
    await uow.execute(select(organization.c.id).where(organization.c.id == organization_id).with_for_update())
    if await find_role(uow.connection, organization_id, person_id) is None:
        raise OrganizationNotFound
    await _remove(uow, organization_id, await get_member(uow.connection, organization_id, person_id))


async def _remove(uow: UnitOfWork, organization_id: str, member: Member) -> None:
    if member.role == "owner":
        await _require_another_owner(uow, organization_id, member.person_id)
    condition = (membership.c.organization_id == organization_id, membership.c.person_id == member.person_id)
    await uow.execute(delete(membership).where(*condition))
    await end_sessions(uow, member.person_id, organization_id=organization_id)
    await _emit(uow, MEMBER_REMOVED, organization_id, {"user_id": member.person_id, "email": member.email, "role": member.role})


async def _role_of(uow: UnitOfWork, caller: Caller) -> Role | None:
    if caller.user_id is not None:
        return await find_role(uow.connection, caller.organization_id, caller.user_id)
    if "admin" not in caller.scopes:
        return None
    owners = select(membership.c.person_id).where(membership.c.organization_id == caller.organization_id, membership.c.role == "owner")
    return "admin" if (await uow.execute(owners.limit(1))).first() is not None else "owner"


async def _require_another_owner(uow: UnitOfWork, organization_id: str, person_id: str) -> None:
    query = select(membership.c.person_id).where(
        membership.c.organization_id == organization_id, membership.c.role == "owner", membership.c.person_id != person_id
    )
    if (await uow.execute(query.limit(1))).first() is None:
        raise Conflict("An organization needs an owner: make somebody else one first", reason="last_owner")


def _query() -> Select[Any]:
    seen = select(func.max(person_session.c.seen_at)).where(
        person_session.c.person_id == membership.c.person_id, person_session.c.organization_id == membership.c.organization_id
    )
    return select(
        person.c.id,
        person.c.email,
        person.c.name,
        membership.c.role,
        person.c.verified_at.is_not(None),
        person.c.totp_confirmed_at.is_not(None),
        membership.c.created_at,
        seen.scalar_subquery(),
    ).join(membership, membership.c.person_id == person.c.id)


async def live_space(uow: UnitOfWork, organization_id: str) -> str:
    """Where the log tells of people."""
    query = select(space.c.id).where(space.c.organization_id == organization_id, space.c.environment == "live")
    found: str = (await uow.execute(query)).scalar_one()
    return found


async def _emit(uow: UnitOfWork, name: str, organization_id: str, data: MemberChanged) -> None:
    uow.emit(name, space_id=await live_space(uow, organization_id), data=data)
