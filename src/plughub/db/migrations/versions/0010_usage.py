"""Usage: counted calls, flags of keys, alerts, and which servers' calls are captured."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_COUNTS = ("ok", "tool_error", "refused", "limited", "upstream_error", "timeout", "cancelled", "hub_error", "bytes_in", "bytes_out")


def upgrade() -> None:
    """The tables, empty: the first counting goes through the whole log."""
    op.add_column("server", sa.Column("capture", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "usage_cell",
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("grain", sa.String(length=6), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=7), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("space_id", "grain", "start", "kind", "key_id", "server_id", "tool", name=op.f("pk_usage_cell")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_usage_cell_grain_start"), "usage_cell", ["grain", "start"], unique=False)
    op.create_index(op.f("ix_usage_cell_key_id_grain_start"), "usage_cell", ["key_id", "grain", "start"], unique=False)
    op.create_table(
        "usage_cursor",
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_usage_cursor_space_id_space"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_usage_cursor")),
    )
    op.create_table(
        "key_flag",
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("flag", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.Double(), nullable=False),
        sa.Column("numbers", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_key_flag_key_id_api_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_id", "flag", "subject", name=op.f("pk_key_flag")),
    )
    op.create_index(op.f("ix_key_flag_raised_at"), "key_flag", ["raised_at"], unique=False)
    op.create_table(
        "alert",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("window_s", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("firing", sa.Boolean(), nullable=False),
        sa.Column("since_at", sa.Double(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_alert_key_id_api_key"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_alert_server_id_server"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_alert_space_id_space"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    op.create_index(op.f("ix_alert_space_id"), "alert", ["space_id"], unique=False)
    op.create_index(op.f("ix_alert_server_id"), "alert", ["server_id"], unique=False)
    op.create_index(op.f("ix_alert_key_id"), "alert", ["key_id"], unique=False)
