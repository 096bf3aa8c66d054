"""Organisations, their members and invitations in the Plugged.in dialect (CONTRACT section 3)."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Query, Response

from plughub.api import organization_shapes as shapes
from plughub.api.auth import place
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, public_or_404, reply
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.routes import AUTHENTICATED, SIGNED_IN, Route
from plughub.identity import invitations, members, service
from plughub.identity.invitations import Invitation
from plughub.identity.letters import PATHS
from plughub.identity.members import Member
from plughub.identity.people import Person, find_person, find_role, list_places
from plughub.identity.sessions import switch_session
from plughub.keys.of_people import list_keys_of, revoke_keys
from plughub.keys.schemas import Key
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Conflict, InvitationNotFound, MemberNotFound, OrganizationNotFound, SessionEnded
from plughub.kit.ids import public_id

RoleFilter = Annotated[Literal["owner", "admin", "member", "viewer"] | None, Query(description="Only those of this role")]
# Of one person: whoever needs more runs a hub of their own.
MAX_PLACES = 50


async def list_organizations(caller: CallerDep, connection: ReadDep) -> Response:
    """The organisations of the person; a key has one."""
    if caller.user_id is not None:
        shown = [place(found) for found in await list_places(connection, caller.user_id)]
    else:
        here = await service.get_organization(connection, caller.organization_id)
        shown = [{"id": public_id("org", here.id), "name": here.name, "slug": here.slug, "role": None}]
    return reply({"organizations": shown, "total": len(shown), "limit": MAX_PLACES, "offset": 0})


async def create_organization(caller: CallerDep, uow: UowDep, hub: HubDep, body: shapes.OrganizationIn) -> Response:
    """Make an organisation and own it; the session stays where it is until it is switched."""
    somebody = await _person(uow, caller)
    if len(await list_places(uow.connection, somebody.id)) >= MAX_PLACES:
        raise Conflict(f"A person may be in {MAX_PLACES} organizations")
    made = await hub.accounts.found_organization(uow, somebody, body.name)
    return reply(_shown(made, "owner"), 201)


async def get_organization(caller: CallerDep, connection: ReadDep, organization_id: str) -> Response:
    """The organisation that the caller acts for; others of a person's are shown after a switch."""
    here = await service.get_organization(connection, _here(caller, organization_id))
    role = await find_role(connection, here.id, caller.user_id) if caller.user_id is not None else None
    return reply(_shown(here, role))


async def update_organization(caller: CallerDep, uow: UowDep, organization_id: str, body: shapes.OrganizationUpdate) -> Response:
    """Change its name or description."""
    await members.require_authority(uow, _at(caller, organization_id))
    now_is = await service.update_organization(uow, caller.organization_id, name=body.name, description=body.description)
    role = await find_role(uow.connection, now_is.id, caller.user_id) if caller.user_id is not None else None
    return reply(_shown(now_is, role))


async def switch_organization(caller: CallerDep, uow: UowDep, organization_id: str) -> Response:
    """Let this session act for another organisation of the person, from the next request on."""
    wanted = _id("org", organization_id)
    somebody = await _person(uow, caller)
    await switch_session(uow, somebody.id, caller.key_id, wanted)
    found = next(found for found in await list_places(uow.connection, somebody.id) if found.organization_id == wanted)
    return reply({"organization": place(found)})


async def leave_organization(caller: CallerDep, uow: UowDep, organization_id: str) -> Response:
    """Leave an organisation of the person; its last owner cannot. A session that acts for it ends."""
    somebody = await _person(uow, caller)
    await members.leave_organization(uow, _id("org", organization_id), somebody.id)
    return Response(status_code=204)


async def list_members(
    caller: CallerDep, connection: ReadDep, organization_id: str, limit: PageLimit = 20, offset: Offset = 0, role: RoleFilter = None
) -> Response:
    """The members, the longest joined first."""
    page = await members.list_members(connection, _here(caller, organization_id), role=role, limit=limit, offset=offset)
    return reply({"members": [_member(found) for found in page.items], "total": page.total, "limit": limit, "offset": offset})


async def change_member(caller: CallerDep, uow: UowDep, organization_id: str, user_id: str, body: shapes.RoleIn) -> Response:
    """Give a member another role, from their next request on. Owners are made and unmade by owners."""
    here = _at(caller, organization_id)
    return reply(_member(await members.change_role(uow, here, _id("user", user_id), body.role)))


async def remove_member(
    caller: CallerDep, uow: UowDep, organization_id: str, user_id: str, body: shapes.RemoveIn | None = None
) -> Response:
    """Remove a member. The keys that they have made are listed, and kept or revoked; a 409 lists them when the choice is missing."""
    removed, keys = await removal(uow, _at(caller, organization_id), _id("user", user_id), body.keys if body else None)
    return reply({"removed": True, "user_id": public_id("user", removed.person_id), "keys": keys})


async def list_invitations(caller: CallerDep, connection: ReadDep, hub: HubDep, organization_id: str) -> Response:
    """The open invitations, the oldest first."""
    found = await invitations.list_invitations(connection, _here(caller, organization_id), hub.clock.time())
    shown = [_invitation(one) for one in found]
    return reply({"invitations": shown, "total": len(shown), "limit": invitations.MAX_OPEN, "offset": 0})


async def invite(caller: CallerDep, uow: UowDep, hub: HubDep, base: BaseUrlDep, organization_id: str, body: shapes.InviteIn) -> Response:
    """Invite somebody for 7 days; an older invitation of the same address is replaced. With a mail server it is sent as well."""
    here = _at(caller, organization_id)
    made, token = await hub.accounts.invite(uow, here, body.email, body.role)
    return reply({**_invitation(made), "invite_url": invite_url(base, token)}, 201)


