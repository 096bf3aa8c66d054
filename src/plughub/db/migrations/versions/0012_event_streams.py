"""Event streams: how far a log was pruned, its changes in order, and tickets."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """What was pruned before this revision is not known, and taken for nothing."""
    op.add_column("space", sa.Column("pruned_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    numbered = sa.text("change_no IS NOT NULL")
    op.create_index("ix_event_changes", "event", ["space_id", "seq"], sqlite_where=numbered, postgresql_where=numbered)
    op.create_table(
        "stream_ticket",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("shown", sa.LargeBinary(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("space_id", sa.String(length=36), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("opened", sa.Text(), nullable=True),
        sa.Column("opened_seq", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["space_id"], ["space.id"], name=op.f("fk_stream_ticket_space_id_space"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_stream_ticket")),
    )
    op.create_index(op.f("ix_stream_ticket_created_at"), "stream_ticket", ["created_at"])
