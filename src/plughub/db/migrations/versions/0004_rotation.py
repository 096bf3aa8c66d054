"""Keys are rotated, and the hub knows when and from where they were used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """The newest secret's last use beside the key, earlier secrets and addresses in tables of their own."""
    op.add_column("api_key", sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("api_key", sa.Column("rotated_at", sa.Double(), nullable=True))
    op.add_column("api_key", sa.Column("last_used_at", sa.Double(), nullable=True))
    op.add_column("api_key", sa.Column("last_used_ip", sa.Text(), nullable=True))
    op.add_column("api_key", sa.Column("expiry_told", sa.Integer(), nullable=True))
    op.add_column("api_key", sa.Column("rotation_told", sa.Integer(), nullable=True))
    op.create_table(
        "retired_secret",
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("pepper_version", sa.Integer(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("last4", sa.Text(), nullable=False),
        sa.Column("valid_until", sa.Double(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("last_used_ip", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_retired_secret_key_id_api_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_id", "generation", name=op.f("pk_retired_secret")),
        sa.UniqueConstraint("digest", name=op.f("uq_retired_secret_digest")),
    )
    op.create_table(
        "key_address",
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.Double(), nullable=False),
        sa.Column("last_seen_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_key_address_key_id_api_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_id", "address", name=op.f("pk_key_address")),
    )
