"""Collections of servers, in the Plugged.in dialect (CONTRACT section 6)."""

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from plughub.api import collection_shapes as shapes
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, reply, uuid_or_404
from plughub.api.servers import shown
from plughub.collections import service
from plughub.collections.importing import find_snapshot, import_snapshot
from plughub.collections.schemas import Collection, CollectionCreate, CollectionUpdate, Snapshot
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.routes import PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import CollectionNotFound, Invalid
from plughub.kit.pagination import Page
from plughub.servers.importing import OnConflict

Search = Annotated[str | None, Field(max_length=100), Query(description="Only those with this in their name or description")]
OfProfile = Annotated[str | None, Query(description="Only the collections of this profile")]
ConflictRule = Annotated[OnConflict, Query(description="What to do with names that exist: skip them, rename the new one, or refuse all")]


async def list_collections(
    caller: CallerDep, connection: ReadDep, profile_uuid: OfProfile = None, limit: PageLimit = 20, offset: Offset = 0
) -> Response:
    """The collections of the caller's organisation and environment, oldest first; for a key with a server list those that hold one."""
    profile_id = None
    if profile_uuid is not None:
        profile_id = await _profile(connection, caller, profile_uuid)
    return _page(await service.list_collections(connection, caller, profile_id=profile_id, limit=limit, offset=offset))


async def create_collection(caller: CallerDep, uow: UowDep, body: CollectionCreate) -> Response:
    """Make a collection of servers of the environment, in the order given. With `isPublic` everybody may see it, without a key."""
    return reply(_shown(await service.create_collection(uow, caller, body)), 201)


async def get_collection(
    caller: CallerDep, connection: ReadDep, collection_uuid: str, limit: PageLimit = 20, offset: Offset = 0
) -> Response:
    """One collection. With the id of a profile in its place: the collections of that profile, as a list."""
    id_ = _id(collection_uuid)
    if await service.has_profile(connection, caller, id_):
        page = await service.list_collections(connection, caller, profile_id=id_, limit=limit, offset=offset)
        if caller.servers is None or page.total:  # else a key with a server list would learn that the profile is there
            return _page(page)
    return reply(_shown(await service.get_collection(connection, caller, id_)))


async def update_collection(caller: CallerDep, uow: UowDep, collection_uuid: str, body: CollectionUpdate) -> Response:
    """Change a collection; what is not given stays. `serverUuids` replaces the list."""
    return reply(_shown(await service.update_collection(uow, caller, _id(collection_uuid), body)))


async def delete_collection(caller: CallerDep, uow: UowDep, collection_uuid: str) -> Response:
    """Remove a collection and its link; the servers in it stay."""
    await service.delete_collection(uow, caller, _id(collection_uuid))
    return Response(status_code=204)


async def share(caller: CallerDep, uow: UowDep, base: BaseUrlDep, collection_uuid: str) -> Response:
    """Make a link that shows the collection to whoever has it. It is told this once; an older link is worth nothing from now on."""
    found, token = await service.share(uow, caller, _id(collection_uuid))
    at = rfc3339(found.shared_at or 0.0)
    return reply({"share_token": token, "share_url": f"{base}{_PATH}/shared/{token}", "shared_at": at}, 201)


async def unshare(caller: CallerDep, uow: UowDep, collection_uuid: str) -> Response:
    """Take the link back: it is worth nothing from now on."""
    await service.unshare(uow, caller, _id(collection_uuid))
    return Response(status_code=204)


async def export_collection(caller: CallerDep, connection: ReadDep, hub: HubDep, collection_uuid: str) -> Response:
    """The collection as a document for another organisation or hub. No secret is in it: each is a name in double braces."""
    return reply(await service.export_collection(connection, caller, _id(collection_uuid), hub.sealer))


async def get_shared(connection: ReadDep, hub: HubDep, share_token: str) -> Response:
    """The collection behind a link, as a document that can be imported."""
    return reply(await service.export_shared(connection, share_token, hub.sealer))


