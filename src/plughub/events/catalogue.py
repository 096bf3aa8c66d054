"""Every event name there is, and what its `data` holds. Source: CONTRACT section 7.

`data` never holds a secret. Ids are uuids; the doors render them in their dialect.
"""

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from pydantic import WithJsonSchema

# What the log keeps as epoch seconds and the outside is told as a time (`events.body`); the schemas speak of what is told.
At = Annotated[float, WithJsonSchema({"type": "string", "format": "date-time"})]

SERVER_CREATED: Final = "server.created"
SERVER_UPDATED: Final = "server.updated"
SERVER_DELETED: Final = "server.deleted"
SERVER_CONNECTED: Final = "server.connected"
SERVER_DISCONNECTED: Final = "server.disconnected"
SERVER_ERROR: Final = "server.error"
SERVER_INSTALLED: Final = "server.installed"
SERVER_UNINSTALLED: Final = "server.uninstalled"
TOOL_EXECUTED: Final = "tool.executed"
TOOL_FAILED: Final = "tool.failed"
KEY_CREATED: Final = "key.created"
KEY_UPDATED: Final = "key.updated"
KEY_REVOKED: Final = "key.revoked"
KEY_SUSPENDED: Final = "key.suspended"
KEY_ROTATED: Final = "key.rotated"
KEY_FLAGGED: Final = "key.flagged"
PROJECT_CREATED: Final = "project.created"
PROJECT_UPDATED: Final = "project.updated"
PROJECT_DELETED: Final = "project.deleted"
PROFILE_CREATED: Final = "profile.created"
PROFILE_UPDATED: Final = "profile.updated"
PROFILE_DELETED: Final = "profile.deleted"
COLLECTION_CREATED: Final = "collection.created"
COLLECTION_UPDATED: Final = "collection.updated"
COLLECTION_DELETED: Final = "collection.deleted"
COLLECTION_SHARED: Final = "collection.shared"
COLLECTION_UNSHARED: Final = "collection.unshared"
COLLECTION_PUBLISHED: Final = "collection.published"
USAGE_LIMIT_REACHED: Final = "usage.limit_reached"
ALERT_CREATED: Final = "alert.created"
ALERT_UPDATED: Final = "alert.updated"
ALERT_DELETED: Final = "alert.deleted"
ALERT_FIRED: Final = "alert.fired"
ALERT_RESOLVED: Final = "alert.resolved"
# Not for the public stream: it tells caches that tier or rights of an organisation have changed.
ORGANIZATION_UPDATED: Final = "organization.updated"
MEMBER_ADDED: Final = "member.added"
MEMBER_UPDATED: Final = "member.updated"
MEMBER_REMOVED: Final = "member.removed"
MEMBER_INVITED: Final = "member.invited"
MEMBER_UNINVITED: Final = "member.uninvited"
# Not for the public stream: a browser was logged out, by its person or by a change that ends sessions; or it acts for another
# organisation from now on. `key_id` of the event is the session's.
SESSION_ENDED: Final = "session.ended"
SESSION_SWITCHED: Final = "session.switched"
# What people allow clients of the authorization server; `key_id` of a grant's events is the grant's, as that of its tokens' calls is.
GRANT_CREATED: Final = "grant.created"
GRANT_REVOKED: Final = "grant.revoked"
APP_CREATED: Final = "app.created"
APP_UPDATED: Final = "app.updated"
APP_DELETED: Final = "app.deleted"
NOTIFICATION_CREATED: Final = "notification.created"
# Not for the public stream: a count of unread ones that somebody shows has changed.
NOTIFICATION_READ: Final = "notification.read"
NOTIFICATION_DELETED: Final = "notification.deleted"
# Not for the public stream: they tell who delivers that a webhook has changed.
WEBHOOK_CREATED: Final = "webhook.created"
WEBHOOK_UPDATED: Final = "webhook.updated"
WEBHOOK_DELETED: Final = "webhook.deleted"
# The hub gave a webhook up.
WEBHOOK_DISABLED: Final = "webhook.disabled"
DOCUMENT_CREATED: Final = "document.created"
DOCUMENT_UPDATED: Final = "document.updated"
DOCUMENT_DELETED: Final = "document.deleted"
# Not for the public stream: a star was given or taken back, a server was submitted, shown to everybody or taken out.
REGISTRY_UPDATED: Final = "registry.updated"

