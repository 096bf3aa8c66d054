"""The registry in the Plugged.in dialect (CONTRACT section 6): what there is, what is asked for it, installing, stars, submissions."""

from typing import Annotated, Any

import msgspec
from fastapi import Query, Response
from sqlalchemy import RowMapping

import plughub
from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import ServerOut
from plughub.api.registry_shapes import InstalledList, ListedDetail, RegistryHealth, SearchOut, Starred, SubmissionOut
from plughub.api.reply import Offset, PageLimit, reply
from plughub.api.servers import shown as shown_server
from plughub.door.routes import Route
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Conflict
from plughub.kit.ids import public_id
from plughub.registry import activity, service, store
from plughub.registry.launch import choose, inputs_of
from plughub.registry.schemas import EVERYBODY, Found, Install, OwnInstall, Search, Submit

MAX_QUERY = 200
_MOST_WORDS = 8
Query200 = Annotated[str, Query(max_length=MAX_QUERY, description="Each word must be in the name, title, description or author")]


def words_of(text: str) -> tuple[str, ...]:
    """What is looked for, word by word."""
    return tuple(dict.fromkeys(text.replace("\0", " ").lower().split()))[:_MOST_WORDS]


async def search(caller: CallerDep, connection: ReadDep, q: Query200 = "", limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """Servers that can be installed: the nearest names first, then the most installed here."""
    page = await service.search(connection, caller, Search(words_of(q)), limit=limit, offset=offset)
    return reply({"results": [shown(found) for found in page.items], "total": page.total, "limit": limit, "offset": offset})


async def get_listed(caller: CallerDep, connection: ReadDep, server_name: str) -> Response:
    """One server with its document and what an installation of it asks for. A slash in the name is written `%2F`."""
    row = await service.get_listed(connection, caller, _name(server_name))
    found = store.found_of(row)
    versions = await store.list_versions(connection, found.scope, found.name)
    own = await activity.list_own(connection, caller, found.name)
    answer = {
        **shown(found),
        "server": msgspec.json.decode(row["document"]),
        "versions": [version["version"] for version in versions],
        **_asked(caller, row),
        "starred": await activity.is_starred(connection, caller, found.scope, found.name),
        "installations": [_installed(one) for one in own],
    }
    return reply(answer)


async def put_star(caller: CallerDep, uow: UowDep, server_name: str) -> Response:
    """Give a server a star: a person's own, or the one that the keys of an organisation give together."""
    row = await service.set_star(uow, caller, _name(server_name), starred=True)
    return reply({"name": row["name"], "starred": True, "stars": row["stars"]})


async def delete_star(caller: CallerDep, uow: UowDep, server_name: str) -> Response:
    """Take the star back."""
    row = await service.set_star(uow, caller, _name(server_name), starred=False)
    return reply({"name": row["name"], "starred": False, "stars": row["stars"]})


async def install(caller: CallerDep, actor: ActorDep, hub: HubDep, body: Install) -> Response:
    """Install a server: its pinned package is downloaded now, into the data directory, and runs from there; a remote one is registered.

    What it requires and is not given is named, field by field. An installation that fails leaves nothing behind.
    """
    server = await hub.registry.installer.install(caller, actor, body)
    return reply(shown_server(server, hub.board.get(server.id)), 201)


async def submit(caller: CallerDep, uow: UowDep, body: Submit) -> Response:
    """List a server for the own organisation, by its `server.json`; the hub's operator may show it to everybody."""
    return reply(shown_submission(await service.submit(uow, caller, body)), 201)


async def list_installed(caller: CallerDep, connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The servers that came from the registry, and whether it has another version of them by now."""
    own = await activity.list_own(connection, caller)
    page = [_installed(one) for one in own[offset : offset + limit]]
    return reply({"installations": page, "total": len(own), "limit": limit, "offset": offset})


async def health(caller: CallerDep, connection: ReadDep) -> Response:
    """Whether other registries were read, and how many servers there are."""
    sources = await store.list_sources(connection)
    synced = [source["synced_at"] for source in sources if source["synced_at"] is not None]
    answer = {
        "status": "degraded" if any(source["last_error"] for source in sources) else "healthy",
        "version": plughub.__version__,
        "last_indexed": rfc3339(max(synced)) if synced else None,
        "total_servers": await store.count_live(connection, service.scopes_of(caller)),
    }
    return reply(answer)


def shown(found: Found) -> dict[str, Any]:
    """A server in a list."""
    return {
        "name": found.name,
        "title": found.title,
        "description": found.description,
        "author": found.author,
        "version": found.version,
        "status": found.status,
        "source": found.source,
        "visible_to": _visible_to(found.scope),
        "package_type": found.package_type,
        "transports": list(found.transports),
        "repository_url": found.repository,
        "stars": found.stars,
        "installs": found.installs,
        "published_at": rfc3339(found.published_at),
        "updated_at": rfc3339(found.updated_at),
    }


def shown_submission(row: RowMapping) -> dict[str, Any]:
    """A submitted version."""
    return {
        "id": public_id("sub", row["id"]),
        "name": row["name"],
        "version": row["version"],
        "title": row["title"],
        "description": row["description"],
        "visible_to": _visible_to(row["scope"]),
        "organization_id": public_id("org", row["organization_id"]),
        "submitted_at": rfc3339(row["published_at"]),
    }


def _asked(caller: Caller, row: RowMapping) -> dict[str, Any]:
    """Whether and how the caller's organisation can install it."""
    try:
        way = choose(msgspec.json.decode(row["document"]), stdio=caller.operator or caller.stdio_allowed)
    except Conflict as error:
        return {"installable": False, "reason": error.text, "variables": []}
    commands = "registryType" in way and not (caller.operator or caller.stdio_allowed)
    variables = [
        {
            "name": one.label,
            "required": one.required,
            "secret": one.secret,
            "description": one.description,
            "default": one.default,
            "choices": list(one.choices),
        }
        for one in inputs_of(way)
    ]
    reason = "STDIO servers run commands on the host; the operator has not allowed them" if commands else None
    return {"installable": not commands, "reason": reason, "variables": variables}


def _installed(one: OwnInstall) -> dict[str, Any]:
    return {
        "server_uuid": one.server_id,
        "name": one.name,
        "version": one.version,
        "update_available": one.update,
        "integrity": one.integrity,
        "installed_at": rfc3339(one.installed_at),
    }


def _visible_to(scope: str) -> str:
    return "everybody" if scope == EVERYBODY else "organization"


def _name(text: str) -> str:
    """The name in a path, whose slash comes as it was written."""
    return text.replace("%2F", "/").replace("%2f", "/").replace("\0", "")


_PATH, _TAG = "/api/registry", "Registry"
_ONE = _PATH + "/servers/{server_name}"
ROUTES = [
    Route("GET", _PATH + "/search", "read:servers", search, "Find servers to install", _TAG, output=SearchOut),
    Route("POST", _PATH + "/install", "write:servers", install, "Install a server", _TAG, status=201, output=ServerOut),
    Route("GET", _PATH + "/installed", "read:servers", list_installed, "List what was installed", _TAG, output=InstalledList),
    Route("GET", _PATH + "/health", "read:servers", health, "How the registry is", _TAG, output=RegistryHealth),
    Route("POST", _PATH + "/submit", "write:servers", submit, "Submit a server", _TAG, status=201, output=SubmissionOut),
    Route("GET", _ONE, "read:servers", get_listed, "Get a server of the registry", _TAG, output=ListedDetail, slashes=True),
    Route("PUT", _ONE + "/star", "write:servers", put_star, "Give a star", _TAG, output=Starred, slashes=True),
    Route("DELETE", _ONE + "/star", "write:servers", delete_star, "Take a star back", _TAG, output=Starred, slashes=True),
]
