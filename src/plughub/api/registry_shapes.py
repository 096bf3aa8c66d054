"""The shapes of the answers of the registry."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plughub.api.models import Shape


class Listed(Shape):
    """A server of the registry: its latest version. `source`: catalogue, local, or another registry's address. `stars` and `installs`
    are those of this hub."""

    name: str
    title: str
    description: str
    author: str
    version: str
    status: Literal["active", "deprecated", "deleted"]
    source: str
    visible_to: Literal["everybody", "organization"]
    package_type: str
    transports: list[str]
    repository_url: str
    stars: int
    installs: int
    published_at: str
    updated_at: str


class SearchOut(Shape):
    """A page of servers."""

    results: list[Listed]
    total: int
    limit: int
    offset: int


class Asked(Shape):
    """A value that an installation takes as `env.<name>`."""

    name: str
    required: bool
    secret: bool
    description: str
    default: str | None
    choices: list[str]


class InstalledOut(Shape):
    """A server that came from the registry. `update_available`: the version that the registry has now, when it is another one."""

    server_uuid: str
    name: str
    version: str
    update_available: str | None
    integrity: str | None
    installed_at: str


class InstalledList(Shape):
    """A page of them."""

    installations: list[InstalledOut]
    total: int
    limit: int
    offset: int


class ListedDetail(Listed):
    """One server with its whole `server.json`, what it asks for, and the servers of the caller that came of it."""

    server: dict[str, Any]
    versions: list[str]
    installable: bool
    reason: str | None
    variables: list[Asked]
    starred: bool
    installations: list[InstalledOut]


class Starred(Shape):
    """A star, and how many there are."""

    name: str
    starred: bool
    stars: int


class SubmissionOut(Shape):
    """A submitted version: everybody sees it once the operator has approved it."""

    id: str
    name: str
    version: str
    title: str
    description: str
    visible_to: Literal["everybody", "organization"]
    organization_id: str
    submitted_at: str


class SubmissionList(Shape):
    """A page of submissions."""

    submissions: list[SubmissionOut]
    total: int
    limit: int
    offset: int


class SourceOut(Shape):
    """How far another registry was read. `notes`: the last entries that were refused, and why."""

    url: str
    entries: int
    synced_at: str | None
    tried_at: str | None
    last_error: str | None
    refused: int
    notes: list[dict[str, str]]


class SourceList(Shape):
    """The registries that this hub asks."""

    registries: list[SourceOut]
    total: int
    limit: int
    offset: int


class RegistryHealth(Shape):
    """`degraded`: another registry could not be read the last time; what it gave before is found all the same."""

    status: Literal["healthy", "degraded"]
    version: str
    last_indexed: str | None
    total_servers: int


class FoundServer(Shape):
    """A server in the documents' form. Nobody rates servers here, so `rating` is null."""

    uuid: str
    slug: str
    title: str
    description: str
    repository_url: str
    package_type: str
    installation_count: int
    rating: None
    transports: list[str]


class FoundServers(Shape):
    """A page of servers in the documents' form."""

    servers: list[FoundServer]
    total: int
    limit: int
    offset: int


class Trending(Shape):
    """How busy a server was in the period: an installation counts ten calls in `trending_score`."""

    id: str
    name: str
    title: str
    description: str
    source: Literal["REGISTRY", "COMMUNITY"]
    trending_score: int
    install_count: int
    tool_call_count: int
    total_activity_count: int
    last_activity: str


class TrendingOut(Shape):
    """The busiest servers of a period."""

    servers: list[Trending]
    period: Literal["24h", "7d", "30d"]


class PublicServer(BaseModel):
    """`ServerResponse` of the official API."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    server: dict[str, Any]
    meta: dict[str, Any] = Field(alias="_meta")


class PublicMetadata(Shape):
    """How many servers are on the page, and where the next one begins."""

    count: int
    nextCursor: str | None = None  # noqa: N815  the wire's name


class PublicServers(Shape):
    """`ServerList` of the official API."""

    servers: list[PublicServer]
    metadata: PublicMetadata