# Not for the public stream: a request that left no row of a tool call. `GET /api/logs` is made of these and of the tool calls.
REQUEST_COMPLETED: Final = "request.completed"

# The rows of tool calls.
TOOL_CALLS: Final = (TOOL_EXECUTED, TOOL_FAILED)
# One row a request, whatever it was: written by the batching writer, pruned by age.
REQUESTS: Final = (*TOOL_CALLS, REQUEST_COMPLETED)
# What takes something away from somebody: answered only when every live process knows it.
# (A project takes its profiles along, and each of them says so itself.)
RESTRICTING: Final = frozenset(
    {
        KEY_UPDATED,
        KEY_REVOKED,
        KEY_SUSPENDED,
        KEY_ROTATED,
        SERVER_UPDATED,
        SERVER_DELETED,
        PROFILE_UPDATED,
        PROFILE_DELETED,
        ORGANIZATION_UPDATED,
        MEMBER_UPDATED,
        MEMBER_REMOVED,
        SESSION_ENDED,
        SESSION_SWITCHED,
        GRANT_REVOKED,
    }
)


class ServerChanged(TypedDict):
    """`server.created`, `.updated`, `.deleted`."""

    server_uuid: str
    name: str
    slug: str
    type: Literal["STDIO", "SSE", "STREAMABLE_HTTP"]
    changed: NotRequired[list[str]]


class ServerInstalled(ServerChanged):
    """`server.installed`, `.uninstalled`: beside `server.created` and `.deleted`, for a server that comes from the registry."""

    registry_name: str
    version: str


class ServerStatus(TypedDict):
    """`server.connected` (it can be used), `.disconnected` (it has gone by itself), `.error` (a start or a look has failed).

    `previous`: what the one of these before it said, unless the server was changed since.
    """

    server_uuid: str
    slug: str
    error: NotRequired[str]
    previous: NotRequired[Literal["connected", "disconnected", "error"]]


class EarlierSecrets(TypedDict):
    """Secrets of a key from before the generation `before` end at `until` (epoch seconds) or sooner."""

    before: int
    until: At


class KeyChanged(TypedDict):
    """`key.created`, `.updated`, `.rotated`, `.revoked`, `.suspended`. `expires_at` (epoch seconds) is there when it was changed; `reason`
    is `leaked` when the secret was found in public, and `url` where.
    """

    key_id: str
    name: str
    prefix: str
    kind: Literal["public", "secret"]
    environment: Literal["live", "test"]
    changed: NotRequired[list[str]]
    expires_at: NotRequired[At | None]
    earlier_secrets: NotRequired[EarlierSecrets]
    reason: NotRequired[Literal["leaked"]]
    url: NotRequired[str]


class KeyFlagged(KeyChanged):
    """`key.flagged`: somebody should look at the key, with the numbers that say why: `days` of the first two flags, `numbers` of the
    others (docs/usage.md)."""

    flag: Literal["rotation_due", "expires_soon", "unusual_volume", "unusual_error_rate", "unknown_client_ip", "dormant_key_used"]
    days: NotRequired[int]
    since_at: NotRequired[At]
    numbers: NotRequired[dict[str, float | int | str | None]]


class ProjectChanged(TypedDict):
    """`project.created`, `.updated`, `.deleted`."""

    project_uuid: str
    name: str
    changed: NotRequired[list[str]]


class ProfileChanged(TypedDict):
    """`profile.created`, `.updated`, `.deleted`. With `server_uuid` the change is about that server in the profile."""

    profile_uuid: str
    project_uuid: str
    name: str
    slug: str
    changed: NotRequired[list[str]]
    server_uuid: NotRequired[str]


