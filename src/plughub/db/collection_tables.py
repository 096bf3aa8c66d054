"""The tables of collections and of what people say of themselves, beside `tables`."""

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint, text

from plughub.db.columns import metadata

# What somebody says of themselves at this hub; a row only once they have. `username` is kept in lower case, `likeness` is the same for
# names that look alike. Nothing of it is shown to others unless `is_public`.
person_profile = Table(
    "person_profile",
    metadata,
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
    Column("username", Text, nullable=True),
    Column("likeness", Text, nullable=True),
    Column("bio", Text, nullable=False),
    Column("avatar_url", Text, nullable=True),
    Column("social_links", JSON, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("username"),
    UniqueConstraint("likeness"),
)

# Servers that are handed on together. A profile that is removed leaves its collections behind. `share_digest`: of the token of the link
# that shows the collection to whoever has it; null while there is none. `created_by` a person, where one made it.
collection = Table(
    "collection",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("space_id", String(36), ForeignKey("space.id"), nullable=False),
    Column("profile_id", String(36), ForeignKey("profile.id", ondelete="SET NULL"), nullable=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("share_digest", LargeBinary(32), nullable=True),
    Column("shared_at", Double, nullable=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("created_by", String(36), nullable=True),
    UniqueConstraint("share_digest"),
    Index(None, "space_id", "created_at"),
    Index(None, "profile_id"),
    Index(None, "created_by"),
    # What the hub lists for everybody: few rows of many.
    Index("ix_collection_public", "updated_at", "id", sqlite_where=text("is_public")),
)

# The servers of a collection, in its own order.
collection_server = Table(
    "collection_server",
    metadata,
    Column("collection_id", String(36), ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, nullable=False),
    Index(None, "server_id"),
)
