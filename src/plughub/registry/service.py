"""Rules of the registry: who sees which servers, whose star counts, what becomes of a submission."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.registry_tables import registry_entry
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import REGISTRY_UPDATED, RegistryChanged
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, Forbidden, Invalid, ListingNotFound
from plughub.kit.ids import new_id
from plughub.kit.pagination import Page
from plughub.registry import activity, store
from plughub.registry.documents import SCHEMA, Listing, read_document
from plughub.registry.entries import columns
from plughub.registry.schemas import EVERYBODY, LOCAL, Found, Search, Submit

# Of one organisation, waiting or approved.
MOST_SUBMITTED = 1000
STARRED, UNSTARRED = "registry.starred", "registry.unstarred"
SUBMITTED, APPROVED, REMOVED = "registry.submitted", "registry.approved", "registry.removed"
_UNNAMED_VERSION = "0.0.0"
_CODE_HOSTS = {"github.com": "io.github", "gitlab.com": "io.gitlab"}
entry = registry_entry.c


def scopes_of(caller: Caller) -> tuple[str, str]:
    """What the caller sees: everybody's, and what its organisation has submitted."""
    return EVERYBODY, caller.organization_id


async def search(connection: AsyncConnection, caller: Caller, wanted: Search, *, limit: int, offset: int) -> Page[Found]:
    """A page of the servers that fit."""
    rows, total = await store.search(connection, scopes_of(caller), wanted, limit, offset)
    return Page([store.found_of(row) for row in rows], total, limit, offset)


async def get_listed(connection: AsyncConnection, caller: Caller, name: str) -> RowMapping:
    """The latest version of a server by its full name or an unambiguous last part, with its `document`.

    Raises ListingNotFound, Conflict (several servers end so: `names`).
    """
    rows = await store.find_named(connection, scopes_of(caller), name)
    names = list(dict.fromkeys(row["name"] for row in rows))
    if not rows:
        raise ListingNotFound
    if len(names) > 1:
        raise Conflict(f"Several servers are called '{name[:200]}'", names=names, hint="Give the full name of one of them")
    return max(rows, key=lambda row: row["scope"])  # the organisation's own before everybody's


async def set_star(uow: UnitOfWork, caller: Caller, name: str, *, starred: bool) -> RowMapping:
    """Give a star or take it back: a person's own, or the one that all keys of an organisation give together. Raises as `get_listed`."""
    found = await get_listed(uow.connection, caller, name)
    if await activity.change_star(uow, caller, found["scope"], found["name"], starred=starred):
        _tell(uow, caller, STARRED if starred else UNSTARRED, found, {"starred": not starred}, {"starred": starred})
    return await get_listed(uow.connection, caller, found["name"])


async def submit(uow: UnitOfWork, caller: Caller, body: Submit) -> RowMapping:
    """List a server for the caller's organisation, or a further version of it. The operator may show it to everybody.

    Raises Invalid, Conflict (the version exists, or the name is everybody's already), Forbidden (a key with a server list).
    """
    if caller.servers is not None:
        raise Forbidden("A key with a server list cannot submit servers", reason="server_list")
    listing = read_document(body.server, foreign=False, prefix="server") if body.server is not None else _described(body)
    versions = await store.known_versions(uow.connection, EVERYBODY, [listing.name])
    if any(row["organization_id"] != caller.organization_id for row in versions):
        raise Conflict(f"'{listing.name}' is in the registry already", hint="Choose a name of your own namespace")
    versions = [*versions, *await store.known_versions(uow.connection, caller.organization_id, [listing.name])]
    if any(row["version"] == listing.version for row in versions):
        raise Conflict(f"Version {listing.version} of '{listing.name}' is in the registry already", hint="Give it another version")
    if await store.count_of(uow.connection, entry.source == LOCAL, entry.organization_id == caller.organization_id) >= MOST_SUBMITTED:
        raise Conflict(f"An organisation submits at most {MOST_SUBMITTED} versions")
    now, scope = uow.clock.time(), caller.organization_id
    await store.update_entries(uow, {"is_latest": False}, entry.scope == scope, entry.name == listing.name)
    values = {"id": new_id(), "scope": scope, "organization_id": caller.organization_id, "source": LOCAL, **columns(listing)}
    values |= {"is_latest": True, "status": "active", "published_at": now, "updated_at": now}
    await store.insert_entry(uow, values)
    made = await _submission(uow, values["id"])
    _tell(uow, caller, SUBMITTED, made, {}, _audited(made))
    return made


