"""Rules of collections: who sees which, what a change does, and what of them leaves the organisation."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.collections import store
from plughub.collections.schemas import Collection, CollectionCreate, CollectionUpdate, PublicCollection
from plughub.collections.snapshots import write_snapshot
from plughub.db.audit import Deed, Hidden
from plughub.db.collection_tables import collection
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import (
    COLLECTION_CREATED,
    COLLECTION_DELETED,
    COLLECTION_PUBLISHED,
    COLLECTION_SHARED,
    COLLECTION_UNSHARED,
    COLLECTION_UPDATED,
    CollectionChanged,
)
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.crypto import Sealer, token_digest
from plughub.kit.errors import CollectionNotFound, Conflict, Forbidden, Invalid
from plughub.kit.ids import new_id, parse_uuid
from plughub.kit.pagination import Page
from plughub.servers.service import list_servers_of
from plughub.servers.store import find_profile

# Of one space.
MAX_COLLECTIONS = 1_000
_TOKEN_BYTES = 24
_MAX_TOKEN = 100
# How the documents call what the columns hold.
_DOCUMENTED = {"profile_id": "profileUuid", "server_ids": "serverUuids", "is_public": "isPublic"}


def require_all_servers(caller: Caller) -> None:
    """Raise Forbidden for a key with a server list: what it would change may hold what it may not see."""
    if caller.servers is not None:
        raise Forbidden("A key with a server list cannot change collections", reason="server_list")


async def create_collection(uow: UnitOfWork, caller: Caller, body: CollectionCreate) -> Collection:
    """Raises Forbidden (a key with a server list), Invalid (a profile or server that is not there), Conflict (too many)."""
    require_all_servers(caller)
    await store.lock_space(uow, caller.space_id)
    if await store.count(uow.connection, caller.space_id) >= MAX_COLLECTIONS:
        raise Conflict(f"There may be {MAX_COLLECTIONS} collections", hint="Remove one that nobody needs")
    now = uow.clock.time()
    made = Collection(
        id=new_id(),
        space_id=caller.space_id,
        profile_id=await _profile(uow.connection, caller, body.profile_uuid),
        name=body.name,
        description=body.description or "",
        is_public=body.is_public,
        shared_at=None,
        created_at=now,
        updated_at=now,
        created_by=caller.user_id,
        server_ids=await _servers(uow.connection, caller, body.server_uuids),
    )
    values = {column.name: getattr(made, column.name) for column in store.COLUMNS}
    await store.insert_collection(uow, values, made.server_ids)
    _emit(uow, COLLECTION_CREATED, made)
    if made.is_public:
        _emit(uow, COLLECTION_PUBLISHED, made)
    uow.audit(_deed(COLLECTION_CREATED, None, made))
    return made


async def list_collections(
    connection: AsyncConnection, caller: Caller, *, profile_id: str | None = None, limit: int, offset: int
) -> Page[Collection]:
    """The collections that the caller may see, oldest first; with a server list those that hold one of its servers."""
    rows, total = await store.list_collections(connection, caller.space_id, profile_id, caller.servers, limit, offset)
    return Page(await _with_servers(connection, rows, caller), total, limit, offset)


async def get_collection(connection: AsyncConnection, caller: Caller, collection_id: str) -> Collection:
    """The collection with the servers that the caller may use. Raises CollectionNotFound: missing, foreign and unseen look alike."""
    return await _get(connection, caller, collection_id)


async def has_profile(connection: AsyncConnection, caller: Caller, profile_id: str) -> bool:
    """Whether the id is that of a profile of the caller's space: the documents ask for collections by it."""
    return await store.has_profile(connection, caller.space_id, profile_id)


