"""Which events are public, and what is promised of each: rendered to `contract/events.json`. Source: CONTRACT section 7.

An event that is not in this table stays inside the hub, whatever it is called.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from plughub.events import catalogue as c
from plughub.kit.caller import Caller


@dataclass(frozen=True, slots=True)
class EventType:
    """One public event. `data` is the TypedDict of its data. `scope`: what a caller needs to hear of it, besides `read:events`.

    `version` goes up when a member is taken away or means something else; new members may come at any time.
    """

    name: str
    data: Any
    description: str
    example: Mapping[str, Any]
    scope: str | None = None
    version: int = 1


_SERVER: Final = "0198c0de-0000-7000-8000-000000000001"
_KEY: Final = "0198c0de-0000-7000-8000-000000000002"
_PERSON: Final = "0198c0de-0000-7000-8000-000000000003"
_A_SERVER = {"server_uuid": _SERVER, "name": "Weather", "slug": "weather", "type": "STREAMABLE_HTTP"}
_FROM_REGISTRY = _A_SERVER | {"registry_name": "io.github.modelcontextprotocol/server-time", "version": "1.0.0"}
_A_STATUS = {"server_uuid": _SERVER, "slug": "weather"}
_A_KEY = {"key_id": _KEY, "name": "CI", "prefix": "pk_live_ph_4fQ2", "kind": "public", "environment": "live"}
_A_CALL = {"tool": "get_weather", "request_id": "req_87cf5c1d01234ab000001", "outcome": "ok", "is_error": False, "duration_ms": 12.5}
_A_CALL |= {"key_id": _KEY}
_A_PROJECT = {"project_uuid": "0198c0de-0000-7000-8000-000000000004", "name": "Research"}
_A_PROFILE = {"profile_uuid": "0198c0de-0000-7000-8000-000000000005", **_A_PROJECT, "slug": "research"}
_A_LIMIT = {"organization_id": "0198c0de-0000-7000-8000-000000000006", "environment": "live", "policy": "hourly", "threshold": 80}
_A_LIMIT |= {"limit": 1000, "tier": "pro"}
_A_MEMBER = {"user_id": _PERSON, "email": "ada@example.com", "role": "member"}
_AN_INVITATION = {"invitation_id": "0198c0de-0000-7000-8000-000000000007", "email": "ada@example.com", "role": "member"}
_A_GRANT = {"client_id": "https://client.example/oauth.json", "client_name": "Client", "user_id": _PERSON}
_AN_APP = {"client_id": "app_5Kd0", "name": "Dashboard"}
_AN_ALERT = {"alert_id": "0198c0de-0000-7000-8000-000000000008", "name": "Many errors", "metric": "error_rate", "threshold": 0.2}
_AN_ALERT |= {"window": 600, "value": 0.5, "channel": "notification"}
_A_NOTIFICATION = {"notification_id": "0198c0de-0000-7000-8000-000000000009", "event": "server.error", "severity": "WARNING"}
_A_NOTIFICATION |= {"title": "Server 'weather' has failed", "message": "Connection refused"}
_A_WEBHOOK = {"webhook_id": "0198c0de-0000-7000-8000-00000000000a", "url": "https://example.com/webhook"}
_A_DOCUMENT = {"document_id": "0198c0de-0000-7000-8000-00000000000b", "title": "Refunds", "file_name": "refunds.md", "version": 1}
_A_COLLECTION = {"collection_uuid": "0198c0de-0000-7000-8000-00000000000c", "name": "Starters", "is_public": False}
_KEYS, _ADMIN, _USAGE, _COLLECTIONS = "read:keys", "admin", "read:usage", "read:collections"

_TYPES: Iterable[EventType] = (
    EventType(c.SERVER_CREATED, c.ServerChanged, "A server was registered", _A_SERVER),
    EventType(c.SERVER_UPDATED, c.ServerChanged, "A server was changed; `changed` names the fields", _A_SERVER | {"changed": ["name"]}),
    EventType(c.SERVER_DELETED, c.ServerChanged, "A server was removed", _A_SERVER),
    EventType(c.SERVER_CONNECTED, c.ServerStatus, "The hub reaches the server", _A_STATUS),
    EventType(c.SERVER_DISCONNECTED, c.ServerStatus, "The connection has ended", _A_STATUS),
    EventType(
        c.SERVER_ERROR, c.ServerStatus, "The server cannot be reached; `error` says why", _A_STATUS | {"error": "Connection refused"}
    ),
    EventType(c.SERVER_INSTALLED, c.ServerInstalled, "A server came from the registry", _FROM_REGISTRY),
    EventType(c.SERVER_UNINSTALLED, c.ServerInstalled, "A server that came from the registry was removed", _FROM_REGISTRY),
    EventType(c.TOOL_EXECUTED, c.ToolCalled, "A tool gave a result; `is_error`: the tool's own error", _A_CALL),
    EventType(
        c.TOOL_FAILED,
        c.ToolCalled,
        "A call brought no result",
        _A_CALL | {"outcome": "UPSTREAM_TIMEOUT", "is_error": True, "error": "The server did not answer in time"},
    ),
    EventType(c.KEY_CREATED, c.KeyChanged, "An API key was made", _A_KEY, _KEYS),
    EventType(c.KEY_UPDATED, c.KeyChanged, "A key was changed; `changed` names the fields", _A_KEY | {"changed": ["scopes"]}, _KEYS),
    EventType(c.KEY_REVOKED, c.KeyChanged, "A key was revoked for good", _A_KEY, _KEYS),
    EventType(c.KEY_SUSPENDED, c.KeyChanged, "A key was suspended", _A_KEY, _KEYS),
    EventType(c.KEY_ROTATED, c.KeyChanged, "A key has a new secret", _A_KEY | {"earlier_secrets": {"before": 1, "until": 1.8e9}}, _KEYS),
    EventType(c.KEY_FLAGGED, c.KeyFlagged, "Somebody should look at a key", _A_KEY | {"flag": "expires_soon", "days": 7}, _KEYS),
    EventType(c.PROJECT_CREATED, c.ProjectChanged, "A project was made", _A_PROJECT),
    EventType(c.PROJECT_UPDATED, c.ProjectChanged, "A project was changed", _A_PROJECT | {"changed": ["name"]}),
    EventType(c.PROJECT_DELETED, c.ProjectChanged, "A project was removed", _A_PROJECT),
    EventType(c.PROFILE_CREATED, c.ProfileChanged, "A profile was made", _A_PROFILE),
    EventType(c.PROFILE_UPDATED, c.ProfileChanged, "A profile was changed, or a server in it", _A_PROFILE | {"changed": ["name"]}),
    EventType(c.PROFILE_DELETED, c.ProfileChanged, "A profile was removed", _A_PROFILE),
    EventType(c.USAGE_LIMIT_REACHED, c.LimitReached, "So many percent of the hour's calls are used", _A_LIMIT),
    EventType(c.MEMBER_ADDED, c.MemberChanged, "Somebody has joined the organization", _A_MEMBER, _ADMIN),
    EventType(c.MEMBER_UPDATED, c.MemberChanged, "A member has another role", _A_MEMBER, _ADMIN),
    EventType(c.MEMBER_REMOVED, c.MemberChanged, "A member is one no more", _A_MEMBER, _ADMIN),
    EventType(c.MEMBER_INVITED, c.MemberInvited, "Somebody was invited", _AN_INVITATION, _ADMIN),
    EventType(c.MEMBER_UNINVITED, c.MemberInvited, "An invitation was taken back", _AN_INVITATION, _ADMIN),
    EventType(c.GRANT_CREATED, c.GrantChanged, "A person allowed a client to act for them", _A_GRANT, _ADMIN),
    EventType(c.GRANT_REVOKED, c.GrantChanged, "What a client was allowed has ended", _A_GRANT, _ADMIN),
    EventType(c.APP_CREATED, c.AppChanged, "An OAuth app was registered", _AN_APP, _ADMIN),
    EventType(c.APP_UPDATED, c.AppChanged, "An OAuth app was changed", _AN_APP | {"changed": ["name"]}, _ADMIN),
    EventType(c.APP_DELETED, c.AppChanged, "An OAuth app was removed", _AN_APP, _ADMIN),
    EventType(c.DOCUMENT_CREATED, c.DocumentChanged, "A document was made", _A_DOCUMENT, "read:documents"),
    EventType(c.DOCUMENT_UPDATED, c.DocumentChanged, "A document was changed", _A_DOCUMENT | {"changed": ["tags"]}, "read:documents"),
    EventType(c.DOCUMENT_DELETED, c.DocumentChanged, "A document was removed", _A_DOCUMENT, "read:documents"),
    EventType(c.COLLECTION_CREATED, c.CollectionChanged, "A collection was made", _A_COLLECTION, _COLLECTIONS),
    EventType(c.COLLECTION_UPDATED, c.CollectionChanged, "A collection was changed", _A_COLLECTION | {"changed": ["name"]}, _COLLECTIONS),
    EventType(c.COLLECTION_SHARED, c.CollectionChanged, "There is a new link to a collection", _A_COLLECTION, _COLLECTIONS),
    EventType(c.COLLECTION_UNSHARED, c.CollectionChanged, "The link to a collection is good no more", _A_COLLECTION, _COLLECTIONS),
    EventType(
        c.COLLECTION_PUBLISHED, c.CollectionChanged, "Everybody may see a collection", _A_COLLECTION | {"is_public": True}, _COLLECTIONS
    ),
    EventType(c.COLLECTION_DELETED, c.CollectionChanged, "A collection was removed", _A_COLLECTION, _COLLECTIONS),
    EventType(c.ALERT_FIRED, c.AlertChanged, "What an alert watches has crossed its threshold", _AN_ALERT, _USAGE),
    EventType(c.ALERT_RESOLVED, c.AlertChanged, "It is on the right side again, or watched no more", _AN_ALERT | {"value": 0.1}, _USAGE),
    EventType(c.NOTIFICATION_CREATED, c.NotificationCreated, "There is something to read", _A_NOTIFICATION, "read:notifications"),
    EventType(c.WEBHOOK_DISABLED, c.WebhookChanged, "The hub gave a webhook up", _A_WEBHOOK | {"reason": "gone"}, "read:webhooks"),
)
PUBLISHED: Mapping[str, EventType] = {row.name: row for row in _TYPES}
# For the hub itself: caches, streams, and the log of requests.
INTERNAL = frozenset(
    {
        *(c.ORGANIZATION_UPDATED, c.SESSION_ENDED, c.SESSION_SWITCHED, c.REQUEST_COMPLETED),
        *(c.ALERT_CREATED, c.ALERT_UPDATED, c.ALERT_DELETED, c.NOTIFICATION_READ, c.NOTIFICATION_DELETED),
        *(c.WEBHOOK_CREATED, c.WEBHOOK_UPDATED, c.WEBHOOK_DELETED, c.REGISTRY_UPDATED),
    }
)
# Of the names that the contract promises, those that nothing raises yet: they may be subscribed to all the same.
COMING = frozenset(
    {
        "server.quarantined",
        "tool.changed",
    }
)


def names_for(caller: Caller) -> frozenset[str]:
    """The events that the caller's scopes let them hear of.

    A grant of listed servers leaves those that are about servers: what else happens in the organisation is not theirs.
    """
    allowed = (row for row in PUBLISHED.values() if row.scope is None or row.scope in caller.scopes)
    return frozenset(row.name for row in allowed)
