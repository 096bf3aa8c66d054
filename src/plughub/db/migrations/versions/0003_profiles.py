"""Projects and profiles can be changed, and profiles hold servers by reference."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """What a profile says of its servers, and when projects and profiles were changed last."""
    op.add_column("project", sa.Column("updated_at", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("profile", sa.Column("updated_at", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("profile", sa.Column("description", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.execute(sa.text("UPDATE project SET updated_at = created_at"))
    op.execute(sa.text("UPDATE profile SET updated_at = created_at"))
    op.create_table(
        "profile_server",
        sa.Column("profile_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("included", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["profile_id"], ["profile.id"], name=op.f("fk_profile_server_profile_id_profile"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_profile_server_server_id_server"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("profile_id", "server_id", name=op.f("pk_profile_server")),
    )
    op.create_index(op.f("ix_profile_server_server_id"), "profile_server", ["server_id"], unique=False)
