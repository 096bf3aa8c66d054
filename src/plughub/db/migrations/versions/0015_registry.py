"""The registry: what is listed, starred and installed, the files of packages, and how far other registries were read."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Seven tables, none of which anything that was there before refers to."""
    op.create_table(
        "registry_figures",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("installs", sa.BigInteger(), nullable=False),
        sa.Column("stars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name=op.f("pk_registry_figures")),
    )
    op.create_table(
        "registry_package",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("extras", sa.Text(), nullable=False),
        sa.Column("integrity", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("script", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_package")),
    )
    op.create_index(op.f("ix_registry_package_identifier_version"), "registry_package", ["identifier", "version"], unique=False)
    op.create_table(
        "registry_source",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("since", sa.Double(), nullable=True),
        sa.Column("newest", sa.Double(), nullable=True),
        sa.Column("tried_at", sa.Double(), nullable=True),
        sa.Column("synced_at", sa.Double(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_registry_source")),
    )
    op.create_table(
        "registry_entry",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("short_name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("is_latest", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("package_type", sa.Text(), nullable=False),
        sa.Column("transports", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_registry_entry_organization_id_organization"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_entry")),
        sa.UniqueConstraint("scope", "name", "version", name=op.f("uq_registry_entry_scope_name_version")),
    )
    op.create_index(op.f("ix_registry_entry_organization_id"), "registry_entry", ["organization_id"], unique=False)
    op.create_index(op.f("ix_registry_entry_scope_is_latest_name"), "registry_entry", ["scope", "is_latest", "name"], unique=False)
    op.create_index(op.f("ix_registry_entry_short_name"), "registry_entry", ["short_name"], unique=False)
    op.create_index(op.f("ix_registry_entry_source"), "registry_entry", ["source"], unique=False)
    op.create_table(
        "registry_star",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_registry_star_organization_id_organization"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("scope", "name", "subject", name=op.f("pk_registry_star")),
    )
    op.create_index(op.f("ix_registry_star_organization_id"), "registry_star", ["organization_id"], unique=False)
    op.create_table(
        "registry_document",
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["registry_entry.id"], name=op.f("fk_registry_document_entry_id_registry_entry"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_registry_document")),
    )
    op.create_table(
        "registry_install",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("package_id", sa.String(length=36), nullable=True),
        sa.Column("installed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_registry_install_organization_id_organization"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["package_id"], ["registry_package.id"], name=op.f("fk_registry_install_package_id_registry_package")),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_registry_install_server_id_server"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_registry_install_space_id_space"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_install")),
    )
    op.create_index(op.f("ix_registry_install_installed_at"), "registry_install", ["installed_at"], unique=False)
    op.create_index(op.f("ix_registry_install_organization_id"), "registry_install", ["organization_id"], unique=False)
    op.create_index(op.f("ix_registry_install_package_id"), "registry_install", ["package_id"], unique=False)
    op.create_index(
        op.f("ix_registry_install_scope_name_installed_at"), "registry_install", ["scope", "name", "installed_at"], unique=False
    )
    op.create_index(op.f("ix_registry_install_server_id"), "registry_install", ["server_id"], unique=False)
    op.create_index(op.f("ix_registry_install_space_id"), "registry_install", ["space_id"], unique=False)