async def approve(uow: UnitOfWork, caller: Caller, submission_id: str) -> RowMapping:
    """Show a submitted server to everybody, in all its versions. Raises ListingNotFound, Conflict (the name is another one's by now)."""
    before = await _submission(uow, submission_id)
    if before["scope"] == EVERYBODY:
        return before
    others = await store.known_versions(uow.connection, EVERYBODY, [before["name"]])
    versions = {row["version"] for row in await store.known_versions(uow.connection, before["scope"], [before["name"]])}
    if any(row["organization_id"] != before["organization_id"] or row["version"] in versions for row in others):
        raise Conflict(f"'{before['name']}' is in the registry already")
    await store.update_entries(uow, {"is_latest": False}, entry.scope == EVERYBODY, entry.name == before["name"])
    if not others:
        await store.move_figures(uow, before["name"], before["scope"], EVERYBODY)
    same = (entry.scope == before["scope"], entry.name == before["name"])
    await store.update_entries(uow, {"scope": EVERYBODY, "updated_at": uow.clock.time()}, *same)
    after = await _submission(uow, submission_id)
    _tell(uow, caller, APPROVED, after, _audited(before), _audited(after))
    return after


async def remove(uow: UnitOfWork, caller: Caller, submission_id: str) -> RowMapping:
    """Take a submitted version out of the registry; servers that came of it stay. Raises ListingNotFound."""
    found = await _submission(uow, submission_id)
    await store.delete_entries(uow, entry.id == submission_id)
    left = await store.list_versions(uow.connection, found["scope"], found["name"])
    if found["is_latest"] and left:
        await store.update_entries(uow, {"is_latest": True}, entry.id == left[0]["id"])
    _tell(uow, caller, REMOVED, found, _audited(found), {})
    return found


async def list_submissions(connection: AsyncConnection, *, limit: int, offset: int) -> Page[RowMapping]:
    """What the organisations of the hub have submitted, for its operator."""
    rows, total = await store.list_submissions(connection, limit, offset)
    return Page(list(rows), total, limit, offset)


async def _submission(uow: UnitOfWork, submission_id: str) -> RowMapping:
    row = await store.find_entry(uow.connection, entry.id == submission_id, entry.source == LOCAL)
    if row is None:
        raise ListingNotFound
    return row


def _described(body: Submit) -> Listing:
    """The listing of the documents' form: it says where a server is, not how it is installed. Raises Invalid."""
    if body.repository is None:
        raise Invalid("server", "The 'server' field is required, or 'repository'")
    scheme, _, place = body.repository.rstrip("/").removesuffix(".git").partition("://")
    host, _, path = place.partition("/")
    owner, _, name = path.partition("/")
    if scheme != "https" or not owner or not name or "/" in name:
        raise Invalid(
            "repository", "The 'repository' field is not the address of a repository: https://host/owner/name", body.repository[:200]
        )
    namespace = f"{_CODE_HOSTS.get(host, '.'.join(reversed(host.split('.'))))}.{owner}"
    variables = [{"name": one} if isinstance(one, str) else one for one in body.environment_variables or ()]
    told = {"transport": body.transport, "package_type": body.package_type, "environment_variables": variables}
    document = {
        "$schema": SCHEMA,
        "name": f"{namespace}/{name}",
        "description": body.description or f"Submitted as {place}"[:100],
        "version": _UNNAMED_VERSION,
        "repository": {"url": body.repository, "source": host.partition(".")[0]},
        "_meta": {"io.modelcontextprotocol.registry/publisher-provided": {key: value for key, value in told.items() if value}},
    }
    return read_document(document, foreign=False)


def _audited(row: RowMapping) -> dict[str, Any]:
    return {"name": row["name"], "version": row["version"], "visible_to": "everybody" if row["scope"] == EVERYBODY else "organization"}


def _tell(uow: UnitOfWork, caller: Caller, action: str, about: RowMapping, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    data: RegistryChanged = {"name": about["name"], "version": about["version"], "change": action.rpartition(".")[2]}
    uow.emit(REGISTRY_UPDATED, space_id=caller.space_id, data=data)
    uow.audit(Deed(action, "registry", about["id"], about["name"], caller.space_id, before=before, after=after))
