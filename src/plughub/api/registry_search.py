"""The documents' other ways to look at the registry: `/api/search` and what is trending (pluggedin reference, section 1.10)."""

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BaseModel, Field

from plughub.api.framework import CallerDep, HubDep, ReadDep
from plughub.api.registry import MAX_QUERY, words_of
from plughub.api.registry_shapes import FoundServers, TrendingOut
from plughub.api.reply import reply
from plughub.door.routes import Route
from plughub.kit.clock import rfc3339
from plughub.registry import service, store
from plughub.registry.activity import seen
from plughub.registry.schemas import LOCAL, Activity, Found, Search, Sort, Source

_TAG = "Registry"
TrendingSource = Literal["REGISTRY", "COMMUNITY", "all"]


class Wanted(BaseModel):
    """What is looked for. `source`: registry (the catalogue and other registries) or community (submitted here)."""

    q: str = Field("", max_length=MAX_QUERY, description="Each word must be in the name, title, description or author")
    source: Source = "all"
    package: Literal["npm", "docker", "oci", "pypi", "nuget", "cargo", "mcpb", "remote", "builtin"] | None = None
    repository: str | None = Field(None, max_length=200, description="A part of the repository's address")
    sort: Sort = "relevance"
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=1_000_000_000)


class WantedTrends(BaseModel):
    """Which servers, over which time."""

    source: TrendingSource = "all"
    period: Literal["24h", "7d", "30d"] = "7d"
    limit: int = Field(10, ge=1, le=50)


async def search(caller: CallerDep, connection: ReadDep, wanted: Annotated[Wanted, Query()]) -> Response:
    """Servers of the registry, in the documents' form."""
    repository = (wanted.repository or "").replace("\0", "") or None
    looked_for = Search(words_of(wanted.q), wanted.source, wanted.package, repository, wanted.sort)
    page = await service.search(connection, caller, looked_for, limit=wanted.limit, offset=wanted.offset)
    servers = [_shown(found) for found in page.items]
    return reply({"servers": servers, "total": page.total, "limit": wanted.limit, "offset": wanted.offset})


async def trending(caller: CallerDep, connection: ReadDep, hub: HubDep, wanted: Annotated[WantedTrends, Query()]) -> Response:
    """What was installed and called here the most in a period; counted once a minute."""
    busy = seen(await hub.registry.trends.get(wanted.period), service.scopes_of(caller))
    listed = {
        (row["scope"], row["name"]): row
        for row in await store.list_latest(connection, service.scopes_of(caller), {one.name for one in busy})
    }
    servers = [_trend(one, row) for one in busy if (row := listed.get((one.scope, one.name))) is not None and _of(row, wanted.source)]
    return reply({"servers": servers[: wanted.limit], "period": wanted.period})


def _shown(found: Found) -> dict[str, Any]:
    return {
        "uuid": found.id,
        "slug": found.name.replace("/", "-").lower(),
        "title": found.title,
        "description": found.description,
        "repository_url": found.repository,
        "package_type": found.package_type,
        "installation_count": found.installs,
        "rating": None,
        "transports": list(found.transports),
    }


def _of(row: Any, source: TrendingSource) -> bool:
    return source == "all" or (source == "COMMUNITY") == (row["source"] == LOCAL)


def _trend(one: Activity, row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "title": row["title"],
        "description": row["description"],
        "source": "COMMUNITY" if row["source"] == LOCAL else "REGISTRY",
        "trending_score": one.score,
        "install_count": one.installs,
        "tool_call_count": one.calls,
        "total_activity_count": one.installs + one.calls,
        "last_activity": rfc3339(one.last_at),
    }


ROUTES = [
    Route("GET", "/api/search", "read:servers", search, "Search the registry", _TAG, output=FoundServers),
    Route("GET", "/api/trending/servers", "read:servers", trending, "What is used the most", _TAG, output=TrendingOut),
]
