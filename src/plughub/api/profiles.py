"""Profiles and the servers in them, in the Plugged.in dialect (CONTRACT section 6)."""

from typing import Annotated, Any

from fastapi import Query, Response

from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.profile_shapes import ProfileList, ProfileOut, ServerInProfile, ServersInProfile
from plughub.api.projects import WithServers
from plughub.api.reply import Offset, PageLimit, reply, uuid_or_404
from plughub.door.routes import Route
from plughub.kit.clock import rfc3339
from plughub.kit.errors import ProfileNotFound
from plughub.profiles import members, service
from plughub.profiles.schemas import Member, MemberPatch, Profile, ProfileCreate, ProfileUpdate

OfProject = Annotated[str | None, Query(description="Only the profiles of this project")]


async def list_profiles(
    caller: CallerDep,
    connection: ReadDep,
    base: BaseUrlDep,
    project_uuid: OfProject = None,
    limit: PageLimit = 20,
    offset: Offset = 0,
) -> Response:
    """The profiles of the caller's organisation and environment, oldest first; for a key with a server list those that hold one."""
    page = await service.list_profiles(connection, caller, project_uuid=project_uuid, limit=limit, offset=offset)
    return reply({"profiles": [_shown(found, base) for found in page.items], "total": page.total, "limit": limit, "offset": offset})


async def create_profile(caller: CallerDep, uow: UowDep, base: BaseUrlDep, body: ProfileCreate) -> Response:
    """Make a profile, in the default project unless another is named. Its slug stays, whatever it is called later."""
    return reply(_shown(await service.create_profile(uow, caller, body), base), 201)


async def get_profile(caller: CallerDep, connection: ReadDep, base: BaseUrlDep, profile_uuid: str) -> Response:
    """One profile with the servers in it that the key may use."""
    return reply(_shown(await service.get_profile(connection, caller, _id(profile_uuid)), base))


async def update_profile(caller: CallerDep, uow: UowDep, base: BaseUrlDep, profile_uuid: str, body: ProfileUpdate) -> Response:
    """Change a profile; what is not given stays. `project_uuid` moves it to another project."""
    return reply(_shown(await service.update_profile(uow, caller, _id(profile_uuid), body), base))


async def delete_profile(caller: CallerDep, uow: UowDep, profile_uuid: str, servers: WithServers = None) -> Response:
    """Remove a profile; the default profile of a project stays (409). Servers that it has by reference stay where they are at home."""
    await service.delete_profile(uow, caller, _id(profile_uuid), servers)
    return Response(status_code=204)


async def list_members(caller: CallerDep, connection: ReadDep, profile_uuid: str, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The servers of a profile that the key may use, by slug: those at home in it, and those that it has by reference."""
    found = list((await service.get_profile(connection, caller, _id(profile_uuid))).members.values())
    page = [_member(member) for member in found[offset : offset + limit]]
    return reply({"servers": page, "total": len(found), "limit": limit, "offset": offset})


async def put_member(caller: CallerDep, uow: UowDep, hub: HubDep, profile_uuid: str, server_uuid: str, body: MemberPatch) -> Response:
    """Have a server in a profile, and merge what the profile says of it and of its tools (RFC 7386: null takes a word back)."""
    profile_id, server_id = _id(profile_uuid), uuid_or_404(server_uuid)
    patch = body.model_dump(exclude_unset=True)
    return reply(_member(await members.put_member(uow, caller, profile_id, server_id, patch, hub.catalog.latest_tools(server_id))))


async def remove_member(caller: CallerDep, uow: UowDep, profile_uuid: str, server_uuid: str) -> Response:
    """Take a server that the profile has by reference out of it; one at home in it stays (409)."""
    await members.remove_member(uow, caller, _id(profile_uuid), uuid_or_404(server_uuid))
    return Response(status_code=204)


def _shown(found: Profile, base: str) -> dict[str, Any]:
    return {
        "uuid": found.id,
        "slug": found.slug,
        "name": found.name,
        "description": found.description,
        "project_uuid": found.project_id,
        "is_default": found.is_default,
        "mcp_url": f"{base}/mcp/{found.slug}",
        "servers": [_member(member) for member in found.members.values()],
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "uuid": member.server_id,
        "slug": member.slug,
        "name": member.name,
        "home": member.home,
        "enabled": member.enabled,
        "tools": member.overrides.shown(),
    }


def _id(text: str) -> str:
    return uuid_or_404(text, ProfileNotFound)


_PATH, _TAG = "/api/profiles", "Profiles"
_ONE = _PATH + "/{profile_uuid}"
_SERVERS = _ONE + "/servers"
_SERVER = _SERVERS + "/{server_uuid}"
ROUTES = [
    Route("GET", _PATH, "read:servers", list_profiles, "List profiles", _TAG, output=ProfileList),
    Route("POST", _PATH, "write:servers", create_profile, "Make a profile", _TAG, status=201, output=ProfileOut),
    Route("GET", _ONE, "read:servers", get_profile, "Get a profile", _TAG, output=ProfileOut),
    Route("PATCH", _ONE, "write:servers", update_profile, "Change a profile", _TAG, output=ProfileOut),
    Route("DELETE", _ONE, "delete:servers", delete_profile, "Remove a profile", _TAG, status=204),
    Route("GET", _SERVERS, "read:servers", list_members, "List a profile's servers", _TAG, output=ServersInProfile),
    Route("PUT", _SERVER, "write:servers", put_member, "Have a server in a profile", _TAG, output=ServerInProfile),
    Route("DELETE", _SERVER, "write:servers", remove_member, "Take a server out of a profile", _TAG, status=204),
]
