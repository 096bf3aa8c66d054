"""What comes in and goes out about collections, beside what the domain has."""

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.models import ServerOut, Shape
from plughub.collections.schemas import Placeholder, ServerInSnapshot, Snapshot

_VALUE = Annotated[str, StringConstraints(max_length=65_536)]


class CollectionOut(Shape):
    """A collection. `shared`: there is a link that shows it to whoever has it; `profileUuid` is null once its profile is gone."""

    uuid: str
    name: str
    description: str
    profileUuid: str | None  # noqa: N815  the documents' name
    serverUuids: list[str]  # noqa: N815  the documents' name
    isPublic: bool  # noqa: N815  the documents' name
    shared: bool
    shared_at: str | None
    created_at: str
    updated_at: str


class CollectionList(Shape):
    """A page of collections."""

    collections: list[CollectionOut]
    total: int
    limit: int
    offset: int


class PublicCollectionOut(Shape):
    """A collection that everybody may see; `organization` is the name of whose it is."""

    uuid: str
    name: str
    description: str
    organization: str
    servers_count: int
    created_at: str
    updated_at: str


class PublicCollectionList(Shape):
    """A page of what everybody may see."""

    collections: list[PublicCollectionOut]
    total: int
    limit: int
    offset: int


class SnapshotOut(Shape):
    """A collection without ids and secrets: each secret is a placeholder `{{NAME}}`, and `placeholders` says where."""

    plughub: Literal["collection"]
    version: Literal[1]
    name: str
    description: str
    servers: list[ServerInSnapshot]
    placeholders: list[Placeholder]


class PublicSnapshotOut(SnapshotOut):
    """The same for everybody, with the name of whose it is."""

    organization: str


class SharedOut(Shape):
    """A link, told this once: whoever has it sees the collection, without a key."""

    share_token: str
    share_url: str
    shared_at: str


class ImportCollection(BaseModel):
    """`POST /api/collections/import`: a snapshot, or the id of a collection, or the token of a link; one of them. `values`: what its
    placeholders stand for, by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    collection: Snapshot | None = None
    collection_uuid: str | None = Field(None, validation_alias=AliasChoices("collectionUuid", "collection_uuid"))
    share_token: str | None = Field(None, validation_alias=AliasChoices("shareToken", "share_token"))
    profile_uuid: str | None = Field(None, validation_alias=AliasChoices("profileUuid", "profile_uuid"))
    values: Annotated[dict[str, _VALUE], Field(max_length=10_000)] = Field(default_factory=dict)


class ImportedCollection(Shape):
    """What came of an import. `renamed`: the new names by those of the collection."""

    imported: list[ServerOut]
    skipped: list[str]
    renamed: dict[str, str]
    on_conflict: Literal["skip", "rename", "error"]
