"""The official registry API (v0.1, info.version 2025-12-01), read-only: what everybody sees here, for clients and for other hubs."""

import base64
from binascii import Error as NotBase64
from typing import Annotated, Any

import msgspec
from fastapi import Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from plughub.api.framework import ReadDep
from plughub.api.registry import MAX_QUERY, words_of
from plughub.api.registry_shapes import PublicServer, PublicServers
from plughub.api.reply import reply
from plughub.door.routes import PUBLIC, Route
from plughub.kit.clock import parse_rfc3339, rfc3339
from plughub.kit.errors import Invalid, ListingNotFound
from plughub.registry import store
from plughub.registry.federation import OFFICIAL
from plughub.registry.schemas import EVERYBODY
from plughub.registry.store import contains, entry

_LATEST = "latest"
WithDeleted = Annotated[bool, Query(description="Those too that were withdrawn")]


class Wanted(BaseModel):
    """What is listed. `updated_since` lists what was withdrawn too, as the official API does."""

    cursor: str | None = Field(None, max_length=2000, description="`metadata.nextCursor` of the page before")
    limit: int = Field(30, ge=1, le=100)
    search: str | None = Field(None, max_length=MAX_QUERY)
    updated_since: str | None = Field(None, description="RFC 3339")
    version: str | None = Field(None, max_length=255, description="`latest`, or an exact version")
    include_deleted: bool = False


async def list_servers(connection: ReadDep, wanted: Annotated[Wanted, Query()]) -> Response:
    """A page of the servers that everybody sees, by name and version."""
    rows = await store.list_public(connection, _conditions(wanted), _place(wanted.cursor), wanted.limit + 1)
    page = rows[: wanted.limit]
    metadata: dict[str, Any] = {"count": len(page)}
    if len(rows) > wanted.limit:
        metadata["nextCursor"] = base64.urlsafe_b64encode(f"{page[-1]['name']}:{page[-1]['version']}".encode()).decode()
    return reply({"servers": [_shown(row) for row in page], "metadata": metadata})


async def list_versions(connection: ReadDep, server_name: str, include_deleted: WithDeleted = False) -> Response:
    """Every version of a server, the newest first. The slash in the name is written `%2F`."""
    rows = [row for row in await _versions(connection, server_name) if include_deleted or row["status"] != "deleted"]
    if not rows:
        raise ListingNotFound
    return reply({"servers": [_shown(row) for row in rows], "metadata": {"count": len(rows)}})


async def get_version(connection: ReadDep, server_name: str, version: str, include_deleted: WithDeleted = False) -> Response:
    """One version of a server, or its `latest`."""
    for row in await _versions(connection, server_name):
        wanted = row["is_latest"] if version == _LATEST else row["version"] == version
        if wanted and (include_deleted or row["status"] != "deleted"):
            return reply(_shown(row))
    raise ListingNotFound


async def _versions(connection: ReadDep, server_name: str) -> list[RowMapping]:
    name = server_name.replace("%2F", "/").replace("%2f", "/")
    return list(await store.list_versions(connection, EVERYBODY, name)) if "/" in name and "\0" not in name else []


def _conditions(wanted: Wanted) -> list[Any]:
    conditions = [contains(entry.words, word) for word in words_of(wanted.search or "")]
    if wanted.version == _LATEST:
        conditions.append(entry.is_latest)
    elif wanted.version is not None:
        conditions.append(entry.version == wanted.version.replace("\0", ""))
    if wanted.updated_since is not None:
        conditions.append(entry.updated_at >= _since(wanted.updated_since))
    elif not wanted.include_deleted:
        conditions.append(entry.status != "deleted")
    return conditions


def _since(text: str) -> float:
    found = parse_rfc3339(text)
    if found is None:
        raise Invalid("updated_since", "The 'updated_since' field is not a time of RFC 3339", text[:200])
    return found


def _place(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    try:
        name, colon, version = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
    except (NotBase64, ValueError) as error:
        raise Invalid("cursor", "The 'cursor' field is not one that this hub has given", cursor[:200]) from error
    if not colon or "\0" in name + version:
        raise Invalid("cursor", "The 'cursor' field is not one that this hub has given", cursor[:200])
    return name, version


def _shown(row: RowMapping) -> dict[str, Any]:
    official = {
        "status": row["status"],
        "publishedAt": rfc3339(row["published_at"]),
        "updatedAt": rfc3339(row["updated_at"]),
        "isLatest": row["is_latest"],
    }
    return {"server": msgspec.Raw(row["document"].encode()), "_meta": {OFFICIAL: official}}


_PATH, _TAG = "/v0.1/servers", "Registry (official API)"
_VERSIONS = _PATH + "/{server_name}/versions"
ROUTES = [
    Route("GET", _PATH, PUBLIC, list_servers, "List servers", _TAG, "plain", output=PublicServers),
    Route("GET", _VERSIONS, PUBLIC, list_versions, "List versions", _TAG, "plain", output=PublicServers, slashes=True),
    Route("GET", _VERSIONS + "/{version}", PUBLIC, get_version, "Get a version", _TAG, "plain", output=PublicServer, slashes=True),
]