async def list_public(connection: ReadDep, q: Search = None, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The collections that everybody may see, the latest changed first."""
    page = await service.list_public(connection, q, limit=limit, offset=offset)
    listed = [
        {
            "uuid": found.id,
            "name": found.name,
            "description": found.description,
            "organization": found.organization,
            "servers_count": found.servers_count,
            "created_at": rfc3339(found.created_at),
            "updated_at": rfc3339(found.updated_at),
        }
        for found in page.items
    ]
    return reply({"collections": listed, "total": page.total, "limit": limit, "offset": offset})


async def get_public(connection: ReadDep, hub: HubDep, collection_uuid: str) -> Response:
    """A collection that everybody may see, as a document that can be imported."""
    return reply(await service.export_public(connection, _id(collection_uuid), hub.sealer))


async def import_collection(
    caller: CallerDep, uow: UowDep, hub: HubDep, body: shapes.ImportCollection, on_conflict: ConflictRule = "rename"
) -> Response:
    """Register every server of a collection in a profile, or none. Each placeholder without a value is asked for by its name (400)."""
    snapshot = await _snapshot(uow, caller, hub, body)
    done = await import_snapshot(
        uow, caller, hub.sealer, snapshot, values=body.values, profile_uuid=body.profile_uuid, on_conflict=on_conflict
    )
    imported = [shown(server, hub.board.get(server.id)) for server in done.servers]
    return reply({"imported": imported, "skipped": done.skipped, "renamed": done.renamed, "on_conflict": on_conflict})


async def _snapshot(uow: UnitOfWork, caller: Caller, hub: Hub, body: shapes.ImportCollection) -> Snapshot:
    given = [source for source in (body.collection, body.collection_uuid, body.share_token) if source is not None]
    if not given:
        raise Invalid("collection", "The 'collection' field is required, or 'collectionUuid', or 'shareToken'")
    if len(given) > 1:
        raise Invalid("collection", "One of 'collection', 'collectionUuid' and 'shareToken' is wanted, not several")
    if body.collection is not None:
        return body.collection
    return await find_snapshot(uow.connection, caller, hub.sealer, collection_uuid=body.collection_uuid, share_token=body.share_token)


async def _profile(connection: ReadDep, caller: Caller, profile_uuid: str) -> str:
    try:
        profile_id = _id(profile_uuid)
    except CollectionNotFound:
        profile_id = ""
    if not await service.has_profile(connection, caller, profile_id):
        raise Invalid("profile_uuid", "The 'profile_uuid' field is not a known id", profile_uuid)
    return profile_id


def _page(page: Page[Collection]) -> Response:
    listed = [_shown(found) for found in page.items]
    return reply({"collections": listed, "total": page.total, "limit": page.limit, "offset": page.offset})


def _shown(found: Collection) -> dict[str, Any]:
    return {
        "uuid": found.id,
        "name": found.name,
        "description": found.description,
        "profileUuid": found.profile_id,
        "serverUuids": list(found.server_ids),
        "isPublic": found.is_public,
        "shared": found.shared_at is not None,
        "shared_at": None if found.shared_at is None else rfc3339(found.shared_at),
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def _id(text: str) -> str:
    return uuid_or_404(text, CollectionNotFound)


_PATH, _TAG = "/api/collections", "Collections"
_ONE = _PATH + "/{collection_uuid}"
_READ, _WRITE = "read:collections", "write:collections"
ROUTES = [
    # Made by a run of the Postman collection in the folder that removes servers again, so its tag is theirs.
    Route(
        "POST", _PATH + "/import", "write:servers", import_collection, "Import a collection", "Servers", output=shapes.ImportedCollection
    ),
    Route("GET", _PATH, _READ, list_collections, "List collections", _TAG, output=shapes.CollectionList),
    Route("POST", _PATH, _WRITE, create_collection, "Make a collection", _TAG, status=201, output=shapes.CollectionOut),
    Route("GET", _PATH + "/public", PUBLIC, list_public, "List public collections", _TAG, output=shapes.PublicCollectionList),
    Route("GET", _PATH + "/public/{collection_uuid}", PUBLIC, get_public, "Get a public one", _TAG, output=shapes.PublicSnapshotOut),
    Route("POST", _ONE + "/share", _WRITE, share, "Share by a link", _TAG, status=201, output=shapes.SharedOut, secret=True),
    Route(
        "GET", _PATH + "/shared/{share_token}", PUBLIC, get_shared, "Get a shared one", _TAG, output=shapes.PublicSnapshotOut, secret=True
    ),
    Route("DELETE", _ONE + "/share", _WRITE, unshare, "Take the link back", _TAG, status=204),
    Route("GET", _ONE, _READ, get_collection, "Get a collection", _TAG, output=shapes.CollectionOut | shapes.CollectionList),
    Route("GET", _ONE + "/export", _READ, export_collection, "Export a collection", _TAG, output=shapes.SnapshotOut),
    Route("PATCH", _ONE, _WRITE, update_collection, "Change a collection", _TAG, output=shapes.CollectionOut),
    Route("DELETE", _ONE, _WRITE, delete_collection, "Remove a collection", _TAG, status=204),
]
