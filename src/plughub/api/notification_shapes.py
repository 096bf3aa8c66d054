"""The shapes of notifications."""

from typing import Any, Literal

from plughub.api.models import Shape


class NotificationOut(Shape):
    """One. `type` is the event with `_` for `.`, or `custom`; it was told `times` times, last at `last_at`. `link` is a path of the hub."""

    id: str
    type: str
    title: str
    message: str
    severity: Literal["INFO", "SUCCESS", "WARNING", "ALERT"]
    read: bool
    read_at: str | None
    created_at: str
    last_at: str
    times: int
    link: str | None
    server_uuid: str | None
    user_id: str | None
    metadata: dict[str, Any]


class NotificationSent(NotificationOut):
    """`email_sent`: somebody is written to."""

    email_sent: bool


class NotificationList(Shape):
    """A page, newest first. `unread_count` is of all that the caller sees."""

    notifications: list[NotificationOut]
    total: int
    unread_count: int
    limit: int
    offset: int


class NotificationRead(Shape):
    """As it is now."""

    success: bool
    notification: NotificationOut


class NotificationsRead(Shape):
    """So many were unread."""

    success: bool
    updated: int


class NotificationGone(Shape):
    """It is no more."""

    success: bool
    message: str


class MailPreferenceOut(Shape):
    """Whether the person is written to when something severe happens."""

    email: bool
