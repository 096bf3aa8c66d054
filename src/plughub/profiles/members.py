"""Rules of the servers in a profile: those at home in it, and those that it has by reference."""

from collections.abc import Collection, Mapping
from typing import Any

from plughub.db.tables import profile
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import PROFILE_UPDATED
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, ServerNotFound
from plughub.profiles import store
from plughub.profiles.overrides import overrides_of
from plughub.profiles.schemas import Member, Profile
from plughub.profiles.service import deed, emit, get_profile, require_all_servers
from plughub.servers.config import merge


async def put_member(
    uow: UnitOfWork, caller: Caller, profile_id: str, server_id: str, patch: Mapping[str, Any], names: Collection[str] = ()
) -> Member:
    """Have a server in a profile, and merge `patch` (RFC 7386) into what the profile says of it: `{enabled?, tools?}`.

    `names`: the server's own names of tools, as far as they are known. A server at home in the profile can be spoken of too. Raises
    Forbidden (a key with a server list), ProfileNotFound, ServerNotFound, Invalid.
    """
    require_all_servers(caller)
    server = await store.lock_server(uow, server_id, caller.space_id)
    await store.lock_space(uow, caller.space_id)
    found = await get_profile(uow.connection, caller, profile_id)
    if server is None:
        raise ServerNotFound
    home = server["profile_id"] == profile_id
    said = await store.find_settings(uow.connection, profile_id, server_id) or {"included": False, "enabled": True, "tools": {}}
    merged = merge({"enabled": said["enabled"], "tools": said["tools"]}, patch)
    overrides = overrides_of(merged.get("tools", {}), names)
    member = Member(server_id, server["slug"], server["name"], home, merged.get("enabled", True), overrides)
    values = {"included": said["included"] or not home, "enabled": member.enabled, "tools": overrides.shown()}
    if values != {name: said[name] for name in values}:
        await store.replace_settings(uow, {"profile_id": profile_id, "server_id": server_id, **values})
        await _changed(uow, found, server_id)
        uow.audit(deed(PROFILE_UPDATED, found, _audited(found.members.get(server_id)), _audited(member)))
    return member


async def remove_member(uow: UnitOfWork, caller: Caller, profile_id: str, server_id: str) -> None:
    """Take a server that the profile has by reference out of it.

    Raises Forbidden (a key with a server list), ProfileNotFound, ServerNotFound (not in the profile), Conflict (at home in it).
    """
    require_all_servers(caller)
    await store.lock_server(uow, server_id, caller.space_id)
    await store.lock_space(uow, caller.space_id)
    found = await get_profile(uow.connection, caller, profile_id)
    member = found.members.get(server_id)
    if member is None:
        raise ServerNotFound
    if member.home:
        raise Conflict(
            "The server is at home in this profile",
            hint="Switch it off here with enabled: false, or give it another home: PATCH /api/servers/{uuid} with profile_uuid",
        )
    await store.delete_settings(uow, profile_id, server_id)
    await _changed(uow, found, server_id)
    uow.audit(deed(PROFILE_UPDATED, found, _audited(member), {}))


def _audited(member: Member | None) -> dict[str, Any]:
    """What a profile says of a server, a field for each tool that it speaks of; nothing when the server is not in it."""
    if member is None:
        return {}
    place = f"servers.{member.slug}"
    return {f"{place}.enabled": member.enabled, **{f"{place}.tools.{tool}": told for tool, told in member.overrides.shown().items()}}


async def _changed(uow: UnitOfWork, found: Profile, server_id: str) -> None:
    await store.update_row(uow, profile, found.id, {"updated_at": uow.clock.time()})
    emit(uow, PROFILE_UPDATED, found, ["servers"], server_id)
