"""Rules of notifications: what becomes one, who reads it, who gets a mail."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.watch_tables import notification
from plughub.events.catalogue import NOTIFICATION_CREATED, NOTIFICATION_DELETED, NOTIFICATION_READ, NotificationCreated, NotificationMarked
from plughub.identity.letters import post
from plughub.identity.people import find_role
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import Invalid, NotificationNotFound
from plughub.kit.ids import new_id, parse_public_id
from plughub.kit.pagination import Page
from plughub.notifications import store
from plughub.notifications.schemas import NotificationCreate
from plughub.notifications.store import Notification
from plughub.notifications.tellings import SEVERE, Telling, details_of

CUSTOM = "custom"
# The same again within the hour is counted on the first one, as long as nobody has read it.
REPEAT_S = 3600.0
# A space has so many mails sent in an hour: whatever goes wrong, nobody's mailbox is filled.
MAILS_AN_HOUR = 10
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Letters:
    """How mails are asked for; `enabled` when there is a mail server."""

    sealer: Sealer
    enabled: bool


async def tell(uow: UnitOfWork, event: Event, telling: Telling, letters: Letters) -> None:
    """The notification of an event: a new one, or one more of the same."""
    now = event.at  # which may be told late, after a stop
    if telling.subject is not None:
        before = await store.find_unread_since(uow, event.space_id, event.name, telling.subject, now - REPEAT_S)
        if before is not None:
            values = {"times": before.times + 1, "last_at": now, "title": telling.title, "message": telling.message}
            await store.update_notification(uow, before.id, values)
            return
    made = Notification(
        id=new_id(),
        space_id=event.space_id,
        event=event.name,
        subject=telling.subject,
        server_id=event.server_id,
        key_id=event.key_id,
        person_id=None,
        title=telling.title,
        message=telling.message,
        severity=telling.severity,
        link=telling.link,
        metadata=details_of(event),
        times=1,
        mailed=False,
        created_at=now,
        last_at=now,
        read_at=None,
    )
    await _keep(uow, made, letters, mail=telling.severity == SEVERE)


async def create(uow: UnitOfWork, caller: Caller, body: NotificationCreate, letters: Letters) -> Notification:
    """What somebody has to say, to everybody of the space or to one person. Raises Invalid for a person who is not in the organisation."""
    now = uow.clock.time()
    made = Notification(
        id=new_id(),
        space_id=caller.space_id,
        event=CUSTOM,
        subject=None,
        server_id=None,
        key_id=caller.key_id,
        person_id=await _member(uow.connection, caller, body.user_id),
        title=body.title or "Notification",
        message=body.message,
        severity=body.severity,
        link=body.link,
        metadata=body.metadata,
        times=1,
        mailed=False,
        created_at=now,
        last_at=now,
        read_at=None,
    )
    made = await _keep(uow, made, letters, mail=body.send_email)
    uow.audit(Deed(NOTIFICATION_CREATED, "notification", made.id, made.title, made.space_id, after=_audited(made)))
    return made


async def list_notifications(
    connection: AsyncConnection, caller: Caller, *, unread: bool | None, event: str | None, severity: str | None, limit: int, offset: int
) -> tuple[Page[Notification], int]:
    """A page of what the caller sees, newest first; and how many are unread, whatever was asked for."""
    conditions: list[ColumnElement[bool]] = [store.visible(caller)]
    if unread is not None:
        conditions.append(notification.c.read_at.is_(None) if unread else notification.c.read_at.is_not(None))
    if event is not None:
        conditions.append(notification.c.event == event)
    if severity is not None:
        conditions.append(notification.c.severity == severity)
    items, total = await store.list_notifications(connection, conditions, limit, offset)
    return Page(items, total, limit, offset), await store.count_unread(connection, caller)


async def get_notification(connection: AsyncConnection, caller: Caller, id_: str) -> Notification:
    """Raises NotificationNotFound."""
    found = await store.find_notification(connection, caller, id_)
    if found is None:
        raise NotificationNotFound
    return found


async def mark_read(uow: UnitOfWork, caller: Caller, id_: str) -> Notification:
    """Read once for all who share it. Raises NotificationNotFound."""
    found = await _locked(uow, caller, id_)
    if found.read_at is not None:
        return found
    read = replace(found, read_at=uow.clock.time())
    await store.update_notification(uow, id_, {"read_at": read.read_at})
    _emit(uow, NOTIFICATION_READ, read, {"notification_id": id_})
    uow.audit(Deed(NOTIFICATION_READ, "notification", id_, read.title, read.space_id, before=_audited(found), after=_audited(read)))
    return read


async def mark_all_read(uow: UnitOfWork, caller: Caller) -> int:
    """Whatever the caller sees; how many were unread."""
    count = await store.mark_all_read(uow, caller)
    if count:
        data: NotificationMarked = {"count": count}
        uow.emit(NOTIFICATION_READ, space_id=caller.space_id, data=data)
        uow.audit(Deed(NOTIFICATION_READ, "notification", None, "all", caller.space_id, after={"read": count}))
    return count


async def delete(uow: UnitOfWork, caller: Caller, id_: str) -> None:
    """For all who share it. Raises NotificationNotFound."""
    found = await _locked(uow, caller, id_)
    await store.delete_notification(uow, id_)
    _emit(uow, NOTIFICATION_DELETED, found, {"notification_id": id_})
    uow.audit(Deed(NOTIFICATION_DELETED, "notification", id_, found.title, found.space_id, before=_audited(found)))


async def set_mail(uow: UnitOfWork, person_id: str, organization_id: str, *, mail: bool) -> None:
    """Whether somebody is written to when something severe happens."""
    before = await store.wants_mail(uow.connection, person_id)
    await store.set_mail(uow, person_id, mail=mail)
    changed = Deed(
        "user.updated", "user", person_id, person_id, organization_id=organization_id, before={"mail": before}, after={"mail": mail}
    )
    uow.audit(changed)


async def _keep(uow: UnitOfWork, made: Notification, letters: Letters, *, mail: bool) -> Notification:
    """Write it down, tell of it, and ask for the mails."""
    if mail and letters.enabled and await store.count_mailed(uow, made.space_id, made.last_at - _HOUR_S) < MAILS_AN_HOUR:
        to = await store.list_addresses(uow, made.space_id, made.person_id)
        for address in to:
            await post(uow, letters.sealer, "notification", address, {"title": made.title, "message": made.message})
        made = replace(made, mailed=bool(to))
    await store.insert_notification(uow, made)
    data: NotificationCreated = {"notification_id": made.id, "event": made.event, "severity": made.severity}  # type: ignore[typeddict-item]
    if made.person_id is None:
        data |= {"title": made.title, "message": made.message}
    else:  # its words are for that person, the event is for everybody who hears events
        data["user_id"] = made.person_id
    if made.server_id is not None:
        data["server_uuid"] = made.server_id
    _emit(uow, NOTIFICATION_CREATED, made, data)
    return made


async def _locked(uow: UnitOfWork, caller: Caller, id_: str) -> Notification:
    found = await store.find_notification(uow.connection, caller, id_, lock=True)
    if found is None:
        raise NotificationNotFound
    return found


async def _member(connection: AsyncConnection, caller: Caller, user_id: str | None) -> str | None:
    if user_id is None:
        return None
    person_id = parse_public_id("user", user_id)
    if person_id is None or await find_role(connection, caller.organization_id, person_id) is None:
        raise Invalid("user_id", "The 'user_id' field is not a member of the organization", user_id)
    return person_id


def _emit(uow: UnitOfWork, name: str, about: Notification, data: Mapping[str, Any]) -> None:
    uow.emit(name, space_id=about.space_id, server_id=about.server_id, key_id=about.key_id, data=data)


def _audited(about: Notification) -> dict[str, Any]:
    return {"title": about.title, "message": about.message, "severity": about.severity, "read": about.read_at is not None}
