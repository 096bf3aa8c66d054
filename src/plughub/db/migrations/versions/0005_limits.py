"""Limits of an organisation's own, and of a key's own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Numbers in the place of a tier's, and the numbers of a key."""
    op.add_column("organization", sa.Column("hourly_limit", sa.Integer(), nullable=True))
    op.add_column("organization", sa.Column("burst_limit", sa.Integer(), nullable=True))
    op.add_column("organization", sa.Column("concurrency_limit", sa.Integer(), nullable=True))
    op.add_column("api_key", sa.Column("rate_limit", sa.JSON(none_as_null=True), nullable=True))
