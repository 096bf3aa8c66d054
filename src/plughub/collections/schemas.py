"""What comes in about collections, and a collection as the rules see it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

_STRICT = ConfigDict(extra="forbid", strict=True)
# Of one collection: what a person looks through, and what an import makes in one transaction.
MAX_SERVERS = 100
FORM, VERSION = "collection", 1


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_no_nul)]
Description = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_no_nul)]
ServerIds = Annotated[list[Annotated[str, StringConstraints(max_length=100)]], Field(max_length=MAX_SERVERS)]
_PROFILE = AliasChoices("profileUuid", "profile_uuid")
_SERVERS = AliasChoices("serverUuids", "server_uuids")
_PUBLIC = AliasChoices("isPublic", "is_public")


class CollectionCreate(BaseModel):
    """`POST /api/collections`: of the default profile unless another is named. `isPublic`: everybody may see it, without a key."""

    model_config = _STRICT

    name: Name
    description: Description | None = None
    profile_uuid: str | None = Field(None, validation_alias=_PROFILE)
    server_uuids: ServerIds = Field(default_factory=list, validation_alias=_SERVERS)
    is_public: bool = Field(False, validation_alias=_PUBLIC)


class CollectionUpdate(BaseModel):
    """`PATCH /api/collections/{uuid}`: what is not given stays; `serverUuids` replaces the list."""

    model_config = _STRICT

    name: Name | None = None
    description: Description | None = None
    profile_uuid: str | None = Field(None, validation_alias=_PROFILE)
    server_uuids: ServerIds | None = Field(None, validation_alias=_SERVERS)
    is_public: bool | None = Field(None, validation_alias=_PUBLIC)


class ServerInSnapshot(BaseModel):
    """A server of a snapshot: a secret of its `config` is a placeholder `{{NAME}}`."""

    model_config = _STRICT

    name: Name
    description: Description = ""
    type: Literal["STDIO", "SSE", "STREAMABLE_HTTP"]
    config: dict[str, Any]


class Placeholder(BaseModel):
    """A value that whoever imports a snapshot gives: which server needs it, and where."""

    model_config = _STRICT

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    server: Annotated[str, StringConstraints(max_length=100)]
    field: Annotated[str, StringConstraints(max_length=1000)]


class Snapshot(BaseModel):
    """A collection as it leaves the hub and comes into another: no ids, no secrets. `placeholders` says what there is to fill in."""

    model_config = _STRICT

    plughub: Literal["collection"]
    version: Literal[1]
    name: Name
    description: Description = ""
    servers: Annotated[list[ServerInSnapshot], Field(max_length=MAX_SERVERS)]
    placeholders: Annotated[list[Placeholder], Field(max_length=100 * MAX_SERVERS)] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection with the ids of its servers in its order. `profile_id` is None once the profile is gone, `shared_at` without a link."""

    id: str
    space_id: str
    profile_id: str | None
    name: str
    description: str
    is_public: bool
    shared_at: float | None
    created_at: float
    updated_at: float
    created_by: str | None
    server_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublicCollection:
    """A collection in the list for everybody: of its organisation it shows the name alone."""

    id: str
    name: str
    description: str
    organization: str
    servers_count: int
    created_at: float
    updated_at: float
