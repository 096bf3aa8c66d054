"""The caller's organisation in the PlexMCP dialect."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api import organization_shapes as shapes
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import Success, SuccessPage
from plughub.api.organizations import invite_url, removal
from plughub.api.reply import PageNumber, PerPage, public_or_404, success
from plughub.db.tables import api_key, membership, server, space
from plughub.door.routes import AUTHENTICATED, Route
from plughub.identity import members, service
from plughub.identity.members import Member
from plughub.kit.clock import rfc3339
from plughub.kit.errors import MemberNotFound
from plughub.kit.ids import public_id

V1Role = Annotated[Literal["owner", "admin", "member", "viewer"] | None, Query()]
# What the documents count; here none of it is bounded, and requests are told by `GET /v1/usage`.
_NO_LIMITS = dict.fromkeys(("mcps", "api_keys", "team_members", "monthly_requests"))


async def get_organization(caller: CallerDep, connection: ReadDep) -> Response:
    """The organisation, and how much of everything it has."""
    return success(await _shown(connection, await service.get_organization(connection, caller.organization_id)))


async def update_organization(caller: CallerDep, uow: UowDep, body: shapes.OrganizationUpdate) -> Response:
    """Change its name or description."""
    await members.require_authority(uow, caller)
    now_is = await service.update_organization(uow, caller.organization_id, name=body.name, description=body.description)
    return success(await _shown(uow.connection, now_is))


async def list_members(
    caller: CallerDep, connection: ReadDep, page: PageNumber = 1, per_page: PerPage = 20, role: V1Role = None
) -> Response:
    """The members, in pages."""
    offset = (page - 1) * per_page
    found = await members.list_members(connection, caller.organization_id, role=role, limit=per_page, offset=offset)
    return success([_member(one) for one in found.items], page=page, per_page=per_page, total=found.total)


async def invite(caller: CallerDep, uow: UowDep, hub: HubDep, base: BaseUrlDep, body: shapes.InviteIn) -> Response:
    """Invite somebody for 7 days."""
    made, token = await hub.accounts.invite(uow, caller, body.email, body.role)
    shown = {"invite_id": public_id("inv", made.id), "email": made.email, "role": made.role, "expires_at": rfc3339(made.expires_at)}
    return success({**shown, "invite_url": invite_url(base, token)}, 201)


async def change_member(caller: CallerDep, uow: UowDep, hub: HubDep, user_id: str, body: shapes.RoleIn) -> Response:
    """Give a member another role."""
    found = await members.change_role(uow, caller, _id(user_id), body.role)
    now = rfc3339(hub.clock.time())
    return success({"id": public_id("user", found.person_id), "email": found.email, "role": found.role, "updated_at": now})


async def remove_member(caller: CallerDep, uow: UowDep, user_id: str, body: shapes.RemoveIn | None = None) -> Response:
    """Remove a member; `keys` says what becomes of the keys that they have made."""
    removed, keys = await removal(uow, caller, _id(user_id), body.keys if body else None)
    return success({"removed": True, "user_id": public_id("user", removed.person_id), "keys": keys})


async def _shown(connection: AsyncConnection, found: service.Organization) -> dict[str, Any]:
    spaces = select(space.c.id).where(space.c.organization_id == found.id)
    keys = (api_key.c.organization_id == found.id, api_key.c.status != "revoked")
    counted = {
        "mcps": select(func.count()).select_from(server).where(server.c.space_id.in_(spaces)),
        "api_keys": select(func.count()).select_from(api_key).where(*keys),
        "team_members": select(func.count()).select_from(membership).where(membership.c.organization_id == found.id),
    }
    usage = {name: (await connection.execute(query)).scalar_one() for name, query in counted.items()}
    return {
        "id": public_id("org", found.id),
        "name": found.name,
        "slug": found.slug,
        "description": found.description,
        "plan": found.tier,
        "created_at": rfc3339(found.created_at),
        "settings": {"pin_protection": False},
        "limits": _NO_LIMITS,
        "usage": {**usage, "monthly_requests": None},
    }


def _member(found: Member) -> dict[str, Any]:
    return {
        "id": public_id("user", found.person_id),
        "email": found.email,
        "name": found.name,
        "role": found.role,
        "joined_at": rfc3339(found.joined_at),
        "last_active": None if found.seen_at is None else rfc3339(found.seen_at),
    }


def _id(text: str) -> str:
    return public_or_404("user", text, MemberNotFound.message)


_PATH = "/v1/organization"
_MEMBERS = _PATH + "/members"
_row = partial(Route, tag="Organization (v1)", door="v1")
ROUTES = [
    _row("GET", _PATH, AUTHENTICATED, get_organization, "Get the organization", output=Success[shapes.V1Organization]),
    _row("PATCH", _PATH, "admin", update_organization, "Change the organization", output=Success[shapes.V1Organization]),
    _row("GET", _MEMBERS, "admin", list_members, "List members", output=SuccessPage[shapes.V1Member]),
    Route(
        "POST",
        _MEMBERS + "/invite",
        "admin",
        invite,
        "Invite somebody",
        "Organization (v1)",
        "v1",
        status=201,
        output=Success[shapes.V1Invited],
        secret=True,
    ),
    _row("PATCH", _MEMBERS + "/{user_id}", "admin", change_member, "Change a role", output=Success[shapes.V1RoleChanged]),
    _row("DELETE", _MEMBERS + "/{user_id}", "admin", remove_member, "Remove a member", output=Success[shapes.V1Removed]),
]
