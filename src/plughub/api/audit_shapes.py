"""The shapes of the audit and of what decides about access."""

from typing import Any, Literal

from plughub.api.models import Shape


class AuditActor(Shape):
    """Who: a key, a person, an access token, somebody without any of them, or the hub itself.

    `name` is what the key or the person is called now.
    """

    type: Literal["key", "user", "token", "anonymous", "hub"]
    key_id: str | None
    user_id: str | None
    name: str | None


class AuditObject(Shape):
    """To what; `name` as it was then."""

    type: str
    id: str | None
    name: str | None


class AuditEntry(Shape):
    """One row. `seq` numbers the organisation's rows in the order of their commits; `outcome` is ok, or the code of the refusal.

    `changes` is `{field: {before?, after?}}`: a side that is missing was not there; `left_out` means that the change was too big.
    """

    seq: int
    timestamp: str
    action: str
    outcome: str
    actor: AuditActor
    object: AuditObject
    environment: Literal["live", "test"] | None
    address: str | None
    request_id: str | None
    changes: dict[str, dict[str, Any]]
    note: dict[str, Any]


class AuditList(Shape):
    """A page, newest first. With a `next_cursor` there may be more, even when the page is not full."""

    audit_logs: list[AuditEntry]
    limit: int
    next_cursor: str | None


class Activity(Shape):
    """One thing done, in the words of the documents: `created_server`."""

    user: str
    action: str
    resource: str
    timestamp: str


class ActivityList(Shape):
    """Newest first."""

    activities: list[Activity]
    limit: int
    next_cursor: str | None


class AccessCheck(Shape):
    """One check. `passed` is null when it could not be asked; `status` and `code` are the call's answer when it does not pass."""

    check: str
    passed: bool | None
    reason: str
    status: int | None
    code: str | None


class AccessKey(Shape):
    """The key that was asked about."""

    id: str
    name: str
    prefix: str
    environment: Literal["live", "test"]


class AccessExplained(Shape):
    """Whether a call would be let through now; `decided_by` is the first check that does not pass, `status` and `code` its answer."""

    allowed: bool
    decided_by: str | None
    status: int
    code: str | None
    key: AccessKey
    server: str
    tool: str | None
    scope: str
    checks: list[AccessCheck]