async def update_collection(uow: UnitOfWork, caller: Caller, collection_id: str, body: CollectionUpdate) -> Collection:
    """Change what is given. Raises CollectionNotFound, Forbidden, Invalid."""
    require_all_servers(caller)
    before = await _get(uow.connection, caller, collection_id, lock=True)
    given: dict[str, Any] = {}
    if body.name is not None:
        given["name"] = body.name
    if "description" in body.model_fields_set:
        given["description"] = body.description or ""
    if body.profile_uuid is not None:
        given["profile_id"] = await _profile(uow.connection, caller, body.profile_uuid)
    if body.server_uuids is not None:
        given["server_ids"] = await _servers(uow.connection, caller, body.server_uuids)
    if body.is_public is not None:
        given["is_public"] = body.is_public
    changes = {name: value for name, value in given.items() if value != getattr(before, name)}
    if not changes:
        return before
    after = replace(before, **changes, updated_at=uow.clock.time())
    columns = {name: value for name, value in changes.items() if name != "server_ids"}
    await store.update_collection(uow, collection_id, {**columns, "updated_at": after.updated_at})
    if "server_ids" in changes:
        await store.replace_servers(uow, collection_id, after.server_ids)
    _emit(uow, COLLECTION_UPDATED, after, [_DOCUMENTED.get(name, name) for name in changes])
    if changes.get("is_public"):
        _emit(uow, COLLECTION_PUBLISHED, after)
    uow.audit(_deed(COLLECTION_UPDATED, before, after))
    return after


async def delete_collection(uow: UnitOfWork, caller: Caller, collection_id: str) -> None:
    """Remove a collection and its link; its servers stay. Raises CollectionNotFound, Forbidden."""
    require_all_servers(caller)
    removed = await _get(uow.connection, caller, collection_id, lock=True)
    await store.delete_collection(uow, collection_id)
    _emit(uow, COLLECTION_DELETED, removed)
    uow.audit(_deed(COLLECTION_DELETED, removed, None))


async def share(uow: UnitOfWork, caller: Caller, collection_id: str) -> tuple[Collection, str]:
    """A link to the collection for whoever has it, in the place of an older one: its token (192 random bits), told this once.

    Raises CollectionNotFound, Forbidden.
    """
    require_all_servers(caller)
    before = await _get(uow.connection, caller, collection_id, lock=True)
    token, after = secrets.token_urlsafe(_TOKEN_BYTES), replace(before, shared_at=uow.clock.time())
    await store.update_collection(uow, collection_id, {"share_digest": token_digest(token), "shared_at": after.shared_at})
    _emit(uow, COLLECTION_SHARED, after)
    shared = _deed(COLLECTION_SHARED, before, after)
    uow.audit(replace(shared, after={**shared.after, "link": Hidden(token)}))
    return after, token


async def unshare(uow: UnitOfWork, caller: Caller, collection_id: str) -> None:
    """The link is worth nothing from now on. Raises CollectionNotFound, Forbidden."""
    require_all_servers(caller)
    before = await _get(uow.connection, caller, collection_id, lock=True)
    if before.shared_at is None:
        return
    after = replace(before, shared_at=None)
    await store.update_collection(uow, collection_id, {"share_digest": None, "shared_at": None})
    _emit(uow, COLLECTION_UNSHARED, after)
    uow.audit(_deed(COLLECTION_UNSHARED, before, after))


async def export_collection(connection: AsyncConnection, caller: Caller, collection_id: str, sealer: Sealer) -> dict[str, Any]:
    """Its snapshot, of the servers that the caller may use. Raises CollectionNotFound."""
    return await _snapshot(connection, await _get(connection, caller, collection_id), sealer)


async def export_public(connection: AsyncConnection, collection_id: str, sealer: Sealer) -> dict[str, Any]:
    """The snapshot of what everybody may see, with the name of its organisation. Raises CollectionNotFound."""
    return await _for_everybody(connection, sealer, collection.c.id == collection_id, collection.c.is_public)


async def export_shared(connection: AsyncConnection, token: str, sealer: Sealer) -> dict[str, Any]:
    """The snapshot behind a link, with the name of its organisation. Raises CollectionNotFound."""
    return await _for_everybody(connection, sealer, collection.c.share_digest == token_digest(token[:_MAX_TOKEN]))


