"""What the audit tells of people: their accounts, their sessions, and who is in an organisation.

A deed of a person alone belongs to the organisation that their session acts for; without a session to the one that they are in first,
and to the operator's when they are in none or nobody knows them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from plughub.db.audit import Deed
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.people import Person, list_places
from plughub.identity.service import get_operator_id

USER_REGISTERED: Final = "user.registered"
USER_VERIFIED: Final = "user.verified"
PROFILE_CHANGED: Final = "user.profile_changed"
PASSWORD_CHANGED: Final = "user.password_changed"
PASSWORD_RESET: Final = "user.password_reset"
TWO_FACTOR_BEGUN: Final = "user.two_factor_begun"
TWO_FACTOR_ENABLED: Final = "user.two_factor_enabled"
TWO_FACTOR_DISABLED: Final = "user.two_factor_disabled"
BACKUP_CODES_RENEWED: Final = "user.backup_codes_renewed"
# Refused logins are of this name too, with the code of the refusal as their outcome.
SESSION_OPENED: Final = "session.opened"
INVITED: Final = "invitation.created"
UNINVITED: Final = "invitation.withdrawn"
ACCEPTED: Final = "invitation.accepted"


async def home_of(uow: UnitOfWork, person: Person | None) -> str:
    """The organisation whose audit tells of somebody who acts for none."""
    places = await list_places(uow.connection, person.id if person is not None else "")
    return places[0].organization_id if places else await get_operator_id(uow.connection)


def act_as(uow: UnitOfWork, person_id: str) -> None:
    """From here on it is known who does what this unit of work does: they have shown a password, a link or a cookie."""
    uow.actor = replace(uow.actor, kind="user", user_id=person_id)


def user_deed(
    action: str, person: Person, organization_id: str, *, before: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None
) -> Deed:
    """What was done to an account."""
    return Deed(action, "user", person.id, person.email, organization_id=organization_id, before=before or {}, after=after or {})


def session_deed(
    action: str,
    session_id: str | None,
    email: str | None,
    organization_id: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> Deed:
    """What was done to a login, by the address of its person."""
    return Deed(action, "session", session_id, email, organization_id=organization_id, before=before or {}, after=after or {})
