"""The tables of documents; see `db.tables`."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text
from sqlalchemy.types import UserDefinedType

from plughub.db.columns import flag, identifier, key, metadata, reference, text_column, time_column


class TsVector(UserDefinedType[str]):
    """PostgreSQL's, named here without loading that dialect into every hub."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Its name in a definition."""
        return "TSVECTOR"


class TsQuery(UserDefinedType[str]):
    """Likewise."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Its name in a cast."""
        return "TSQUERY"


# A document as it is now: `version` is the number of the version that counts, `latest` the highest one ever given.
document = Table(
    "document",
    metadata,
    key(),
    reference("space_id", "space.id"),
    text_column("title"),
    text_column("description"),
    text_column("file_name"),
    text_column("kind"),
    text_column("source"),
    text_column("category"),
    Column("details", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    text_column("sha256"),
    flag("truncated"),
    time_column("created_at"),
    time_column("updated_at"),
    identifier("created_by", nullable=True),
    Index(None, "space_id", "created_at"),
)

document_tag = Table(
    "document_tag",
    metadata,
    Column("document_id", String(36), ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
    Index(None, "tag"),
)

# Bytes of a file, or of the text in it, in pieces of bounded size, so that every process on the database has them. Versions share them.
document_blob = Table(
    "document_blob",
    metadata,
    key(),
    reference("space_id", "space.id"),
    Column("size", BigInteger, nullable=False),
    time_column("created_at"),
    Index(None, "space_id", "size"),
    Index(None, "created_at"),
)

document_piece = Table(
    "document_piece",
    metadata,
    Column("blob_id", String(36), ForeignKey("document_blob.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

document_version = Table(
    "document_version",
    metadata,
    Column("document_id", String(36), ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    reference("blob_id", "document_blob.id"),
    reference("text_id", "document_blob.id"),
    text_column("file_name"),
    text_column("kind"),
    Column("size", BigInteger, nullable=False),
    text_column("sha256"),
    flag("truncated"),
    text_column("summary"),
    time_column("created_at"),
    identifier("created_by", nullable=True),
    Index(None, "blob_id"),
    Index(None, "text_id"),
)

# Passages of the version that counts; the one at position 0 holds what is said of the document. Triggers keep the full-text index: on
# PostgreSQL `terms`, on SQLite the FTS5 table `document_fts`, which is not described here.
document_chunk = Table(
    "document_chunk",
    metadata,
    Column("id", Integer, primary_key=True),
    reference("document_id", "document.id", cascade=True),
    identifier("space_id"),
    Column("position", Integer, nullable=False),
    text_column("heading"),
    text_column("text"),
    Column("terms", Text().with_variant(TsVector(), "postgresql"), nullable=True),
    Index(None, "document_id"),
    Index(None, "space_id"),
    Index(None, "terms").ddl_if(dialect="postgresql"),  # of the kind gin, as the migration says
    # A number is never given twice: what was made of a passage cannot be taken for that of another.
    sqlite_autoincrement=True,
)

# The meaning of a passage, where the model for it is installed: 16-bit floats of length 1.
document_vector = Table(
    "document_vector",
    metadata,
    Column("chunk_id", Integer, ForeignKey("document_chunk.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    identifier("space_id"),
    Column("vector", LargeBinary, nullable=False),
    Index(None, "space_id"),
)