async def withdraw_invitation(caller: CallerDep, uow: UowDep, organization_id: str, invitation_id: str) -> Response:
    """The link is worth nothing from now on."""
    await invitations.withdraw(uow, _at(caller, organization_id), public_or_404("inv", invitation_id, InvitationNotFound.message))
    return Response(status_code=204)


async def accept_invitation(caller: CallerDep, uow: UowDep, body: shapes.AcceptIn) -> Response:
    """Become a member by the link of an invitation; the session acts for that organisation from now on."""
    somebody = await _person(uow, caller)
    accepted = await invitations.accept(uow, body.token, somebody)
    await switch_session(uow, somebody.id, caller.key_id, accepted.organization_id)
    found = next(found for found in await list_places(uow.connection, somebody.id) if found.organization_id == accepted.organization_id)
    return reply({"organization": place(found)})


async def removal(uow: UnitOfWork, caller: Caller, person_id: str, choice: str | None) -> tuple[Member, list[dict[str, Any]]]:
    """Remove a member with or without their keys. Raises Conflict with the keys when there are some and nothing was chosen."""
    removed = await members.remove_member(uow, caller, person_id)
    keys = await list_keys_of(uow, caller.organization_id, person_id)
    if keys and choice is None:
        raise Conflict("The member has made keys: say whether to keep or revoke them", reason="keys", keys=_left(keys, revoked=False))
    if choice == "revoke":
        await revoke_keys(uow, keys)
    return removed, _left(keys, revoked=choice == "revoke")


def invite_url(base: str, token: str) -> str:
    """Where an invitation is opened."""
    return f"{base}{PATHS['invitation']}?token={token}"


def _left(keys: Sequence[Key], *, revoked: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": public_id("key", key.id),
            "name": key.name,
            "prefix": key.prefix,
            "environment": key.environment,
            "status": "revoked" if revoked else key.status,
        }
        for key in keys
    ]


def _shown(found: service.Organization, role: str | None) -> dict[str, Any]:
    return {
        "id": public_id("org", found.id),
        "name": found.name,
        "slug": found.slug,
        "description": found.description,
        "tier": found.tier,
        "role": role,
        "created_at": rfc3339(found.created_at),
    }


def _member(found: Member) -> dict[str, Any]:
    return {
        "id": public_id("user", found.person_id),
        "email": found.email,
        "name": found.name,
        "role": found.role,
        "verified": found.verified,
        "two_factor": found.two_factor,
        "joined_at": rfc3339(found.joined_at),
        "last_active_at": None if found.seen_at is None else rfc3339(found.seen_at),
    }


def _invitation(found: Invitation) -> dict[str, Any]:
    return {
        "id": public_id("inv", found.id),
        "email": found.email,
        "role": found.role,
        "created_at": rfc3339(found.created_at),
        "expires_at": rfc3339(found.expires_at),
    }


def _id(prefix: Literal["org", "user"], text: str) -> str:
    missing = OrganizationNotFound if prefix == "org" else MemberNotFound
    return public_or_404(prefix, text, missing.message)


def _here(caller: Caller, organization_id: str) -> str:
    """The organisation of the path, which is the caller's or nobody's. Raises OrganizationNotFound."""
    if _id("org", organization_id) != caller.organization_id:
        raise OrganizationNotFound
    return caller.organization_id


def _at(caller: Caller, organization_id: str) -> Caller:
    _here(caller, organization_id)
    return caller


async def _person(uow: UnitOfWork, caller: Caller) -> Person:
    found = await find_person(uow.connection, person_id=caller.user_id)
    if found is None:
        raise SessionEnded
    return found


_PATH = "/api/organizations"
_ONE = _PATH + "/{organization_id}"
_MEMBERS, _MEMBER = _ONE + "/members", _ONE + "/members/{user_id}"
_INVITATIONS, _INVITATION = _ONE + "/invitations", _ONE + "/invitations/{invitation_id}"
_row = partial(Route, tag="Organizations")
_secret = partial(Route, tag="Organizations", secret=True)
ROUTES = [
    _row("GET", _PATH, AUTHENTICATED, list_organizations, "List organizations", output=shapes.OrganizationList),
    _row("POST", _PATH, SIGNED_IN, create_organization, "Make an organization", status=201, output=shapes.OrganizationOut),
    _row("GET", _ONE, AUTHENTICATED, get_organization, "Get an organization", output=shapes.OrganizationOut),
    _row("PATCH", _ONE, "admin", update_organization, "Change an organization", output=shapes.OrganizationOut),
    _row("POST", _ONE + "/switch", SIGNED_IN, switch_organization, "Act for another organization", output=shapes.SwitchedOut),
    _row("POST", _ONE + "/leave", SIGNED_IN, leave_organization, "Leave an organization", status=204),
    _row("GET", _MEMBERS, "admin", list_members, "List members", output=shapes.MemberList),
    _row("PATCH", _MEMBER, "admin", change_member, "Give a member another role", output=shapes.MemberOut),
    _row("DELETE", _MEMBER, "admin", remove_member, "Remove a member", output=shapes.RemovedOut),
    _row("GET", _INVITATIONS, "admin", list_invitations, "List invitations", output=shapes.InvitationList),
    _secret("POST", _INVITATIONS, "admin", invite, "Invite somebody", status=201, output=shapes.InvitedOut),
    _row("DELETE", _INVITATION, "admin", withdraw_invitation, "Withdraw an invitation", status=204),
    _row("POST", "/api/invitations/accept", SIGNED_IN, accept_invitation, "Accept an invitation", output=shapes.SwitchedOut),
]
