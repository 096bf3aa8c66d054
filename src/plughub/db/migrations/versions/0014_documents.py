"""Documents, their versions and files, and what is searched."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0014"
down_revision = "0013"

# The index holds no text of its own: what it is to forget, it must be told again.
_FTS = (
    "DROP TABLE IF EXISTS document_fts",
    "CREATE VIRTUAL TABLE document_fts USING fts5(space, heading, text, content='', tokenize='porter unicode61 remove_diacritics 2')",
    "CREATE TRIGGER document_chunk_added AFTER INSERT ON document_chunk BEGIN "
    "INSERT INTO document_fts (rowid, space, heading, text) "
    "VALUES (new.id, replace(new.space_id, '-', ''), new.heading, new.text); END",
    "CREATE TRIGGER document_chunk_removed AFTER DELETE ON document_chunk BEGIN "
    "INSERT INTO document_fts (document_fts, rowid, space, heading, text) "
    "VALUES ('delete', old.id, replace(old.space_id, '-', ''), old.heading, old.text); END",
)
_TSVECTOR = (
    "CREATE OR REPLACE FUNCTION document_chunk_terms() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "NEW.terms := setweight(to_tsvector('english', NEW.heading), 'A') || setweight(to_tsvector('english', NEW.text), 'C') "
    "|| array_to_tsvector(ARRAY['space ' || NEW.space_id]); RETURN NEW; END $$",
    "CREATE TRIGGER document_chunk_terms BEFORE INSERT ON document_chunk FOR EACH ROW EXECUTE FUNCTION document_chunk_terms()",
)


def upgrade() -> None:
    """Seven tables, none of which anything that was there before refers to, and the full-text index."""
    _documents()
    _files()
    _passages()
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.create_index("ix_document_chunk_terms", "document_chunk", ["terms"], unique=False, postgresql_using="gin")
    for statement in _TSVECTOR if postgresql else _FTS:
        op.execute(statement)


def _documents() -> None:
    op.create_table(
        "document",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("latest", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_document_space_id_space")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
    )
    op.create_index(op.f("ix_document_space_id_created_at"), "document", ["space_id", "created_at"], unique=False)
    op.create_table(
        "document_tag",
        sa.Column("document_id", sa.String(length=36), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["document_id"], ["document.id"], name=op.f("fk_document_tag_document_id_document"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("document_id", "tag", name=op.f("pk_document_tag")),
    )
    op.create_index(op.f("ix_document_tag_tag"), "document_tag", ["tag"], unique=False)


def _files() -> None:
    op.create_table(
        "document_blob",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_document_blob_space_id_space")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document_blob")),
    )
    op.create_index(op.f("ix_document_blob_space_id_size"), "document_blob", ["space_id", "size"], unique=False)
    op.create_index(op.f("ix_document_blob_created_at"), "document_blob", ["created_at"], unique=False)
    op.create_table(
        "document_piece",
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["document_blob.id"], name=op.f("fk_document_piece_blob_id_document_blob"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("blob_id", "position", name=op.f("pk_document_piece")),
    )
    op.create_table(
        "document_version",
        sa.Column("document_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column("text_id", sa.String(length=36), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"], ["document.id"], name=op.f("fk_document_version_document_id_document"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["blob_id"], ["document_blob.id"], name=op.f("fk_document_version_blob_id_document_blob")),
        sa.ForeignKeyConstraint(["text_id"], ["document_blob.id"], name=op.f("fk_document_version_text_id_document_blob")),
        sa.PrimaryKeyConstraint("document_id", "number", name=op.f("pk_document_version")),
    )
    op.create_index(op.f("ix_document_version_blob_id"), "document_version", ["blob_id"], unique=False)
    op.create_index(op.f("ix_document_version_text_id"), "document_version", ["text_id"], unique=False)


def _passages() -> None:
    op.create_table(
        "document_chunk",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("heading", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text().with_variant(TSVECTOR(), "postgresql"), nullable=True),
        sa.ForeignKeyConstraint(["document_id"], ["document.id"], name=op.f("fk_document_chunk_document_id_document"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document_chunk")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_document_chunk_document_id"), "document_chunk", ["document_id"], unique=False)
    op.create_index(op.f("ix_document_chunk_space_id"), "document_chunk", ["space_id"], unique=False)
    op.create_table(
        "document_vector",
        sa.Column("chunk_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["document_chunk.id"], name=op.f("fk_document_vector_chunk_id_document_chunk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("chunk_id", name=op.f("pk_document_vector")),
    )
    op.create_index(op.f("ix_document_vector_space_id"), "document_vector", ["space_id"], unique=False)
