"""Rules of servers: who may register which, and what a change does."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import SERVER_CREATED, SERVER_DELETED, SERVER_UNINSTALLED, SERVER_UPDATED, ServerChanged, ServerInstalled
from plughub.kit.caller import Caller
from plughub.kit.crypto import SealBroken, Sealer
from plughub.kit.errors import Forbidden, Invalid, NotPermitted, ServerNotFound
from plughub.kit.ids import new_id, parse_uuid
from plughub.kit.pagination import Page
from plughub.servers import store
from plughub.servers.audited import audited
from plughub.servers.config import TIMES, dialled, merge, require_secrets_anew, slugify, unmasked
from plughub.servers.schemas import Server, ServerCreate, checked, checked_config, snake_case
from plughub.servers.states import begin_anew, hold

_LOOKED_AT = 10  # one damaged row must not look like a lost ring


def config_aad(server_id: str) -> str:
    """What a sealed configuration is bound to: it opens in its own row alone."""
    return f"server|{server_id}|config"


async def create_server(uow: UnitOfWork, caller: Caller, body: ServerCreate, sealer: Sealer) -> Server:
    """Register a server. Nothing is dialled or started: what is wrong with it shows as its status.

    Raises Forbidden (STDIO not allowed, or the caller's key has a server list), Invalid.
    """
    require_whole_grant(caller)
    require_transport(caller, body.type)
    config = unmasked(checked_config(body.type, body.config), {})
    await store.lock_space(uow, caller.space_id)
    profile_id = await require_home(uow.connection, caller, body.profile_uuid, body.project_uuid)
    server_id, now = new_id(), uow.clock.time()
    server = Server(
        id=server_id,
        space_id=caller.space_id,
        profile_id=profile_id,
        slug=slugify(body.name, await store.list_slugs(uow.connection, caller.space_id)),
        name=body.name,
        description=body.description or "",
        transport=body.type,
        enabled=body.enabled,
        revision=1,
        created_at=now,
        updated_at=now,
        config=config,
        capture=body.capture,
    )
    values = {name: getattr(server, name) for name in Server.__slots__ if name != "config"}
    await store.insert_server(uow, values | {"sealed_config": _seal(sealer, server_id, config)})
    _emit(uow, SERVER_CREATED, server)
    uow.audit(_deed(SERVER_CREATED, None, server))
    return server


async def list_servers(connection: AsyncConnection, caller: Caller, sealer: Sealer, *, limit: int, offset: int) -> Page[Server]:
    """The servers that the caller's grant includes, oldest first."""
    rows, total = await store.list_servers(connection, caller.space_id, caller.servers, limit, offset)
    return Page([_server(row, sealer) for row in rows], total, limit, offset)


async def list_every_server(connection: AsyncConnection, caller: Caller, sealer: Sealer) -> list[Server]:
    """All the servers that the caller's grant includes, however many, oldest first."""
    return [_server(row, sealer) for row in (await store.list_servers(connection, caller.space_id, caller.servers, None, 0))[0]]


async def list_servers_of(connection: AsyncConnection, space_id: str, server_ids: Collection[str], sealer: Sealer) -> list[Server]:
    """Those of `server_ids` that the space has, oldest first: for whoever has judged already who may see them, and what of them."""
    return [_server(row, sealer) for row in (await store.list_servers(connection, space_id, server_ids, None, 0))[0]]


async def get_server(connection: AsyncConnection, caller: Caller, server_id: str, sealer: Sealer) -> Server:
    """Raises NotFound (missing, or of another space: the two look alike) or NotPermitted (the grant excludes it)."""
    return _server(await _row(connection, caller, server_id), sealer)


async def update_server(uow: UnitOfWork, caller: Caller, server_id: str, patch: Mapping[str, Any], sealer: Sealer) -> Server:
    """Merge `patch` (RFC 7386) into `{name, description, type, config, profile_uuid, enabled, capture}`; `***` keeps the stored secret.

    Stored secrets do not follow to another address or command: see `require_secrets_anew`. Another `type` begins with an empty
    config. The slug stays. Raises NotFound, NotPermitted, Forbidden, Invalid.
    """
    before = _server(await _row(uow.connection, caller, server_id, lock=True), sealer)
    patch = snake_case(patch)
    document = {
        "name": before.name,
        "description": before.description,
        "type": before.transport,
        "config": {} if patch.get("type", before.transport) != before.transport else dict(before.config),
        "profile_uuid": before.profile_id,
        "enabled": before.enabled,
        "capture": before.capture,
    }
    if patch.get("project_uuid") is not None and "profile_uuid" not in patch:
        del document["profile_uuid"]
    body = checked(ServerCreate, merge(document, patch))
    require_transport(caller, body.type)
    config = checked_config(body.type, body.config)
    require_secrets_anew(before.config, config, patch.get("config", {}))
    config = unmasked(config, before.config)
    await hold(uow, server_id)
    if body.profile_uuid != before.profile_id:
        # One after the other with who removes profiles: it may be this one.
        await store.lock_space(uow, caller.space_id)
    after = replace(
        before,
        name=body.name,
        description=body.description or "",
        transport=body.type,
        enabled=body.enabled,
        profile_id=await require_home(uow.connection, caller, body.profile_uuid, body.project_uuid),
        config=config,
        capture=body.capture,
    )
    changed = [name for name in Server.__slots__ if getattr(after, name) != getattr(before, name)]
    if not changed:
        return before
    dialled_anew = "transport" in changed or dialled(after.config) != dialled(before.config)
    after = replace(after, updated_at=uow.clock.time(), revision=before.revision + dialled_anew)
    values = {name: getattr(after, name) for name in (*changed, "updated_at", "revision") if name != "config"}
    if "config" in changed:
        values["sealed_config"] = _seal(sealer, server_id, config)
    await store.update_server(uow, server_id, values)
    if dialled_anew or "enabled" in changed:
        await begin_anew(uow, server_id)
    _emit(uow, SERVER_UPDATED, after, changed if dialled_anew else _without_config(changed, before.config, after.config))
    uow.audit(_deed(SERVER_UPDATED, before, after))
    return after


def _without_config(changed: list[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of a change that leaves running connections alone: the times by themselves in place of the whole `config`."""
    times = [name for name in TIMES if before.get(name) != after.get(name)]
    return [name for name in changed if name != "config"] + times


async def opens(connection: AsyncConnection, sealer: Sealer) -> bool:
    """Whether the configurations in the database were sealed with this ring: one that opens is enough, as is none at all."""
    rows = await store.list_sealed(connection, _LOOKED_AT)
    return not rows or any(_opens(sealer, row) for row in rows)


async def delete_server(uow: UnitOfWork, caller: Caller, server_id: str) -> None:
    """Remove a server; it leaves every key's grant. Raises NotFound, NotPermitted."""
    row = await _row(uow.connection, caller, server_id, lock=True)
    origin = await store.find_origin(uow.connection, server_id)
    await store.delete_server(uow, server_id)
    uow.emit(SERVER_DELETED, space_id=caller.space_id, server_id=server_id, data=_told(row))
    if origin is not None:
        installed: ServerInstalled = {**_told(row), "registry_name": origin["name"], "version": origin["version"]}
        uow.emit(SERVER_UNINSTALLED, space_id=caller.space_id, server_id=server_id, data=installed)
    # Without its configuration: a server whose secrets were lost can be removed too.
    before = {**{name: row[name] for name in ("name", "slug", "enabled")}, "type": row["transport"], "profile_uuid": row["profile_id"]}
    uow.audit(Deed(SERVER_DELETED, "server", server_id, row["name"], row["space_id"], before=before))


async def move_server(uow: UnitOfWork, caller: Caller, server_id: str, profile_id: str) -> None:
    """Give a server another home, which is a profile of its space. Raises NotFound, NotPermitted."""
    row = await _row(uow.connection, caller, server_id, lock=True)
    await store.update_server(uow, server_id, {"profile_id": profile_id, "updated_at": uow.clock.time()})
    uow.emit(SERVER_UPDATED, space_id=caller.space_id, server_id=server_id, data={**_told(row), "changed": ["profile_id"]})
    before, after = {"profile_uuid": row["profile_id"]}, {"profile_uuid": profile_id}
    uow.audit(Deed(SERVER_UPDATED, "server", server_id, row["name"], row["space_id"], before=before, after=after))


def require_whole_grant(caller: Caller) -> None:
    """Raise Forbidden for a key with a server list: what it made would not be on its list."""
    if caller.servers is not None:
        raise Forbidden("A key with a server list cannot create servers", reason="server_list")


def require_transport(caller: Caller, transport: str) -> None:
    """Raise Forbidden for a command where the organisation may not have any."""
    if transport == "STDIO" and not (caller.operator or caller.stdio_allowed):
        raise Forbidden("STDIO servers run commands on the host; the operator has not allowed them", reason="stdio_not_allowed")


async def _row(connection: AsyncConnection, caller: Caller, server_id: str, *, lock: bool = False) -> RowMapping:
    row = await store.find_server(connection, server_id, caller.space_id, lock=lock)
    if row is None:
        raise ServerNotFound
    if not caller.granted(server_id):
        raise NotPermitted
    return row


async def require_home(connection: AsyncConnection, caller: Caller, profile_uuid: str | None, project_uuid: str | None) -> str:
    """The profile that a new server is at home in: the one named, the default one of the project named, or the space's. Raises Invalid."""
    for name, given in (("profile_uuid", profile_uuid), ("project_uuid", project_uuid)):
        if given is not None and parse_uuid(given) is None:
            raise Invalid(name, f"The '{name}' field is not a known id", given)
    ids = [parse_uuid(given) if given else None for given in (profile_uuid, project_uuid)]
    profile_id = await store.find_profile(connection, caller.space_id, ids[0], ids[1])
    if profile_id is None:
        name, given = ("profile_uuid", profile_uuid) if profile_uuid else ("project_uuid", project_uuid)
        raise Invalid(name, f"The '{name}' field is not a known id", given)
    return profile_id


def _emit(uow: UnitOfWork, name: str, server: Server, changed: list[str] | None = None) -> None:
    data: ServerChanged = {"server_uuid": server.id, "name": server.name, "slug": server.slug, "type": server.transport}
    if changed:
        data["changed"] = changed
    uow.emit(name, space_id=server.space_id, server_id=server.id, data=data)


def _deed(action: str, before: Server | None, after: Server) -> Deed:
    return Deed(action, "server", after.id, after.name, after.space_id, before=audited(before) if before else {}, after=audited(after))


def _told(row: RowMapping) -> ServerChanged:
    return {"server_uuid": row["id"], "name": row["name"], "slug": row["slug"], "type": row["transport"]}


def _seal(sealer: Sealer, server_id: str, config: Mapping[str, Any]) -> bytes:
    return sealer.seal(json.dumps(config).encode(), config_aad(server_id))


def _opens(sealer: Sealer, row: RowMapping) -> bool:
    try:
        sealer.open(row["sealed_config"], config_aad(row["id"]))
    except SealBroken:
        return False
    return True


def _server(row: RowMapping, sealer: Sealer) -> Server:
    values = dict(row)
    config = msgspec.json.decode(sealer.open(values.pop("sealed_config"), config_aad(values["id"])))
    return Server(**values, config=config)