async def list_public(connection: AsyncConnection, text: str | None, *, limit: int, offset: int) -> Page[PublicCollection]:
    """What everybody may see, the latest changed first."""
    rows, total = await store.list_public(connection, text, limit, offset)
    return Page([PublicCollection(**{name: row[name] for name in PublicCollection.__slots__}) for row in rows], total, limit, offset)


async def _for_everybody(connection: AsyncConnection, sealer: Sealer, *conditions: ColumnElement[bool]) -> dict[str, Any]:
    row = await store.find_collection(connection, *conditions)
    if row is None:
        raise CollectionNotFound
    [found] = await _with_servers(connection, [row], None)
    return {**await _snapshot(connection, found, sealer), "organization": await store.organization_name(connection, found.space_id)}


async def _snapshot(connection: AsyncConnection, found: Collection, sealer: Sealer) -> dict[str, Any]:
    servers = {server.id: server for server in await list_servers_of(connection, found.space_id, found.server_ids, sealer)}
    return write_snapshot(found, [servers[id_] for id_ in found.server_ids if id_ in servers])


async def _get(connection: AsyncConnection, caller: Caller, collection_id: str, *, lock: bool = False) -> Collection:
    conditions = (collection.c.id == collection_id, collection.c.space_id == caller.space_id)
    row = await store.find_collection(connection, *conditions, granted=caller.servers, lock=lock)
    if row is None:
        raise CollectionNotFound
    return (await _with_servers(connection, [row], caller))[0]


async def _with_servers(connection: AsyncConnection, rows: Sequence[RowMapping], caller: Caller | None) -> list[Collection]:
    """The collections of the rows with their servers; for a caller those that the grant includes."""
    servers = await store.list_server_ids(connection, [row["id"] for row in rows])
    return [Collection(**row, server_ids=tuple(id_ for id_ in servers[row["id"]] if caller is None or caller.granted(id_))) for row in rows]


async def _profile(connection: AsyncConnection, caller: Caller, profile_uuid: str | None) -> str:
    profile_id = None if profile_uuid is None else parse_uuid(profile_uuid)
    found = None
    if profile_id is not None or profile_uuid is None:
        found = await find_profile(connection, caller.space_id, profile_id, None)
    if found is None:
        raise Invalid("profileUuid", "The 'profileUuid' field is not a known id", profile_uuid)
    return found


async def _servers(connection: AsyncConnection, caller: Caller, given: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the order given. Raises Invalid naming every one that is not there."""
    ids = [parse_uuid(text) for text in given]
    known = await store.list_known_servers(connection, caller.space_id, [id_ for id_ in ids if id_ is not None])
    errors = [
        {"field": f"serverUuids.{at}", "message": f"The 'serverUuids.{at}' field is not a known id"}
        for at, id_ in enumerate(ids)
        if id_ not in known
    ]
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], errors=errors)
    return tuple(dict.fromkeys(id_ for id_ in ids if id_ is not None))


def _emit(uow: UnitOfWork, name: str, about: Collection, changed: list[str] | None = None) -> None:
    data: CollectionChanged = {"collection_uuid": about.id, "name": about.name, "is_public": about.is_public}
    if changed:
        data["changed"] = changed
    uow.emit(name, space_id=about.space_id, data=data)


def _deed(action: str, before: Collection | None, after: Collection | None) -> Deed:
    about = after or before
    if about is None:
        raise LookupError("a deed is about something")
    return Deed(action, "collection", about.id, about.name, about.space_id, before=_audited(before), after=_audited(after))


def _audited(found: Collection | None) -> Mapping[str, Any]:
    if found is None:
        return {}
    return {
        "name": found.name,
        "description": found.description,
        "profileUuid": found.profile_id,
        "serverUuids": found.server_ids,
        "isPublic": found.is_public,
        "shared_at": None if found.shared_at is None else rfc3339(found.shared_at),
    }
