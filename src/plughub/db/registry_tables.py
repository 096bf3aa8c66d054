"""The tables of the registry; see `tables`, whose metadata they share."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from plughub.db.columns import metadata

# One version of a server that a registry lists. `scope` is whose it is: empty = everybody's, else the id of the organisation that
# submitted it and alone sees it. `source`: catalogue, local (submitted here), or the address of another registry. `words` is what a
# search looks through; the whole server.json is beside it, for a search reads thousands of these rows.
registry_entry = Table(
    "registry_entry",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), nullable=True),
    Column("source", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("short_name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("is_latest", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("package_type", Text, nullable=False),
    Column("transports", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("words", Text, nullable=False),
    Column("published_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("scope", "name", "version"),
    Index(None, "scope", "is_latest", "name"),
    Index(None, "short_name"),
    Index(None, "source"),
    Index(None, "organization_id"),
)

registry_document = Table(
    "registry_document",
    metadata,
    Column("entry_id", String(36), ForeignKey("registry_entry.id", ondelete="CASCADE"), primary_key=True),
    Column("document", Text, nullable=False),
)

# What really happened here to a server of the registry, counted with it.
registry_figures = Table(
    "registry_figures",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("installs", BigInteger, nullable=False),
    Column("stars", BigInteger, nullable=False),
)

# `subject`: the person (`user:…`) or, for a key, the organisation (`org:…`) whose star it is.
registry_star = Table(
    "registry_star",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "organization_id"),
)

# The files of a package below the data directory. `extras`: what else its document pins; `script`: what runs it, below the folder.
registry_package = Table(
    "registry_package",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("identifier", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("extras", Text, nullable=False),
    Column("integrity", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("script", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "identifier", "version"),
)

# One installation; `server_id` is null once the server has gone.
registry_install = Table(
    "registry_install",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), nullable=False),
    Column("space_id", String(36), ForeignKey("space.id", ondelete="CASCADE"), nullable=False),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="SET NULL"), nullable=True),
    Column("package_id", String(36), ForeignKey("registry_package.id"), nullable=True),
    Column("installed_at", Double, nullable=False),
    Index(None, "installed_at"),
    Index(None, "scope", "name", "installed_at"),
    Index(None, "server_id"),
    Index(None, "package_id"),
    Index(None, "space_id"),
    Index(None, "organization_id"),
)

# How far another registry was read. `cursor`: where a pass stands that is not at its end; `since`: what is asked for next; `newest`: the
# newest change that this pass has seen. `notes`: the last entries that were refused, and why.
registry_source = Table(
    "registry_source",
    metadata,
    Column("url", Text, primary_key=True),
    Column("cursor", Text, nullable=True),
    Column("since", Double, nullable=True),
    Column("newest", Double, nullable=True),
    Column("tried_at", Double, nullable=True),
    Column("synced_at", Double, nullable=True),
    Column("last_error", Text, nullable=True),
    Column("refused", Integer, nullable=False),
    Column("notes", JSON, nullable=False),
)
