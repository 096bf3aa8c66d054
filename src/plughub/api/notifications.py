"""Notifications over REST (CONTRACT section 6; the documents' shapes)."""

from typing import Annotated, Any, Literal

from fastapi import Query, Response

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.notification_shapes import (
    MailPreferenceOut,
    NotificationGone,
    NotificationList,
    NotificationOut,
    NotificationRead,
    NotificationSent,
    NotificationsRead,
)
from plughub.api.reply import Offset, PageLimit, reply
from plughub.door.routes import SIGNED_IN, Route
from plughub.kit.clock import rfc3339
from plughub.kit.errors import NotificationNotFound
from plughub.kit.ids import parse_public_id, public_id
from plughub.notifications import service
from plughub.notifications.schemas import MailPreference, NotificationCreate
from plughub.notifications.store import Notification, wants_mail

_Unread = Annotated[bool | None, Query(description="true: those that nobody has read; false: the others")]
_Type = Annotated[str | None, Query(max_length=100, pattern=r"^[a-z_.]+$", description="`server_error` or `server.error`, or `custom`")]
_Severity = Annotated[Literal["INFO", "SUCCESS", "WARNING", "ALERT"] | None, Query()]


async def list_notifications(
    caller: CallerDep,
    connection: ReadDep,
    unread: _Unread = None,
    type: _Type = None,
    severity: _Severity = None,
    limit: PageLimit = 20,
    offset: Offset = 0,
) -> Response:
    """What somebody should know, newest first: for everybody of the environment, or for the caller's person alone.

    A key with a server list sees what is about those servers, about itself, or from itself.
    """
    event = None if type is None else _event(type)
    page, unread_count = await service.list_notifications(
        connection, caller, unread=unread, event=event, severity=severity, limit=limit, offset=offset
    )
    counts = {"total": page.total, "unread_count": unread_count, "limit": limit, "offset": offset}
    return reply({"notifications": [shown(found) for found in page.items], **counts})


async def get_notification(caller: CallerDep, connection: ReadDep, notification_id: str) -> Response:
    """One."""
    return reply(shown(await service.get_notification(connection, caller, _id(notification_id))))


async def send_notification(caller: CallerDep, uow: UowDep, hub: HubDep, body: NotificationCreate) -> Response:
    """Tell everybody of the environment something, or one person (`user_id`). With `send_email` the owners and administrators, or that
    person, are written to as well, where there is a mail server and they have not said no; ten mails an hour at most.
    """
    made = await service.create(uow, caller, body, hub.letters)
    return reply({**shown(made), "email_sent": made.mailed}, 201)


async def read_notification(caller: CallerDep, uow: UowDep, notification_id: str) -> Response:
    """Mark it read, for all who share it. Once more changes nothing."""
    return reply({"success": True, "notification": shown(await service.mark_read(uow, caller, _id(notification_id)))})


async def read_all(caller: CallerDep, uow: UowDep) -> Response:
    """Mark all that the caller sees as read."""
    return reply({"success": True, "updated": await service.mark_all_read(uow, caller)})


async def delete_notification(caller: CallerDep, uow: UowDep, notification_id: str) -> Response:
    """Remove it, for all who share it."""
    await service.delete(uow, caller, _id(notification_id))
    return reply({"success": True, "message": "Notification deleted"})


async def get_preferences(caller: CallerDep, connection: ReadDep) -> Response:
    """Whether severe notifications come by mail."""
    return reply({"email": await wants_mail(connection, caller.user_id or "")})


async def set_preferences(caller: CallerDep, uow: UowDep, body: MailPreference) -> Response:
    """Have them come by mail, or not. Of the person, in every organisation."""
    await service.set_mail(uow, caller.user_id or "", caller.organization_id, mail=body.email)
    return reply({"email": body.email})


def shown(found: Notification) -> dict[str, Any]:
    """As `/api` shows it."""
    return {
        "id": public_id("notif", found.id),
        "type": found.event.replace(".", "_"),
        "title": found.title,
        "message": found.message,
        "severity": found.severity,
        "read": found.read_at is not None,
        "read_at": rfc3339(found.read_at) if found.read_at is not None else None,
        "created_at": rfc3339(found.created_at),
        "last_at": rfc3339(found.last_at),
        "times": found.times,
        "link": found.link,
        "server_uuid": found.server_id,
        "user_id": public_id("user", found.person_id) if found.person_id is not None else None,
        "metadata": found.metadata,
    }


def _event(kind: str) -> str:
    """An event's name from its type: the first `_` stands for the dot."""
    return kind if "." in kind else kind.replace("_", ".", 1)


def _id(text: str) -> str:
    found = parse_public_id("notif", text)
    if found is None:
        raise NotificationNotFound
    return found


_PATH, _ONE = "/api/notifications", "/api/notifications/{notification_id}"
_TAG = "Notifications"
_WRITE = "write:notifications"
ROUTES = [
    Route("GET", _PATH, "read:notifications", list_notifications, "List notifications", _TAG, output=NotificationList),
    Route("POST", _PATH, _WRITE, send_notification, "Send a notification", _TAG, status=201, output=NotificationSent),
    Route("POST", _PATH + "/read-all", _WRITE, read_all, "Mark all as read", _TAG, output=NotificationsRead),
    Route("GET", _PATH + "/preferences", SIGNED_IN, get_preferences, "Mails of notifications", "Accounts", output=MailPreferenceOut),
    Route(
        "PATCH", _PATH + "/preferences", SIGNED_IN, set_preferences, "Change mails of notifications", "Accounts", output=MailPreferenceOut
    ),
    Route("GET", _ONE, "read:notifications", get_notification, "Get a notification", _TAG, output=NotificationOut),
    Route("PATCH", _ONE + "/read", _WRITE, read_notification, "Mark as read", _TAG, output=NotificationRead),
    Route("POST", _ONE + "/read", _WRITE, read_notification, "Mark as read", _TAG, output=NotificationRead),
    Route("DELETE", _ONE, _WRITE, delete_notification, "Remove a notification", _TAG, output=NotificationGone),
]
