"""The tables of usage: how much was called, how far that is counted, flags of keys, and alerts. Told as `db.tables` tells the others."""

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from plughub.db.columns import metadata

# What was asked in one minute, hour or day (`grain`, from `start` on) by one key of one server's tool; '' = none. `kind` is call (of a
# tool) or request (any other). Counts by class of outcome; `digest` is the sketch of the times of the calls that were answered.
usage_cell = Table(
    "usage_cell",
    metadata,
    Column("space_id", String(36), primary_key=True),
    Column("grain", String(6), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(7), primary_key=True),
    Column("key_id", String(36), primary_key=True),
    Column("server_id", String(36), primary_key=True),
    Column("tool", Text, primary_key=True),
    Column("ok", BigInteger, nullable=False),
    Column("tool_error", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("limited", BigInteger, nullable=False),
    Column("upstream_error", BigInteger, nullable=False),
    Column("timeout", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("hub_error", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=True),
    Index(None, "grain", "start"),
    Index(None, "key_id", "grain", "start"),
    sqlite_with_rowid=False,
)

# How far the log of a space is counted; moved in the transaction that writes the cells.
usage_cursor = Table(
    "usage_cursor",
    metadata,
    Column("space_id", String(36), ForeignKey("space.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# Why somebody should look at a key. `subject` tells flags of one name apart (an address), `numbers` is JSON.
key_flag = Table(
    "key_flag",
    metadata,
    Column("key_id", String(36), ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True),
    Column("flag", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("raised_at", Double, nullable=False),
    Column("numbers", Text, nullable=False),
    Index(None, "raised_at"),
)

# `threshold` of `metric` over `window_s` of a server's, a key's or all calls; `since_at` is when `firing` last changed.
alert = Table(
    "alert",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("space_id", String(36), ForeignKey("space.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("window_s", Integer, nullable=False),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), nullable=True),
    Column("key_id", String(36), ForeignKey("api_key.id", ondelete="CASCADE"), nullable=True),
    Column("channel", Text, nullable=False),
    Column("email", Text, nullable=True),
    Column("enabled", Boolean, nullable=False),
    Column("firing", Boolean, nullable=False),
    Column("since_at", Double, nullable=True),
    Column("value", Double, nullable=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index(None, "space_id"),
    Index(None, "server_id"),
    Index(None, "key_id"),
)
