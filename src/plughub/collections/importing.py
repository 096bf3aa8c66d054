"""A collection out of another organisation, or hub: its servers are made in a profile, all of them or none."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.collections import service, store
from plughub.collections.schemas import Snapshot
from plughub.collections.snapshots import read_snapshot
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import CollectionNotFound, Invalid
from plughub.kit.ids import parse_uuid
from plughub.servers.client_files import ClientFile, Entry
from plughub.servers.importing import Imported, OnConflict, import_servers
from plughub.servers.schemas import checked


async def find_snapshot(
    connection: AsyncConnection, caller: Caller, sealer: Sealer, *, collection_uuid: str | None, share_token: str | None
) -> Snapshot:
    """That of a collection of the caller's, of a public one, or of the one behind a link. Raises Invalid for what is not there."""
    try:
        if share_token is not None:
            found = await service.export_shared(connection, share_token, sealer)
        else:
            found = await _visible(connection, caller, sealer, parse_uuid(collection_uuid or ""))
    except CollectionNotFound as error:
        name = "shareToken" if share_token is not None else "collectionUuid"
        raise Invalid(name, f"The '{name}' field is not that of a collection", None if share_token else collection_uuid) from error
    return checked(Snapshot, {name: value for name, value in found.items() if name != "organization"})


async def import_snapshot(
    uow: UnitOfWork,
    caller: Caller,
    sealer: Sealer,
    snapshot: Snapshot,
    *,
    values: Mapping[str, str],
    profile_uuid: str | None,
    on_conflict: OnConflict,
) -> Imported:
    """Make its servers in a profile, the default one unless another is named.

    Raises Invalid (naming every placeholder without a value), Conflict for `on_conflict` error, Forbidden as `create_server` does.
    """
    if profile_uuid is not None:
        profile_id = parse_uuid(profile_uuid)
        if profile_id is None or not await store.has_profile(uow.connection, caller.space_id, profile_id):
            raise Invalid("profileUuid", "The 'profileUuid' field is not a known id", profile_uuid)
    creates = read_snapshot(snapshot, values, profile_uuid)
    return await import_servers(uow, caller, ClientFile([Entry(create.name, create) for create in creates]), on_conflict, sealer)


async def _visible(connection: AsyncConnection, caller: Caller, sealer: Sealer, collection_id: str | None) -> dict[str, Any]:
    if collection_id is None:
        raise CollectionNotFound
    if "read:collections" in caller.scopes:
        try:
            return await service.export_collection(connection, caller, collection_id, sealer)
        except CollectionNotFound:
            pass  # it may be somebody else's that everybody may see
    return await service.export_public(connection, collection_id, sealer)
