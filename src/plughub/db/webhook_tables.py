"""The tables of webhooks, beside `tables`."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from plughub.db.columns import metadata

# Who is told. Address and secrets are sealed, bound to the row. `servers`: told of these alone; null: of all. `scopes`: of those that
# events need to be heard of, what whoever chose its events had. `from_seq`: told of what
# came after it. `disabled`: why the hub switched it off. `revision` grows with every change, for what is remembered of it.
webhook = Table(
    "webhook",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("space_id", String(36), ForeignKey("space.id"), nullable=False),
    Column("sealed_url", LargeBinary, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("sealed_previous", LargeBinary, nullable=True),
    Column("previous_until", Double, nullable=True),
    Column("events", JSON, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("ordered", Boolean, nullable=False),
    Column("format", Text, nullable=False),
    Column("channel", Text, nullable=True),
    Column("project_id", String(36), nullable=True),
    Column("servers", JSON(none_as_null=True), nullable=True),
    Column("scopes", JSON, nullable=False),
    Column("description", Text, nullable=False),
    Column("rate_per_minute", Integer, nullable=True),
    Column("from_seq", BigInteger, nullable=False),
    Column("disabled", Text, nullable=True),
    Column("failing_since", Double, nullable=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("revision", Integer, nullable=False),
    Index(None, "space_id"),
)

# How far the log of a space has become deliveries: moved in the transaction that makes them.
webhook_cursor = Table(
    "webhook_cursor",
    metadata,
    Column("space_id", String(36), ForeignKey("space.id"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# One event on its way to one webhook. The id follows from webhook and event, so that none is made twice. Pending rows have a `next_at`:
# when they are due, or until when `lease_owner` holds them, or of an ordered webhook's far in the future their place in the line.
# `attempts` counts all, `tries` those of the schedule under way. No foreign key: rows of a deleted webhook are removed in small steps.
delivery = Table(
    "delivery",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("webhook_id", String(36), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", Double, nullable=True),
    Column("lease_owner", String(36), nullable=True),
    Column("created_at", Double, nullable=False),
    Column("last_at", Double, nullable=True),
    Column("response_status", Integer, nullable=True),
    Column("response_excerpt", Text, nullable=True),
    Column("error", Text, nullable=True),
    Column("duration_ms", Integer, nullable=True),
    Index(None, "webhook_id", "created_at"),
    Index(
        "ix_delivery_due",
        "webhook_id",
        "next_at",
        sqlite_where=text("next_at IS NOT NULL"),
    ),
)
