"""An organisation's configuration as a document: its parts name each other by slug."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from plughub.collections.schemas import MAX_SERVERS, Description, Name, Placeholder, ServerInSnapshot
from plughub.profiles.overrides import MAX_TOOLS

_STRICT = ConfigDict(extra="forbid", strict=True)
# Of each kind in one document: it is read and made in one transaction.
MOST = 1_000
Slug = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class DocumentedMember(BaseModel):
    """A server in a profile. `home`: the profile is the server's home. `tools`: what the profile says of them, as the API shows it."""

    model_config = _STRICT

    server: Slug
    home: bool
    enabled: bool
    tools: Annotated[dict[str, dict[str, Any]], Field(max_length=MAX_TOOLS)] = Field(default_factory=dict)


class DocumentedProfile(BaseModel):
    """A profile with its servers."""

    model_config = _STRICT

    slug: Slug
    name: Name
    description: Description = ""
    is_default: bool = False
    servers: Annotated[list[DocumentedMember], Field(max_length=MOST)] = Field(default_factory=list)


class DocumentedProject(BaseModel):
    """A project with its profiles."""

    model_config = _STRICT

    name: Name
    description: Description = ""
    is_default: bool = False
    profiles: Annotated[list[DocumentedProfile], Field(max_length=MOST)]


class DocumentedServer(ServerInSnapshot):
    """A server; a secret of its `config` is a placeholder, `profile` the slug of its home."""

    slug: Slug
    enabled: bool = True
    profile: Slug


class DocumentedKey(BaseModel):
    """A key without its secret; its servers by slug."""

    model_config = _STRICT

    name: Annotated[str, StringConstraints(max_length=100)]
    description: str = ""
    kind: Literal["public", "secret"]
    prefix: str
    scopes: list[str]
    servers: Literal["*"] | list[str]
    allowed_ips: list[str] | None
    labels: dict[str, str]
    rate_limit: dict[str, int] | None
    status: Literal["active", "suspended"]
    expires_at: str | None


class DocumentedCollection(BaseModel):
    """A collection; its profile and servers by slug."""

    model_config = _STRICT

    name: Name
    description: Description = ""
    profile: Slug | None
    servers: Annotated[list[Slug], Field(max_length=MAX_SERVERS)]
    is_public: bool = False


class DocumentedName(BaseModel):
    """What an organisation is called."""

    model_config = _STRICT

    name: str
    description: str


class OrganizationDocument(BaseModel):
    """The configuration of an organisation in one environment, without secrets and ids."""

    model_config = _STRICT

    plughub: Literal["organization"]
    version: Literal[1]
    exported_at: str
    environment: Literal["live", "test"]
    organization: DocumentedName
    projects: Annotated[list[DocumentedProject], Field(max_length=MOST)]
    servers: Annotated[list[DocumentedServer], Field(max_length=MOST)]
    keys: Annotated[list[DocumentedKey], Field(max_length=10 * MOST)]
    collections: Annotated[list[DocumentedCollection], Field(max_length=MOST)]
    placeholders: Annotated[list[Placeholder], Field(max_length=100 * MOST)]
