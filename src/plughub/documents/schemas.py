"""What comes in about documents, and a document as the rules see it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from plughub.kit.clock import parse_rfc3339

_STRICT = ConfigDict(extra="forbid", strict=True)
MAX_CONTENT = 10 * 1024 * 1024
MAX_TAGS = 20
MAX_BULK = 100
MAX_TEXTS = 20
MAX_QUERY = 1000
_MAX_DETAILS = 16 * 1024
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


def _small(details: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(details)) > _MAX_DETAILS:
        raise ValueError(f"at most {_MAX_DETAILS} bytes")
    return details


def _once(tags: list[str]) -> list[str]:
    return sorted(set(tags))


Clean = AfterValidator(_no_nul)
Title = Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True), Clean]
Description = Annotated[str, StringConstraints(max_length=2000), Clean]
Category = Annotated[str, StringConstraints(max_length=50, strip_whitespace=True), Clean]
# A comma separates tags in queries.
Tag = Annotated[str, StringConstraints(min_length=1, max_length=50, strip_whitespace=True, pattern=r"^[^,\x00-\x1f]+$")]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_once)]
Details = Annotated[dict[str, Any], AfterValidator(_small)]
Content = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT), Clean]
Query = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY), Clean]
TextFormat = Literal["md", "txt", "html", "csv"]


class DocumentText(BaseModel):
    """A document that is sent as text: `POST /api/documents`, and each of `documents` in `POST /api/documents/bulk`."""

    model_config = _STRICT

    title: Title
    content: Content
    format: TextFormat = "md"
    description: Description | None = None
    tags: Tags | None = None
    category: Category | None = None
    metadata: Details | None = None


class DocumentForm(BaseModel):
    """What stands beside the file in a form."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = None
    description: Description | None = None
    tags: Tags | None = None
    category: Category | None = None
    metadata: Details | None = None
    summary: Description | None = Field(None, validation_alias=AliasChoices("changeSummary", "change_summary", "summary"))


class NewContent(BaseModel):
    """`PUT /api/documents/{id}` with text: a new version."""

    model_config = _STRICT

    content: Content
    format: TextFormat | None = None
    title: Title | None = None
    description: Description | None = None
    tags: Tags | None = None
    category: Category | None = None
    metadata: Details | None = None
    summary: Description | None = Field(None, validation_alias=AliasChoices("changeSummary", "change_summary", "summary"))


class DocumentPatch(BaseModel):
    """`PATCH /api/documents/{id}`: what is not given stays. With `content` a new version is made, by `operation`."""

    model_config = _STRICT

    title: Title | None = None
    description: Description | None = None
    tags: Tags | None = None
    category: Category | None = None
    metadata: Details | None = None
    operation: Literal["replace", "append", "prepend"] = "replace"
    content: Content | None = None
    summary: Description | None = Field(None, validation_alias=AliasChoices("changeSummary", "change_summary", "summary"))


class Rollback(BaseModel):
    """`POST /api/documents/{id}/rollback`: the content of an earlier version becomes a new one."""

    model_config = _STRICT

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


class Bulk(BaseModel):
    """`POST /api/documents/bulk`: either `documents` to make, or an `operation` on those that are named."""

    model_config = _STRICT

    documents: Annotated[list[DocumentText], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    operation: Literal["delete", "tag", "untag"] | None = None
    ids: Annotated[list[Annotated[str, StringConstraints(max_length=100)]], Field(min_length=1, max_length=MAX_BULK)] | None = None
    tags: Tags | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> "Bulk":
        if (self.documents is None) == (self.operation is None):
            raise ValueError("either 'documents' or 'operation' must be given")
        if self.operation is not None and not self.ids:
            raise ValueError("'operation' needs 'ids'")
        if self.operation in ("tag", "untag") and not self.tags:
            raise ValueError(f"'{self.operation}' needs 'tags'")
        return self


def _moment(value: Any) -> Any:
    """Epoch seconds of a time with its offset, or of the beginning of a day."""
    found = parse_rfc3339(value) if isinstance(value, str) else None
    if found is None and isinstance(value, str) and _DAY.fullmatch(value):
        found = parse_rfc3339(f"{value}T00:00:00Z")
    if found is None:
        raise ValueError("an RFC 3339 time with its offset, or a day, is needed")
    return found


Moment = Annotated[float, BeforeValidator(_moment, json_schema_input_type=str)]


class Filters(BaseModel):
    """Which documents: all that is given must hold. `tags`: one with all of them."""

    model_config = ConfigDict(extra="forbid")

    source: Literal["all", "upload", "api", "ai_generated"] = "all"
    kind: Literal["pdf", "docx", "md", "txt", "html", "csv"] | None = None
    category: Category | None = None
    visibility: Literal["all", "private", "workspace", "public"] = "all"
    tags: Tags | None = None
    date_from: Moment | None = Field(None, validation_alias=AliasChoices("dateFrom", "date_from"))
    date_to: Moment | None = Field(None, validation_alias=AliasChoices("dateTo", "date_to"))


class Search(BaseModel):
    """`POST /api/documents/search`."""

    model_config = _STRICT

    query: Query
    filters: Filters | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 10
    offset: Annotated[int, Field(ge=0, le=1000)] = 0


class RagQuery(BaseModel):
    """`POST /api/rag/query`. Without metadata the answer is plain text."""

    model_config = _STRICT

    query: Query
    include_metadata: bool = Field(True, validation_alias=AliasChoices("includeMetadata", "include_metadata"))


Sort = Literal["date_desc", "date_asc", "title", "size"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file that has come in whole: where it is for now, what its sender calls it, how long it is, its SHA-256 in hex."""

    path: Path
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is now. `truncated`: only the beginning of its text is searched."""

    id: str
    space_id: str
    title: str
    description: str
    file_name: str
    kind: str
    source: str
    category: str
    details: Mapping[str, Any]
    version: int
    latest: int
    size: int
    sha256: str
    truncated: bool
    created_at: float
    updated_at: float
    created_by: str | None
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a document; `blob_id` has its bytes, `text_id` the text in them."""

    document_id: str
    number: int
    blob_id: str
    text_id: str
    file_name: str
    kind: str
    size: int
    sha256: str
    truncated: bool
    summary: str
    created_at: float
    created_by: str | None
