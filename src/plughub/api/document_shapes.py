"""The shapes of the answers about documents, in the documented spelling."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from plughub.api.models import Shape

Kind = Literal["full_text", "hybrid"]


class UploadForm(BaseModel):
    """A form with a file; what stands beside it comes before or after it."""

    file: str = Field(json_schema_extra={"contentMediaType": "application/octet-stream"})
    title: str | None = None
    description: str | None = None
    category: str | None = None
    tags: str | None = Field(None, description="Separated by commas, or a JSON array")
    metadata: str | None = Field(None, description="A JSON object")
    changeSummary: str | None = Field(None, description="What the version changes")  # noqa: N815  the documents' name


class VersionOut(Shape):
    """A version of a document, without its content."""

    versionNumber: int  # noqa: N815
    fileName: str  # noqa: N815
    fileSize: int  # noqa: N815
    mimeType: str  # noqa: N815
    contentHash: str  # noqa: N815
    changeSummary: str  # noqa: N815
    createdByModel: None  # noqa: N815
    createdAt: str  # noqa: N815
    isCurrent: bool  # noqa: N815


class VersionContent(VersionOut):
    """A version with the text in it. `textTruncated`: there is more of it than is searched."""

    id: str
    content: str
    textTruncated: bool  # noqa: N815


class VersionList(Shape):
    """A page of the versions of a document, the newest first."""

    versions: list[VersionOut]
    total: int
    limit: int
    offset: int


class DocumentOut(Shape):
    """A document. `content` (the text in it) and `versions` are there when they were asked for."""

    id: str
    title: str
    description: str
    fileName: str  # noqa: N815
    fileSize: int  # noqa: N815
    mimeType: str  # noqa: N815
    tags: list[str]
    source: Literal["upload", "api"]
    category: str
    visibility: Literal["workspace"]
    version: int
    metadata: dict[str, Any]
    contentHash: str  # noqa: N815
    textTruncated: bool  # noqa: N815
    aiMetadata: None  # noqa: N815
    modelAttributions: list[Any]  # noqa: N815
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815
    content: str | None = None
    contentEncoding: Literal["utf8"] | None = None  # noqa: N815
    versions: list[VersionOut] | None = None


class DocumentChangedOut(DocumentOut):
    """A changed document, and the documented words about it. `fileWritten`: there is a new version."""

    success: Literal[True]
    documentId: str  # noqa: N815
    fileWritten: bool  # noqa: N815
    message: str


class DocumentList(Shape):
    """A page of documents."""

    documents: list[DocumentOut]
    total: int
    limit: int
    offset: int


class ComparedOut(Shape):
    """The difference between the texts of two versions, as a unified diff. `truncated`: it is not all of it."""

    documentId: str  # noqa: N815
    v1: int
    v2: int
    identical: bool
    added: int
    removed: int
    truncated: bool
    diff: str


class BulkResult(Shape):
    """What became of one document; `error` says why nothing did."""

    id: str | None
    status: Literal["created", "deleted", "updated", "failed"]
    document: DocumentOut | None = None
    error: str | None = None


class BulkOut(Shape):
    """The results in the order of the request."""

    results: list[BulkResult]
    succeeded: int
    failed: int


class SearchedHow(Shape):
    """`note` says why full text alone was used, when it was."""

    mode: Kind
    note: str | None


class SearchResult(Shape):
    """A document that fits, with the best of its passages. `relevanceScore` orders the results of one answer, from 1 down."""

    id: str
    title: str
    description: str
    fileName: str  # noqa: N815
    mimeType: str  # noqa: N815
    tags: list[str]
    source: str
    version: int
    heading: str
    snippet: str
    relevanceScore: float  # noqa: N815
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815


class DocumentSearchOut(Shape):
    """A page of results; `total` counts those among the best 100 passages."""

    results: list[SearchResult]
    total: int
    limit: int
    offset: int
    hasMore: bool  # noqa: N815
    search: SearchedHow


class PassageOut(Shape):
    """A passage, whole. `source` is the place of its document in `sources` and `documentIds`."""

    text: str
    heading: str
    source: int
    documentId: str  # noqa: N815
    title: str
    fileName: str  # noqa: N815
    version: int
    position: int
    relevanceScore: float  # noqa: N815


class RagOut(Shape):
    """The passages that fit, as one text and one by one; `sources` are the titles of the documents in `documentIds`."""

    success: Literal[True]
    answer: str
    sources: list[str]
    documentIds: list[str]  # noqa: N815
    passages: list[PassageOut]
    search: SearchedHow


class StorageOut(Shape):
    """What the documents of an environment take, and may take."""

    documents_count: int
    documents_quota: int
    total_chunks: int
    vectors_count: int
    storage_bytes: int
    storage_quota_bytes: int
    estimated_storage_mb: float
    is_estimate: Literal[False]
