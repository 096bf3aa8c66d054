"""SQL of notifications. Whoever asks sees those of their space that are for everybody or for them, within their server grant."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import membership, person, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.watch_tables import notification, notification_preference
from plughub.kit.caller import Caller

# Of one space; the oldest make room at once.
KEPT = 1000


@dataclass(frozen=True, slots=True)
class Notification:
    """One of them. Times are epoch seconds; `last_at` is the last of the `times` it was told, `read_at` None while nobody has read it."""

    id: str
    space_id: str
    event: str
    subject: str | None
    server_id: str | None
    key_id: str | None
    person_id: str | None
    title: str
    message: str
    severity: str
    link: str | None
    metadata: Mapping[str, Any]
    times: int
    mailed: bool
    created_at: float
    last_at: float
    read_at: float | None


def visible(caller: Caller) -> ColumnElement[bool]:
    """What the caller may see: a key with a server list sees what is about those servers, about itself, or from itself."""
    table = notification.c
    mine = table.person_id.is_(None) if caller.user_id is None else or_(table.person_id.is_(None), table.person_id == caller.user_id)
    condition = and_(table.space_id == caller.space_id, mine)
    if caller.servers is not None:
        condition = and_(condition, or_(table.server_id.in_(caller.servers), table.key_id == caller.key_id))
    return condition


async def list_notifications(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[bool]], limit: int, offset: int
) -> tuple[list[Notification], int]:
    """Newest first, and how many there are."""
    total = (await connection.execute(select(func.count()).select_from(notification).where(*conditions))).scalar_one()
    query = select(notification).where(*conditions).order_by(notification.c.last_at.desc(), notification.c.id.desc())
    rows = (await connection.execute(query.limit(limit).offset(offset))).mappings()
    return [_notification(row) for row in rows], total


async def count_unread(connection: AsyncConnection, caller: Caller) -> int:
    """How many of those that the caller sees nobody has read."""
    query = select(func.count()).select_from(notification).where(visible(caller), notification.c.read_at.is_(None))
    return (await connection.execute(query)).scalar_one()


async def find_notification(connection: AsyncConnection, caller: Caller, id_: str, *, lock: bool = False) -> Notification | None:
    """One that the caller may see."""
    query = select(notification).where(notification.c.id == id_, visible(caller))
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return None if row is None else _notification(row)


async def find_unread_since(uow: UnitOfWork, space_id: str, event: str, subject: str, since: float) -> Notification | None:
    """The newest about the same that nobody has read and that was told of since then."""
    query = select(notification).where(
        notification.c.space_id == space_id,
        notification.c.last_at > since,
        notification.c.event == event,
        notification.c.subject == subject,
        notification.c.read_at.is_(None),
    )
    row = (await uow.execute(query.order_by(notification.c.last_at.desc()).limit(1))).mappings().first()
    return None if row is None else _notification(row)


async def count_mailed(uow: UnitOfWork, space_id: str, since: float) -> int:
    """How many were sent by mail since then."""
    query = select(func.count()).select_from(notification)
    conditions = (notification.c.space_id == space_id, notification.c.last_at > since, notification.c.mailed)
    found: int = (await uow.execute(query.where(*conditions))).scalar_one()
    return found


async def insert_notification(uow: UnitOfWork, made: Notification) -> None:
    """One more; the oldest of the space make room."""
    values = {name: getattr(made, name) for name in Notification.__slots__}
    await uow.execute(insert(notification).values(**{**values, "metadata": json.dumps(made.metadata, ensure_ascii=False)}))
    newest = select(notification.c.id).where(notification.c.space_id == made.space_id)
    old = newest.order_by(notification.c.last_at.desc(), notification.c.id.desc()).offset(KEPT).limit(100)
    await uow.execute(delete(notification).where(notification.c.id.in_(old.scalar_subquery())))


async def update_notification(uow: UnitOfWork, id_: str, values: Mapping[str, Any]) -> None:
    """Change columns of one."""
    await uow.execute(update(notification).where(notification.c.id == id_).values(**values))


async def mark_all_read(uow: UnitOfWork, caller: Caller) -> int:
    """Whatever the caller sees is read; how many were not."""
    unread = (visible(caller), notification.c.read_at.is_(None))
    return (await uow.execute(update(notification).where(*unread).values(read_at=uow.clock.time()))).rowcount


async def delete_notification(uow: UnitOfWork, id_: str) -> None:
    """Remove one."""
    await uow.execute(delete(notification).where(notification.c.id == id_))


async def prune_notifications(uow: UnitOfWork, before_at: float) -> int:
    """Remove what was last told before then; the number removed."""
    return (await uow.execute(delete(notification).where(notification.c.last_at < before_at))).rowcount


async def list_addresses(uow: UnitOfWork, space_id: str, person_id: str | None) -> list[str]:
    """The confirmed addresses of the owners and administrators of the space's organisation, or of the one person in it, of those who have
    not said that they want no mail."""
    who = membership.c.person_id == person_id if person_id is not None else membership.c.role.in_(("owner", "admin"))
    query = (
        select(person.c.email)
        .join(membership, membership.c.person_id == person.c.id)
        .join(space, space.c.organization_id == membership.c.organization_id)
        .outerjoin(notification_preference, notification_preference.c.person_id == person.c.id)
        .where(space.c.id == space_id, who, person.c.verified_at.is_not(None), func.coalesce(notification_preference.c.mail, True))
        .order_by(person.c.email)
    )
    return list((await uow.execute(query)).scalars())


async def wants_mail(connection: AsyncConnection, person_id: str) -> bool:
    """Whether the person is written to; whoever has not said otherwise is."""
    found = (await connection.execute(select(notification_preference.c.mail).where(_of(person_id)))).scalar()
    return found is None or bool(found)


async def set_mail(uow: UnitOfWork, person_id: str, *, mail: bool) -> None:
    """Whether the person is to be written to."""
    changed = await uow.execute(update(notification_preference).where(_of(person_id)).values(mail=mail))
    if not changed.rowcount:
        await uow.execute(insert(notification_preference).values(person_id=person_id, mail=mail))


def _of(person_id: str) -> ColumnElement[bool]:
    return notification_preference.c.person_id == person_id


def _notification(row: RowMapping) -> Notification:
    return Notification(**{**row, "metadata": json.loads(row["metadata"])})
