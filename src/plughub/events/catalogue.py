"""Every event name there is, and what its `data` holds. Source: CONTRACT section 7.

`data` never holds a secret. Ids are uuids; the doors render them in their dialect.
"""

from typing import Final, Literal, NotRequired, TypedDict

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
USAGE_LIMIT_REACHED: Final = "usage.limit_reached"
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
    """`server.connected`, `.disconnected`, `.error`."""

    server_uuid: str
    slug: str
    error: NotRequired[str]


class EarlierSecrets(TypedDict):
    """Secrets of a key from before the generation `before` end at `until` (epoch seconds) or sooner."""

    before: int
    until: float


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
    expires_at: NotRequired[float | None]
    earlier_secrets: NotRequired[EarlierSecrets]
    reason: NotRequired[Literal["leaked"]]
    url: NotRequired[str]


class KeyFlagged(KeyChanged):
    """`key.flagged`: somebody should look at the key, with the numbers that say why."""

    flag: Literal["rotation_due", "expires_soon"]
    days: int
    since_at: NotRequired[float]


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


class LimitReached(TypedDict):
    """`usage.limit_reached`: so many percent (`threshold`, 80 or 100) of `limit` calls an hour are used. Once an hour each."""

    organization_id: str
    environment: Literal["live", "test"]
    policy: Literal["hourly"]
    threshold: int
    limit: int
    tier: str


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


class ToolCalled(TypedDict):
    """`tool.executed` (a result came back) and `tool.failed` (none came), put together from the row's own columns."""

    server_uuid: str
    tool: str
    request_id: str
    outcome: str
    is_error: bool
    duration_ms: float


class RequestDone(TypedDict):
    """`request.completed`: what the row's own columns do not hold. `path` is the route's, never the caller's; `rpc` an MCP method."""

    method: str
    path: str
    status: int
    scope: str
    rpc: NotRequired[str]
    policy: NotRequired[str]
