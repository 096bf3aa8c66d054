"""What a key's holder is told in time: that it expires, and that its secret is old."""

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, update

from plughub.db.tables import api_key
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import KEY_FLAGGED
from plughub.keys.schemas import Key

DAY_S = 86_400.0
# Expiry is announced so many days before, the last first.
EXPIRY_DAYS = (1, 7, 30)
ROTATION_DAYS = 90


def days_told(expires_at: float | None, now: float) -> int | None:
    """The announcement that an expiry set just now no longer needs: whoever sets a short one knows how short it is."""
    if expires_at is None:
        return None
    return next((days for days in EXPIRY_DAYS if expires_at - now <= days * DAY_S), None)


def rotation_due(key: Key, now: float) -> bool:
    """Whether the secret of a key in use is 90 days old."""
    return key.status == "active" and now - (key.rotated_at or key.created_at) >= ROTATION_DAYS * DAY_S


async def announce(uow: UnitOfWork, limit: int) -> int:
    """Announce what is due, at most `limit` of each kind, each once; how many that were."""
    return await _announce_old(uow, limit) + await _announce_expiring(uow, limit)


async def _announce_old(uow: UnitOfWork, limit: int) -> int:
    now, told = uow.clock.time(), 0
    due = and_(
        func.coalesce(api_key.c.rotated_at, api_key.c.created_at) <= now - ROTATION_DAYS * DAY_S,
        or_(api_key.c.rotation_told.is_(None), api_key.c.rotation_told < api_key.c.generation),
    )
    for row in (await uow.execute(select(api_key).where(_alive(now), due).limit(limit))).all():
        # Judged again: another process may be at it.
        done = await uow.execute(update(api_key).where(api_key.c.id == row.id, due).values(rotation_told=row.generation))
        if done.rowcount:
            since_at = row.rotated_at or row.created_at
            _flag(uow, row, {"flag": "rotation_due", "days": int((now - since_at) // DAY_S), "since_at": since_at})
            told += 1
    return told


async def _announce_expiring(uow: UnitOfWork, limit: int) -> int:
    now, told = uow.clock.time(), 0
    due = or_(*(_due_before(days, now) for days in EXPIRY_DAYS))
    for row in (await uow.execute(select(api_key).where(_alive(now), due).limit(limit))).all():
        days = next(days for days in EXPIRY_DAYS if row.expires_at - now <= days * DAY_S)
        done = await uow.execute(update(api_key).where(api_key.c.id == row.id, _due_before(days, now)).values(expiry_told=days))
        if done.rowcount:
            _flag(uow, row, {"flag": "expires_soon", "days": days, "expires_at": row.expires_at})
            told += 1
    return told


def _alive(now: float) -> ColumnElement[bool]:
    return and_(api_key.c.status == "active", or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > now))


def _due_before(days: int, now: float) -> ColumnElement[bool]:
    """Expires within so many days, which was not told yet."""
    return and_(api_key.c.expires_at <= now + days * DAY_S, or_(api_key.c.expiry_told.is_(None), api_key.c.expiry_told > days))


def _flag(uow: UnitOfWork, row: Row[Any], why: dict[str, Any]) -> None:
    data = {"key_id": row.id, "name": row.name, "prefix": row.prefix, "kind": row.kind, "environment": row.environment, **why}
    uow.emit(KEY_FLAGGED, space_id=row.space_id, key_id=row.id, data=data)