class CollectionChanged(TypedDict):
    """`collection.created`, `.updated`, `.deleted`; `.shared` (there is a new link), `.unshared`; `.published` (everybody may see it)."""

    collection_uuid: str
    name: str
    is_public: bool
    changed: NotRequired[list[str]]


class LimitReached(TypedDict):
    """`usage.limit_reached`: so many percent (`threshold`, 80 or 100) of `limit` calls an hour are used. Once an hour each."""

    organization_id: str
    environment: Literal["live", "test"]
    policy: Literal["hourly"]
    threshold: int
    limit: int
    tier: str


class AlertChanged(TypedDict):
    """`alert.created`, `.updated`, `.deleted`; `alert.fired`, `.resolved`: `value` of the last `window` seconds is on the other side of
    `threshold`. `reason`: the alert was changed or removed while it was firing.
    """

    alert_id: str
    name: str
    metric: Literal["calls", "error_rate", "latency_p95_ms", "limit_share", "servers_down"]
    threshold: float
    window: int
    value: float | None
    channel: Literal["webhook", "notification", "email"]
    server_uuid: NotRequired[str]
    key_id: NotRequired[str]
    reason: NotRequired[Literal["changed", "deleted"]]


class OrganizationChanged(TypedDict):
    """`organization.updated`."""

    organization_id: str


class MemberChanged(TypedDict):
    """`member.added`, `.updated`, `.removed`."""

    user_id: str
    email: str
    role: str


class MemberInvited(TypedDict):
    """`member.invited`, `member.uninvited`."""

    invitation_id: str
    email: str
    role: str


class SessionChanged(TypedDict):
    """`session.ended`, `session.switched`."""

    session_id: str
    user_id: str


class GrantChanged(TypedDict):
    """`grant.created`, `.revoked`."""

    client_id: str
    client_name: str
    user_id: str


class AppChanged(TypedDict):
    """`app.created`, `.updated`, `.deleted`."""

    client_id: str
    name: str
    changed: NotRequired[list[str]]


class RegistryChanged(TypedDict):
    """`registry.updated`."""

    name: str
    version: str
    change: str


class DocumentChanged(TypedDict):
    """`document.created`, `.updated`, `.deleted`. `version` is the one that counts."""

    document_id: str
    title: str
    file_name: str
    version: int
    changed: NotRequired[list[str]]


class NotificationCreated(TypedDict):
    """`notification.created`. `event` is what it tells of, or `custom`. One for one person alone names them, and not what it says."""

    notification_id: str
    event: str
    severity: Literal["INFO", "SUCCESS", "WARNING", "ALERT"]
    title: NotRequired[str]
    message: NotRequired[str]
    server_uuid: NotRequired[str]
    user_id: NotRequired[str]


class NotificationMarked(TypedDict):
    """`notification.read`, `.deleted`: one, or so many at once."""

    notification_id: NotRequired[str]
    count: NotRequired[int]


class WebhookChanged(TypedDict):
    """`webhook.created`, `.updated`, `.deleted`, `.disabled`. `reason` of the last: the receiver answered 410 (`gone`), or every attempt
    of five days failed (`failing`, since `failing_since`, epoch seconds).
    """

    webhook_id: str
    url: str
    changed: NotRequired[list[str]]
    reason: NotRequired[Literal["gone", "failing"]]
    failing_since: NotRequired[At]


class ToolCalled(TypedDict):
    """`tool.executed` (a result came back) and `tool.failed` (none came), put together from the row's own columns.

    `outcome`: ok, or the code of what went wrong, then `error` in words where there are any. `result` and `arguments` are there with
    capture on alone.
    """

    tool: str | None
    request_id: str | None
    outcome: str
    is_error: bool
    duration_ms: float
    key_id: str | None
    error: NotRequired[str]
    arguments: NotRequired[Any]
    result: NotRequired[Any]


class RequestDone(TypedDict):
    """`request.completed`: what the row's own columns do not hold. `path` is the route's, never the caller's; `rpc` an MCP method."""

    method: str
    path: str
    status: int
    scope: str
    rpc: NotRequired[str]
    policy: NotRequired[str]
