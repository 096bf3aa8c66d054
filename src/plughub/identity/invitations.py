"""Invitations: by mail or by a link that is handed over, good for 7 days and for one address."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import invitation, organization
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import MEMBER_INVITED, MEMBER_UNINVITED, MemberInvited
from plughub.identity import letters
from plughub.identity.links import new_token
from plughub.identity.members import add_member, live_space, require_authority
from plughub.identity.people import Person, find_person, find_role, normal_email
from plughub.identity.roles import Role
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer, token_digest
from plughub.kit.errors import Conflict, Forbidden, InvitationNotFound, LinkNotFound
from plughub.kit.ids import new_id

LIFETIME_S = 7 * 86_400.0
# Of one organisation at a time: an organisation is no way to write to strangers.
MAX_OPEN = 200


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation. Times are epoch seconds."""

    id: str
    organization_id: str
    email: str
    role: Role
    created_at: float
    expires_at: float


_COLUMNS = [invitation.c[name] for name in Invitation.__slots__]


async def invite(uow: UnitOfWork, sealer: Sealer, caller: Caller, email: str, role: Role, *, mails: bool) -> tuple[Invitation, str]:
    """Invite an address, in the place of an older invitation of the same; the token of its link.

    Raises Invalid, Forbidden, Conflict when somebody of that address is in already.
    """
    email = normal_email(email)
    await require_authority(uow, caller, role)
    known = await find_person(uow.connection, email=email)
    if known is not None and await find_role(uow.connection, caller.organization_id, known.id) is not None:
        raise Conflict("Already a member of this organization")
    await uow.execute(delete(invitation).where(invitation.c.organization_id == caller.organization_id, invitation.c.email == email))
    now, token = uow.clock.time(), new_token()
    if len(await list_invitations(uow.connection, caller.organization_id, now)) >= MAX_OPEN:
        raise Conflict(f"An organization may have {MAX_OPEN} open invitations")
    made = Invitation(new_id(), caller.organization_id, email, role, now, now + LIFETIME_S)
    sealed = None if mails else sealer.seal(token.encode(), f"invitation:{made.id}")
    values = {name: getattr(made, name) for name in Invitation.__slots__}
    await uow.execute(
        insert(invitation).values(**values, digest=token_digest(token), sealed=sealed, created_by=caller.user_id or caller.key_id or None)
    )
    if mails:
        name = (await uow.execute(select(organization.c.name).where(organization.c.id == caller.organization_id))).scalar_one()
        inviter = await find_person(uow.connection, person_id=caller.user_id) if caller.user_id else None
        data = {"token": token, "organization": name, "inviter": inviter.name if inviter else "Somebody"}
        await letters.post(uow, sealer, "invitation", email, data)
    await _emit(uow, MEMBER_INVITED, made)
    return made, token


async def list_invitations(connection: AsyncConnection, organization_id: str, now: float) -> list[Invitation]:
    """The open invitations, the oldest first."""
    query = select(*_COLUMNS).where(invitation.c.organization_id == organization_id, invitation.c.expires_at > now)
    return [Invitation(*row) for row in await connection.execute(query.order_by(invitation.c.created_at, invitation.c.id))]


async def withdraw(uow: UnitOfWork, caller: Caller, invitation_id: str) -> None:
    """The link is worth nothing from now on. Raises InvitationNotFound, Forbidden."""
    condition = (invitation.c.id == invitation_id, invitation.c.organization_id == caller.organization_id)
    row = (await uow.execute(select(*_COLUMNS).where(*condition))).first()
    if row is None:
        raise InvitationNotFound
    await require_authority(uow, caller, row.role)
    await uow.execute(delete(invitation).where(*condition))
    await _emit(uow, MEMBER_UNINVITED, Invitation(*tuple(row)))


async def find_invitation(connection: AsyncConnection, token: str, now: float) -> tuple[Invitation, str] | None:
    """The open invitation of a link, and the name of its organisation."""
    query = (
        select(*_COLUMNS, organization.c.name)
        .join(organization, organization.c.id == invitation.c.organization_id)
        .where(invitation.c.digest == token_digest(token), invitation.c.expires_at > now)
    )
    row = (await connection.execute(query)).first()
    return None if row is None else (Invitation(*tuple(row)[:-1]), row.name)


async def accept(uow: UnitOfWork, token: str, somebody: Person) -> Invitation:
    """Become a member. Raises LinkNotFound, Forbidden when another address was invited, Conflict for a member."""
    found = await find_invitation(uow.connection, token, uow.clock.time())
    if found is None:
        raise LinkNotFound
    if found[0].email != somebody.email:
        raise Forbidden("This invitation is for another address", reason="other_address")
    # Used up by an update that only one can make: the row is gone for whoever comes second.
    used = await uow.execute(update(invitation).where(invitation.c.id == found[0].id).values(expires_at=0.0).returning(invitation.c.id))
    if used.first() is None:
        raise LinkNotFound
    await uow.execute(delete(invitation).where(invitation.c.id == found[0].id))
    await add_member(uow, found[0].organization_id, somebody, found[0].role)
    return found[0]


async def _emit(uow: UnitOfWork, name: str, about: Invitation) -> None:
    data: MemberInvited = {"invitation_id": about.id, "email": about.email, "role": about.role}
    uow.emit(name, space_id=await live_space(uow, about.organization_id), data=data)
