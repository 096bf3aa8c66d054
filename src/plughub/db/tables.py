"""Every table of the hub.

Ids are text (canonical uuid7). Times are epoch seconds in columns named `*_at`. `space_id` is the one column of isolation:
an organisation has two spaces, live and test (DESIGN section 1).
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id(name: str = "id", *, nullable: bool = False) -> Column[str]:
    return Column(name, String(36), nullable=nullable)


def _reference(name: str, target: str, *, cascade: bool = False) -> Column[str]:
    return Column(name, String(36), ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=False)


def _key() -> Column[str]:
    return Column("id", String(36), primary_key=True)


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


# One row. `change_no` numbers the management changes of the whole hub in commit order: caches of every process follow it.
hub = Table(
    "hub",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("change_no", BigInteger, nullable=False),
    _time("created_at"),
)

organization = Table(
    "organization",
    metadata,
    _key(),
    _text("name"),
    _text("slug"),
    _text("tier"),
    _flag("operator"),
    _flag("stdio_allowed"),
    _time("created_at"),
    # Numbers of the organisation's own, in the place of its tier's; null: the tier's.
    Column("hourly_limit", Integer, nullable=True),
    Column("burst_limit", Integer, nullable=True),
    Column("concurrency_limit", Integer, nullable=True),
    Column("description", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("slug"),
)

# `seq` numbers the space's events in commit order; `epoch` changes when the numbering starts anew (a restored backup).
space = Table(
    "space",
    metadata,
    _key(),
    _reference("organization_id", "organization.id"),
    _text("environment"),
    Column("seq", BigInteger, nullable=False),
    _text("epoch"),
    UniqueConstraint("organization_id", "environment"),
)

project = Table(
    "project",
    metadata,
    _key(),
    _reference("organization_id", "organization.id"),
    _reference("space_id", "space.id"),
    _text("name"),
    _text("description"),
    _flag("is_default"),
    _time("created_at"),
    # The defaults here and in `profile`: SQLite adds a column to a table with rows only with one.
    Column("updated_at", Double, nullable=False, server_default=text("0")),
    Index(None, "space_id"),
)

profile = Table(
    "profile",
    metadata,
    _key(),
    _reference("project_id", "project.id"),
    _reference("space_id", "space.id"),
    _text("name"),
    _text("slug"),
    _flag("is_default"),
    _time("created_at"),
    Column("updated_at", Double, nullable=False, server_default=text("0")),
    Column("description", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("space_id", "slug"),
    Index(None, "project_id"),
)

server = Table(
    "server",
    metadata,
    _key(),
    _reference("space_id", "space.id"),
    _reference("profile_id", "profile.id"),
    _text("slug"),
    _text("name"),
    _text("description"),
    _text("transport"),
    Column("sealed_config", LargeBinary, nullable=False),
    _flag("enabled"),
    Column("revision", Integer, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("space_id", "slug"),
    Index(None, "profile_id"),
)

# A server in a profile: what the profile says of it. `included`: the profile has it by reference; else the row counts only while
# the profile is the server's home. `tools`: what differs from the server's own, `{tool: {enabled?, name?, description?}}`.
profile_server = Table(
    "profile_server",
    metadata,
    Column("profile_id", String(36), ForeignKey("profile.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    _flag("included"),
    _flag("enabled"),
    Column("tools", JSON, nullable=False),
    Index(None, "server_id"),
)

api_key = Table(
    "api_key",
    metadata,
    _key(),
    _reference("organization_id", "organization.id"),
    _reference("space_id", "space.id"),
    _text("name"),
    _text("description"),
    _text("kind"),
    _text("environment"),
    Column("digest", LargeBinary(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),
    _text("prefix"),
    _text("last4"),
    Column("scopes", JSON, nullable=False),
    _flag("all_servers"),
    Column("allowed_ips", JSON(none_as_null=True), nullable=True),
    Column("labels", JSON, nullable=False),
    _text("status"),
    _time("expires_at", nullable=True),
    _time("created_at"),
    _id("created_by", nullable=True),
    _time("revoked_at", nullable=True),
    # How often the secret was changed; `digest`, `prefix`, `last4` and the last use are those of the newest one.
    Column("generation", Integer, nullable=False, server_default=text("0")),
    _time("rotated_at", nullable=True),
    _time("last_used_at", nullable=True),
    Column("last_used_ip", Text, nullable=True),
    # What was announced: the least number of days before this expiry, the generation that is due for rotation.
    Column("expiry_told", Integer, nullable=True),
    Column("rotation_told", Integer, nullable=True),
    # What the key alone may use, `{hourly?, burst?, concurrency?}`; null: what its organisation may.
    Column("rate_limit", JSON(none_as_null=True), nullable=True),
    UniqueConstraint("digest"),
    Index(None, "space_id"),
    Index(None, "organization_id"),
)

# Secrets that a key had before it was rotated. The rows stay: a secret that is over answers as a revoked key.
retired_secret = Table(
    "retired_secret",
    metadata,
    Column("key_id", String(36), ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),
    _text("prefix"),
    _text("last4"),
    _time("valid_until"),
    _time("last_used_at", nullable=True),
    Column("last_used_ip", Text, nullable=True),
    UniqueConstraint("digest"),
)

# Where a key was used from; the newest few of each key.
key_address = Table(
    "key_address",
    metadata,
    Column("key_id", String(36), ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True),
    Column("address", Text, primary_key=True),
    _time("first_seen_at"),
    _time("last_seen_at"),
)

key_server = Table(
    "key_server",
    metadata,
    Column("key_id", String(36), ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "server_id"),
)

# Append-only. Ids are plain text: a row outlives what it tells about. One tool call is one row.
event = Table(
    "event",
    metadata,
    Column("space_id", String(36), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("name"),
    _time("at"),
    Column("change_no", BigInteger, nullable=True),
    _id("server_id", nullable=True),
    _id("key_id", nullable=True),
    Column("tool", Text, nullable=True),
    Column("request_id", Text, nullable=True),
    Column("outcome", Text, nullable=True),
    Column("is_error", Boolean, nullable=True),
    Column("duration_us", BigInteger, nullable=True),
    Column("door", Text, nullable=True),
    _text("data"),
    # Partial: the rows of tool calls, by far the most, carry no number and cost this index nothing.
    Index(
        "ix_event_change_no",
        "change_no",
        unique=True,
        sqlite_where=text("change_no IS NOT NULL"),
        postgresql_where=text("change_no IS NOT NULL"),
    ),
    Index(None, "space_id", "name", "at"),
    # The figures of one server are counted in this index alone, without its rows.
    Index(
        "ix_event_of_server",
        "server_id",
        "name",
        "at",
        "is_error",
        "duration_us",
        sqlite_where=text("server_id IS NOT NULL"),
        postgresql_where=text("server_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

# Who did what; append-only, never pruned, each row signed together with the one before (`db.audit`). Plain ids, as in `event`.
audit = Table(
    "audit",
    metadata,
    Column("organization_id", String(36), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _time("at"),
    _text("action"),
    _text("outcome"),
    _text("actor_kind"),
    _id("key_id", nullable=True),
    _id("user_id", nullable=True),
    Column("address", Text, nullable=True),
    Column("request_id", Text, nullable=True),
    _text("object_kind"),
    Column("object_id", Text, nullable=True),
    Column("object_name", Text, nullable=True),
    Column("environment", Text, nullable=True),
    _text("changes"),
    _text("note"),
    Column("key_version", Integer, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Index(None, "organization_id", "at"),
    sqlite_with_rowid=False,
)

# The last row of each organisation's audit, signed: rows cut off its end are missed.
audit_head = Table(
    "audit_head",
    metadata,
    Column("organization_id", String(36), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)

# What was seen of a server: every change of its state (`kind` status) and every look of the hub's own (probe). Bounded by a job.
server_health = Table(
    "server_health",
    metadata,
    _key(),
    _reference("server_id", "server.id", cascade=True),
    _time("at"),
    _text("kind"),
    _text("status"),
    Column("latency_us", BigInteger, nullable=True),
    Column("error", Text, nullable=True),
    Index(None, "server_id", "at"),
)

# One row a live process; `change_no` is how far its caches have followed.
node = Table(
    "node",
    metadata,
    _key(),
    _time("seen_at"),
    Column("change_no", BigInteger, nullable=False),
)

job = Table(
    "job",
    metadata,
    _key(),
    _text("kind"),
    _time("run_at"),
    Column("attempts", Integer, nullable=False),
    _time("lease_until", nullable=True),
    _id("lease_owner", nullable=True),
    Column("dedupe", Text, nullable=True),
    _text("payload"),
    _text("state"),
    Column("last_error", Text, nullable=True),
    UniqueConstraint("dedupe"),
    Index(None, "state", "run_at"),
)

# Somebody with an account. `email` is kept in lower case. `totp_secret` is sealed; it counts once `totp_confirmed_at` is set, and
# `totp_step` is the last step of time whose code was taken.
person = Table(
    "person",
    metadata,
    _key(),
    _text("email"),
    _text("name"),
    _text("password_hash"),
    _time("password_at"),
    _time("verified_at", nullable=True),
    Column("totp_secret", LargeBinary, nullable=True),
    _time("totp_confirmed_at", nullable=True),
    Column("totp_step", BigInteger, nullable=True),
    _time("created_at"),
    UniqueConstraint("email"),
)

# The digests of backup codes that are not used yet.
backup_code = Table(
    "backup_code",
    metadata,
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
)

membership = Table(
    "membership",
    metadata,
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), primary_key=True),
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
    _text("role"),
    _time("created_at"),
    Index(None, "person_id"),
)

# A browser that is logged in, and the organisation that it acts for. A session that has ended has no row.
person_session = Table(
    "person_session",
    metadata,
    _key(),
    _reference("person_id", "person.id", cascade=True),
    _reference("organization_id", "organization.id", cascade=True),
    Column("digest", LargeBinary(32), nullable=False),
    _time("created_at"),
    _time("seen_at"),
    _time("expires_at"),
    _text("address"),
    _text("agent"),
    UniqueConstraint("digest"),
    Index(None, "person_id"),
    Index(None, "organization_id"),
)

# `sealed` holds the token of the link until somebody has it by mail; the operator shows it where no mail is sent.
invitation = Table(
    "invitation",
    metadata,
    _key(),
    _reference("organization_id", "organization.id", cascade=True),
    _text("email"),
    _text("role"),
    Column("digest", LargeBinary(32), nullable=False),
    Column("sealed", LargeBinary, nullable=True),
    _id("created_by", nullable=True),
    _time("created_at"),
    _time("expires_at"),
    UniqueConstraint("digest"),
    Index(None, "organization_id"),
)

# Links that are good once: `kind` register, verify, reset or setup. `sealed` as above, with what a registration waits with.
person_link = Table(
    "person_link",
    metadata,
    _key(),
    _text("kind"),
    _text("email"),
    Column("digest", LargeBinary(32), nullable=False),
    Column("sealed", LargeBinary, nullable=True),
    _time("created_at"),
    _time("expires_at", nullable=True),
    UniqueConstraint("digest"),
    Index(None, "email"),
)

# How often an account or an address has tried to log in lately: `tat` is the theoretical arrival time of GCRA (addresses), the end
# of the pause after `failures` in a row (accounts). Subjects are digests: the table names nobody.
attempt = Table(
    "attempt",
    metadata,
    Column("subject", LargeBinary(32), primary_key=True),
    _time("tat"),
    Column("failures", Integer, nullable=False),
    _time("seen_at"),
    Index(None, "seen_at"),
)

# A client of the authorization server that was registered here: `kind` app (by an administrator, for an organisation) or dynamic (by
# itself). Those that are known by a URL of their own have no row. `scopes` is what it may ask for; null = whatever there is.
oauth_client = Table(
    "oauth_client",
    metadata,
    _key(),
    _text("client_id"),
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), nullable=True),
    _text("kind"),
    _text("name"),
    _text("description"),
    Column("redirect_uris", JSON, nullable=False),
    Column("grant_types", JSON, nullable=False),
    Column("scopes", JSON(none_as_null=True), nullable=True),
    _text("auth_method"),
    Column("secret_digest", LargeBinary(32), nullable=True),
    Column("client_uri", Text, nullable=True),
    _time("created_at"),
    _id("created_by", nullable=True),
    UniqueConstraint("client_id"),
    Index(None, "organization_id"),
    Index(None, "kind", "created_at"),
)

# What a person has allowed a client, for one organisation: every token of it is of one family, and goes with it. `client_id` is the
# id on the wire. With `resource` (a URL) its tokens are good at one of our doors alone: `audience`, the path of it.
oauth_grant = Table(
    "oauth_grant",
    metadata,
    _key(),
    _text("client_id"),
    _text("client_name"),
    _id("person_id"),
    _id("organization_id"),
    Column("scopes", JSON, nullable=False),
    _flag("all_servers"),
    Column("resource", Text, nullable=True),
    Column("audience", Text, nullable=True),
    _time("created_at"),
    _time("expires_at"),
    # Who leaves the organisation leaves no tokens behind.
    ForeignKeyConstraint(
        ["organization_id", "person_id"],
        ["membership.organization_id", "membership.person_id"],
        "fk_oauth_grant_membership",
        ondelete="CASCADE",
    ),
    Index(None, "client_id"),
    Index(None, "person_id", "organization_id"),
    Index(None, "expires_at"),
)

# The servers of a grant with a list.
oauth_grant_server = Table(
    "oauth_grant_server",
    metadata,
    Column("grant_id", String(36), ForeignKey("oauth_grant.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(36), ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "server_id"),
)

# An authorization code. One that was used stays until it has run out, so that a second use is seen. `redirect_uri` as the request named it.
oauth_code = Table(
    "oauth_code",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    _reference("grant_id", "oauth_grant.id", cascade=True),
    Column("redirect_uri", Text, nullable=True),
    Column("challenge", Text, nullable=True),
    _time("expires_at"),
    _time("spent_at", nullable=True),
    Index(None, "grant_id"),
    Index(None, "expires_at"),
)

# Access and refresh tokens. A refresh token that was used stays, so that a second use is seen.
oauth_token = Table(
    "oauth_token",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    _reference("grant_id", "oauth_grant.id", cascade=True),
    _text("kind"),
    Column("scopes", JSON, nullable=False),
    Column("resource", Text, nullable=True),
    Column("audience", Text, nullable=True),
    _time("created_at"),
    _time("expires_at"),
    _time("spent_at", nullable=True),
    Index(None, "grant_id"),
    Index(None, "expires_at"),
)

# A device that waits for somebody to let it in: `kind` oauth (RFC 8628: it gets tokens of `grant_id`) or cli (it gets a key of the
# person's). `status` pending, approved, denied or done.
oauth_device = Table(
    "oauth_device",
    metadata,
    _key(),
    _text("kind"),
    Column("digest", LargeBinary(32), nullable=False),
    Column("user_digest", LargeBinary(32), nullable=False),
    _text("client_id"),
    Column("scopes", JSON, nullable=False),
    Column("resource", Text, nullable=True),
    Column("audience", Text, nullable=True),
    _text("status"),
    _time("created_at"),
    _time("expires_at"),
    _time("polled_at", nullable=True),
    Column("interval_s", Integer, nullable=False),
    Column("grant_id", String(36), ForeignKey("oauth_grant.id", ondelete="CASCADE"), nullable=True),
    Column("person_id", String(36), ForeignKey("person.id", ondelete="CASCADE"), nullable=True),
    Column("organization_id", String(36), ForeignKey("organization.id", ondelete="CASCADE"), nullable=True),
    Column("project_id", String(36), ForeignKey("project.id", ondelete="CASCADE"), nullable=True),
    UniqueConstraint("digest"),
    UniqueConstraint("user_digest"),
    Index(None, "expires_at"),
    Index(None, "grant_id"),
    Index(None, "person_id"),
    Index(None, "organization_id"),
    Index(None, "project_id"),
)
