"""Collections of servers, and what people say of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Three tables, none of which anything that was there before refers to."""
    op.create_table(
        "person_profile",
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("likeness", sa.Text(), nullable=True),
        sa.Column("bio", sa.Text(), nullable=False),
        sa.Column("avatar_url", sa.Text(), nullable=True),
        sa.Column("social_links", sa.JSON(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_person_profile_person_id_person"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_person_profile")),
        sa.UniqueConstraint("username", name=op.f("uq_person_profile_username")),
        sa.UniqueConstraint("likeness", name=op.f("uq_person_profile_likeness")),
    )
    op.create_table(
        "collection",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("profile_id", sa.String(length=36), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("share_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("shared_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_collection_space_id_space")),
        sa.ForeignKeyConstraint(["profile_id"], ["profile.id"], name=op.f("fk_collection_profile_id_profile"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("share_digest", name=op.f("uq_collection_share_digest")),
    )
    op.create_index(op.f("ix_collection_space_id_created_at"), "collection", ["space_id", "created_at"], unique=False)
    op.create_index(op.f("ix_collection_profile_id"), "collection", ["profile_id"], unique=False)
    op.create_index(op.f("ix_collection_created_by"), "collection", ["created_by"], unique=False)
    op.create_index(
        "ix_collection_public",
        "collection",
        ["updated_at", "id"],
        unique=False,
        sqlite_where=sa.text("is_public"),
        postgresql_where=sa.text("is_public"),
    )
    op.create_table(
        "collection_server",
        sa.Column("collection_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_collection_server_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_collection_server_server_id_server"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("collection_id", "server_id", name=op.f("pk_collection_server")),
    )
    op.create_index(op.f("ix_collection_server_server_id"), "collection_server", ["server_id"], unique=False)
