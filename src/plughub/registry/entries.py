"""Keeping what a source says of servers: the hub's own catalogue, other registries page by page, and what organisations submit.

A name belongs to the source that had it first, but that the catalogue comes before all others.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import plughub
from plughub.db.registry_tables import registry_entry
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.store import lock_hub
from plughub.kit.ids import new_id
from plughub.registry import store
from plughub.registry.documents import BUILTIN, Listing, read_document
from plughub.registry.schemas import CATALOGUE, EVERYBODY

WEATHER: Final = "weather-server"
MOST_VERSIONS: Final = 20
_FILE = Path(__file__).with_name("catalogue.json")
entry = registry_entry.c


@dataclass(frozen=True, slots=True)
class Version:
    """A version as a source lists it."""

    listing: Listing
    is_latest: bool = True
    status: str = "active"
    published_at: float | None = None


async def load_catalogue(uow: UnitOfWork) -> None:
    """Bring the servers that come with the hub into the registry; when they are there already nothing happens."""
    digest = hashlib.sha256(_FILE.read_bytes() + plughub.__version__.encode()).hexdigest()
    await lock_hub(uow)
    known = await store.find_source(uow.connection, CATALOGUE)
    if known is not None and known["cursor"] == digest:
        return
    listings = [_weather(), *(read_document(document, foreign=True) for document in json.loads(_FILE.read_text()))]
    names = [listing.name for listing in listings]
    await store.delete_entries(uow, entry.scope == EVERYBODY, entry.name.in_(names), entry.source != CATALOGUE)
    await store.delete_entries(uow, entry.source == CATALOGUE, entry.name.not_in(names))
    await keep_versions(uow, CATALOGUE, [Version(listing) for listing in listings])
    await store.keep_source(uow, CATALOGUE, {"cursor": digest, "synced_at": uow.clock.time()})


async def keep_versions(uow: UnitOfWork, source: str, versions: Sequence[Version]) -> list[str]:
    """Keep what a source lists for everybody; the names that belong to another source already, and so are left out."""
    names = {version.listing.name for version in versions}
    held: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in names}
    for row in await store.known_versions(uow.connection, EVERYBODY, names):
        held[row["name"]][row["version"]] = dict(row)
    taken = []
    for version in versions:
        name = version.listing.name
        if any(row["source"] != source for row in held[name].values()):
            taken.append(name)
            continue
        values = await _keep(uow, source, version, held[name].get(version.listing.version))
        held[name][version.listing.version] = values
        for old in list(held[name])[:-MOST_VERSIONS]:
            await store.delete_entries(uow, entry.id == held[name].pop(old)["id"])
    return taken


async def _keep(uow: UnitOfWork, source: str, version: Version, known: Mapping[str, Any] | None) -> Mapping[str, Any]:
    now = uow.clock.time()
    values = {**columns(version.listing), "is_latest": version.is_latest, "status": version.status}
    if known is not None and all(known[name] == value for name, value in values.items()):
        return known
    if version.is_latest:
        same = (entry.scope == EVERYBODY, entry.name == version.listing.name, entry.version != version.listing.version)
        await store.update_entries(uow, {"is_latest": False, "updated_at": now}, *same, entry.is_latest)
    if known is not None:
        await store.replace_entry(uow, known["id"], {**values, "updated_at": now})
        return {**known, **values}
    made = {"id": new_id(), "scope": EVERYBODY, "organization_id": None, "source": source, **values}
    made |= {"published_at": min(max(version.published_at or now, 0.0), now), "updated_at": now}
    await store.insert_entry(uow, made)
    return made


def columns(listing: Listing) -> dict[str, Any]:
    """The columns that a document fills."""
    return {
        "name": listing.name,
        "short_name": listing.short_name,
        "version": listing.version,
        "title": listing.title,
        "description": listing.description,
        "author": listing.author,
        "package_type": listing.package_type,
        "transports": " ".join(listing.transports),
        "repository": listing.repository,
        "words": f"{listing.name} {listing.title} {listing.description} {listing.author}".lower(),
        "document": json.dumps(listing.document, ensure_ascii=False, separators=(",", ":")),
    }


def _weather() -> Listing:
    """The demo server: every hub has it, so its name needs no namespace, and other registries do not get it."""
    version = plughub.__version__
    package = {"registryType": BUILTIN, "identifier": "plughub", "version": version, "transport": {"type": "stdio"}}
    title, description = "Weather Server", "Weather that is made up, and tools to try: the demo server of the hub"
    document = {"name": WEATHER, "title": title, "description": description, "version": version, "packages": [package]}
    return Listing(WEATHER, version, title, description, "plughub", BUILTIN, ("stdio",), "", document)
