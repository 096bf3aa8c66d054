"""The table of answers that are given again, beside `tables`."""

from sqlalchemy import Column, Double, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from plughub.db.columns import metadata

# What a POST with an Idempotency-Key was answered. `owner` names the caller, `digest` is of the key, `fingerprint` of the request.
# `status` null: under way on the process `node_id`, or cut off; `answer` is sealed, and null as well when it was too large to keep.
kept_answer = Table(
    "kept_answer",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("status", Integer, nullable=True),
    Column("answer", LargeBinary, nullable=True),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("owner", "digest"),
    Index(None, "owner", "created_at"),
    Index(None, "created_at"),
)
