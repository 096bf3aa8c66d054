"""Tables of what the hub watches and tells: how each server is, and notifications. Conventions as in `tables`."""

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, Text, text

from plughub.db.tables import metadata

# One row a server, made and removed with it: how it is, as the log was last told (`state` connected, disconnected or error; null: nothing
# yet), when that was seen and when told; how many tools it listed last; when it is to be looked at next, and how many looks have failed in
# a row.
server_state = Table(
    "server_state",
    metadata,
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=True),
    Column("error", Text, nullable=True),
    Column("seen_at", Double, nullable=True),
    Column("told_at", Double, nullable=True),
    Column("tools_count", Integer, nullable=True),
    Column("probe_at", Double, nullable=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
)

# `event`: the name of what it tells of, or `custom`; `subject`: the id of what it is about, by which repetitions are found, which are
# counted in `times`. `person_id`: for that person alone. `key_id`: the key that it is about or that sent it. Plain ids, as in `event`.
notification = Table(
    "notification",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("space_id", String(36), ForeignKey("space.id", ondelete="CASCADE"), nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=True),
    Column("server_id", String(36), nullable=True),
    Column("key_id", String(36), nullable=True),
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), nullable=True),
    Column("title", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("link", Text, nullable=True),
    Column("metadata", Text, nullable=False),
    Column("times", Integer, nullable=False),
    Column("mailed", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("read_at", Double, nullable=True),
    Index(None, "space_id", "last_at"),
    Index(None, "person_id"),
)

# One row: the last change of the hub that notifications were made of. It moves in the transaction that makes them.
notification_cursor = Table(
    "notification_cursor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("change_no", BigInteger, nullable=False),
)

# Who wants no mail. Whoever has no row gets it.
notification_preference = Table(
    "notification_preference",
    metadata,
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
    Column("mail", Boolean, nullable=False),
)
