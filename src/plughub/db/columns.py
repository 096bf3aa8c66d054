"""The one metadata of all tables, and the columns that most of them have."""

from sqlalchemy import Boolean, Column, Double, ForeignKey, MetaData, String, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def identifier(name: str = "id", *, nullable: bool = False) -> Column[str]:
    """An id, or the id of something that may be gone."""
    return Column(name, String(36), nullable=nullable)


def reference(name: str, target: str, *, cascade: bool = False) -> Column[str]:
    """The id of a row that is there; with `cascade` this row goes with it."""
    return Column(name, String(36), ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=False)


def key() -> Column[str]:
    """The id of a row."""
    return Column("id", String(36), primary_key=True)


def time_column(name: str, *, nullable: bool = False) -> Column[float]:
    """Epoch seconds."""
    return Column(name, Double, nullable=nullable)


def text_column(name: str) -> Column[str]:
    """A text that is there."""
    return Column(name, Text, nullable=False)


def flag(name: str) -> Column[bool]:
    """Yes or no."""
    return Column(name, Boolean, nullable=False)
