"""What comes in and goes out when somebody leaves, or takes along what is theirs."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plughub.api.auth_shapes import Code, Password
from plughub.api.models import Shape
from plughub.api.profile_shapes import ToolInProfile
from plughub.collections.schemas import Placeholder, ServerInSnapshot

_STRICT = ConfigDict(extra="forbid", strict=True)


class GoodbyeIn(BaseModel):
    """`DELETE /api/organizations/{id}`: both factors once more; `code` where there is a second one."""

    model_config = _STRICT

    password: Password
    code: Code | None = None


class FarewellIn(GoodbyeIn):
    """`DELETE /api/settings/account`. `keys`: what becomes of those that the person has made; `organizations`: those that nobody else is
    in go along."""

    keys: Literal["keep", "revoke"] | None = Field(None, description="Asked for when there are keys")
    organizations: Literal["delete"] | None = Field(None, description="Asked for when there are such organizations")


class ExportedMember(Shape):
    """A server in a profile, by its slug."""

    server: str
    home: bool
    enabled: bool
    tools: dict[str, ToolInProfile]


class ExportedProfile(Shape):
    """A profile with its servers."""

    slug: str
    name: str
    description: str
    is_default: bool
    servers: list[ExportedMember]


class ExportedProject(Shape):
    """A project with its profiles."""

    name: str
    description: str
    is_default: bool
    profiles: list[ExportedProfile]


class ExportedServer(ServerInSnapshot):
    """A server; a secret of its `config` is a placeholder, `profile` the slug of its home."""

    slug: str
    enabled: bool
    profile: str


class ExportedKey(Shape):
    """A key without its secret; its servers by slug."""

    name: str
    description: str
    kind: Literal["public", "secret"]
    prefix: str
    scopes: list[str]
    servers: Literal["*"] | list[str]
    allowed_ips: list[str] | None
    labels: dict[str, str]
    rate_limit: dict[str, int] | None
    status: Literal["active", "suspended"]
    expires_at: str | None


class ExportedCollection(Shape):
    """A collection; its profile and servers by slug."""

    name: str
    description: str
    profile: str | None
    servers: list[str]
    is_public: bool


class ExportedName(Shape):
    """What an organisation is called."""

    name: str
    description: str


class OrganizationExport(Shape):
    """The configuration of an organisation in one environment, without secrets and ids."""

    plughub: Literal["organization"]
    version: Literal[1]
    exported_at: str
    environment: Literal["live", "test"]
    organization: ExportedName
    projects: list[ExportedProject]
    servers: list[ExportedServer]
    keys: list[ExportedKey]
    collections: list[ExportedCollection]
    placeholders: list[Placeholder]


class PersonExport(Shape):
    """What the hub knows of a person."""

    plughub: Literal["person"]
    version: Literal[1]
    exported_at: str
    user: dict[str, Any]
    profile: dict[str, Any]
    organizations: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    collections: list[dict[str, Any]]
    grants: list[dict[str, Any]]
