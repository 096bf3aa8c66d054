"""What was seen of each server, and the index of its calls."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
_OF_SERVERS = sa.text("server_id IS NOT NULL")


def upgrade() -> None:
    """Create `server_health` and the index that the figures of a server are read from."""
    op.create_table(
        "server_health",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("latency_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_server_health_server_id_server"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_health")),
    )
    op.create_index(op.f("ix_server_health_server_id_at"), "server_health", ["server_id", "at"], unique=False)
    op.create_index(
        "ix_event_of_server",
        "event",
        ["server_id", "name", "at", "is_error", "duration_us"],
        unique=False,
        sqlite_where=_OF_SERVERS,
        postgresql_where=_OF_SERVERS,
    )
