"""Reading the audit of an organisation: newest first for people, in order for exports."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import OK
from plughub.db.tables import api_key, audit, person

# There is an index of time and none of anything else: one answer looks at no more rows than this.
EXAMINED = 50_000
# Rows stand in the order of their commits; the clocks of two processes may differ by so much.
_CLOCKS_S = 60.0
PAGE = 500
# The documents say `server.delete` where the events say `server.deleted`.
_ENDINGS = ("", "d", "ed")
# What is named by the address of somebody's account.
_INVITATION, _ACCEPTED = "invitation", "invitation.accepted"
_OF_PEOPLE = frozenset({"user", "member", "session", _INVITATION})


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who (`actor_kind`, `key_id`, `user_id`) did what (`action`, `outcome`) to what (`object_*`), from where (`address`, `request_id`).

    `changes` is `{field: {before?, after?}}`, `note` whatever else was told.
    """

    seq: int
    at: float
    action: str
    outcome: str
    actor_kind: str
    key_id: str | None
    user_id: str | None
    address: str | None
    request_id: str | None
    object_kind: str
    object_id: str | None
    object_name: str | None
    environment: str | None
    changes: Mapping[str, Mapping[str, Any]]
    note: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What to look for; None = anything. `actor`: the id of a key or user, or `hub`; `action`: whole, or `server.*`; `object`: an id or
    a kind; `outcome`: ok, refused, or an error code; times in epoch s. `environment`: that one's rows and those of neither.
    """

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    environment: str | None = None


@dataclass(slots=True)
class AuditPage:
    """`next` is the row that the next page comes after. A page that is not full has one too when enough rows were looked at."""

    rows: Sequence[AuditRow]
    next: int | None


async def list_audit(
    connection: AsyncConnection, organization_id: str, wanted: AuditFilter, after: int | None, limit: int, examined: int = EXAMINED
) -> AuditPage:
    """The rows, newest first, before row `after`; looks at `examined` rows at most."""
    if after is None and wanted.until is not None:
        after = await _first_after(connection, organization_id, wanted.until + _CLOCKS_S)
    of_it = [audit.c.organization_id == organization_id, *([audit.c.seq < after] if after is not None else [])]
    # A subquery with a limit: it is read in the order of the key and no further than needed, whatever the conditions outside.
    looked_at = select(audit).where(*of_it).order_by(audit.c.seq.desc()).limit(examined).subquery()
    query = select(looked_at).where(*_conditions(looked_at.c, wanted)).order_by(looked_at.c.seq.desc()).limit(limit + 1)
    found = [_row(row) for row in (await connection.execute(query)).mappings()]
    rows = await _without_the_forgotten(connection, organization_id, found)
    if len(rows) > limit:
        return AuditPage(rows[:limit], rows[limit - 1].seq)
    last = select(looked_at.c.seq, looked_at.c.at).order_by(looked_at.c.seq).limit(1)
    deepest = (await connection.execute(last)).first()
    if deepest is None or deepest.seq <= 1 or (wanted.since is not None and deepest.at < wanted.since - _CLOCKS_S):
        return AuditPage(rows, None)
    return AuditPage(rows, deepest.seq)


async def list_in_order(
    connection: AsyncConnection, organization_id: str, wanted: AuditFilter, after: int, limit: int = PAGE
) -> tuple[list[AuditRow], int | None]:
    """The matching rows among the next `limit` after row `after`, oldest first, and the last that was looked at (None: no more)."""
    query = select(audit).where(audit.c.organization_id == organization_id, audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    looked_at = query.subquery()
    last = (await connection.execute(select(looked_at.c.seq).order_by(looked_at.c.seq.desc()).limit(1))).scalar()
    found = select(looked_at).where(*_conditions(looked_at.c, wanted)).order_by(looked_at.c.seq)
    rows = [_row(row) for row in (await connection.execute(found)).mappings()]
    return await _without_the_forgotten(connection, organization_id, rows), last


async def names_of_actors(connection: AsyncConnection, organization_id: str, rows: Sequence[AuditRow]) -> dict[str, str]:
    """What the keys and the people of the rows are called now, by id."""
    found: dict[str, str] = {}
    if keys := {row.key_id for row in rows if row.key_id is not None}:
        query = select(api_key.c.id, api_key.c.name).where(api_key.c.organization_id == organization_id, api_key.c.id.in_(keys))
        found |= {row.id: row.name for row in await connection.execute(query)}
    if people := {row.user_id for row in rows if row.user_id is not None}:
        query = select(person.c.id, person.c.name).where(person.c.id.in_(people))
        found |= {row.id: row.name for row in await connection.execute(query)}
    return found


async def _without_the_forgotten(connection: AsyncConnection, organization_id: str, rows: Sequence[AuditRow]) -> list[AuditRow]:
    """The rows, without the addresses and names of people who have removed their accounts. What is signed stays as it was written."""
    emails = {row.object_name for row in rows if row.object_kind in _OF_PEOPLE and row.object_name}
    if not emails:
        return list(rows)
    known = set((await connection.execute(select(person.c.email).where(person.c.email.in_(emails)))).scalars())
    if known == emails:
        return list(rows)
    # An address that was invited is the organisation's to know, unless somebody has come by it and gone again.
    invited = {row.object_id for row in rows if row.object_kind == _INVITATION and row.object_name not in known}
    of_it = (audit.c.organization_id == organization_id, audit.c.object_id.in_(invited), audit.c.action == _ACCEPTED)
    came = set((await connection.execute(select(audit.c.object_id).where(*of_it))).scalars()) if invited else set()
    return [_unnamed(row) if _is_forgotten(row, known, came) else row for row in rows]


def _is_forgotten(row: AuditRow, known: Container[str | None], came: Container[str | None]) -> bool:
    if row.object_kind not in _OF_PEOPLE or row.object_name in known:
        return False
    return row.object_kind != _INVITATION or row.object_id in came


def _unnamed(row: AuditRow) -> AuditRow:
    return replace(row, object_name=None, changes={} if row.object_kind == "user" else row.changes)


async def _first_after(connection: AsyncConnection, organization_id: str, at: float) -> int | None:
    query = select(audit.c.seq).where(audit.c.organization_id == organization_id, audit.c.at >= at)
    found: int | None = (await connection.execute(query.order_by(audit.c.at).limit(1))).scalar()
    return found


def _conditions(columns: Any, wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.actor is not None:
        yield columns.actor_kind == "hub" if wanted.actor == "hub" else or_(columns.key_id == wanted.actor, columns.user_id == wanted.actor)
    if wanted.action is not None:
        yield _of_action(columns, wanted.action)
    if wanted.object is not None:
        yield or_(columns.object_id == wanted.object, columns.object_kind == wanted.object)
    if wanted.outcome is not None:
        yield columns.outcome != OK if wanted.outcome == "refused" else columns.outcome == wanted.outcome
    if wanted.environment is not None:
        yield or_(columns.environment.is_(None), columns.environment == wanted.environment)
    if wanted.since is not None:
        yield columns.at >= wanted.since
    if wanted.until is not None:
        yield columns.at < wanted.until


def _of_action(columns: Any, action: str) -> ColumnElement[bool]:
    if action.endswith(".*"):
        found: ColumnElement[bool] = columns.action.startswith(action[:-1], autoescape=True)
        return found
    listed: ColumnElement[bool] = columns.action.in_([action + ending for ending in _ENDINGS])
    return listed


def _row(row: RowMapping) -> AuditRow:
    values = {name: row[name] for name in AuditRow.__slots__}
    return AuditRow(**{**values, "changes": json.loads(row["changes"]), "note": json.loads(row["note"])})
