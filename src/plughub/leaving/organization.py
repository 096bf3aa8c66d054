"""The end of an organisation, in two steps on one way.

The first, in the transaction of whoever asks, tells every cache and connection what ends and empties every table of it, but for its log.
The second, a job, removes the log and the bare rows that the log hangs on, once every process has followed it. The audit stays.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.columns import metadata
from plughub.db.engine import Database
from plughub.db.jobs import add_job
from plughub.db.tables import api_key, audit, audit_head, event, oauth_grant, organization, person_session, server, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.webhook_tables import webhook
from plughub.events.catalogue import (
    GRANT_REVOKED,
    KEY_REVOKED,
    ORGANIZATION_UPDATED,
    SERVER_DELETED,
    SESSION_ENDED,
    WEBHOOK_DELETED,
    GrantChanged,
    OrganizationChanged,
    ServerChanged,
    SessionChanged,
)
from plughub.identity.people import find_role
from plughub.identity.service import Organization, get_operator_id, get_organization
from plughub.keys.service import emit as emit_key
from plughub.kit.errors import Conflict, Forbidden, OrganizationNotFound
from plughub.webhooks.outbox import prune_deliveries

JOB = "remove_organization"
ORGANIZATION_DELETED = "organization.deleted"
# Processes follow the log within a second, and calls end within five minutes: then nobody writes or reads it any more.
GRACE_S = 600.0
_AT_ONCE = 2_000
# Rows of an organisation stand wherever one of these columns is, also in tables that come later.
_COLUMNS = ("space_id", "organization_id")
# The log and what it hangs on go with the job; the audit outlives what it tells about.
_LEFT = frozenset({event.name, space.name, organization.name})
KEPT = frozenset({audit.name, audit_head.name})


async def delete_organization(uow: UnitOfWork, organization_id: str, person_id: str) -> None:
    """Remove an organisation with all that is in it, on behalf of one of its owners.

    Raises OrganizationNotFound, Forbidden (no owner), Conflict (the operator's own).
    """
    await lock_organizations(uow, [organization_id])
    role = await find_role(uow.connection, organization_id, person_id)
    if role is None:
        raise OrganizationNotFound
    if role != "owner":
        raise Forbidden("An organization is removed by its owners", reason="owners_only")
    await remove_organization(uow, await get_organization(uow.connection, organization_id))


async def remove_organization(uow: UnitOfWork, found: Organization) -> None:
    """The first step, of an organisation that is locked. Raises Conflict for the operator's own."""
    if found.operator:
        raise Conflict("The operator's organization cannot be removed", reason="operator_organization")
    ended = await _tell(uow, found)
    await _empty(uow.connection, found.id, [found.live_space_id, found.test_space_id])
    await add_job(uow, JOB, {"organization_id": found.id}, run_at=uow.clock.time() + GRACE_S, dedupe=f"{JOB}:{found.id}")
    deed = Deed(ORGANIZATION_DELETED, "organization", found.id, found.name, organization_id=found.id, note=ended)
    deed = replace(deed, before={"name": found.name, "slug": found.slug, "tier": found.tier})
    uow.audit(deed)
    uow.audit(replace(deed, organization_id=await get_operator_id(uow.connection)))


async def lock_organizations(uow: UnitOfWork, ids: Sequence[str]) -> None:
    """Hold the rows: changes of members queue up. Always in the same order."""
    await uow.execute(select(organization.c.id).where(organization.c.id.in_(ids)).order_by(organization.c.id).with_for_update())


async def finish_removal(database: Database, organization_id: str) -> None:
    """The second step. A request that was admitted before the first may have left something: that goes too."""
    async with database.read() as connection:
        space_ids = (await connection.execute(select(space.c.id).where(space.c.organization_id == organization_id))).scalars().all()
    for space_id in space_ids:
        while await _remove_events(database, space_id):
            pass
    await prune_deliveries(database, 0.0)  # those of its webhooks, which are gone; of others none is so old
    async with database.unit_of_work() as uow:
        await lock_organizations(uow, [organization_id])
        await _empty(uow.connection, organization_id, space_ids)
        await uow.execute(delete(event).where(event.c.space_id.in_(space_ids)))
        await uow.execute(delete(space).where(space.c.organization_id == organization_id))
        await uow.execute(delete(organization).where(organization.c.id == organization_id))
        operator = await get_organization(uow.connection, await get_operator_id(uow.connection))
        data: OrganizationChanged = {"organization_id": organization_id}
        # Whoever remembers something of it that came in between forgets it. It has no space of its own any more to say so in.
        uow.emit(ORGANIZATION_UPDATED, space_id=operator.live_space_id, data=data)


async def _remove_events(database: Database, space_id: str) -> int:
    """Remove the oldest; how many that were. Small transactions: the write lock is never held for long."""
    async with database.unit_of_work() as uow:
        first = select(func.min(event.c.seq)).where(event.c.space_id == space_id).scalar_subquery()
        return (await uow.execute(delete(event).where(event.c.space_id == space_id, event.c.seq < first + _AT_ONCE))).rowcount


async def _empty(connection: AsyncConnection, organization_id: str, space_ids: Sequence[str]) -> None:
    """Remove every row that is the organisation's; what hangs on one goes with it."""
    for table in _in_order():
        for name in _COLUMNS:
            if name in table.c:
                await connection.execute(delete(table).where(_is_one_of(table, name, organization_id, space_ids)))


def _in_order() -> list[Table]:
    """What is emptied. Last come those that rows of a table without an owner refer to: these go with other rows, in a cascade."""
    tables = [table for table in reversed(metadata.sorted_tables) if table.name not in _LEFT | KEPT]
    owned = {table.name for table in tables if any(name in table.c for name in _COLUMNS)}
    held = {key.column.table.name for table in tables if table.name not in owned for key in table.foreign_keys if key.ondelete != "CASCADE"}
    return sorted(tables, key=lambda table: table.name in held)


def _is_one_of(table: Table, name: str, organization_id: str, space_ids: Sequence[str]) -> ColumnElement[bool]:
    return table.c[name].in_(space_ids) if name == "space_id" else table.c[name] == organization_id


async def _tell(uow: UnitOfWork, found: Organization) -> dict[str, int]:
    """Say what ends, each in its own space, as whoever ends it alone would; how many of each that are."""
    spaces = [found.live_space_id, found.test_space_id]
    servers = (await uow.execute(select(server).where(server.c.space_id.in_(spaces)))).all()
    for row in servers:
        told: ServerChanged = {"server_uuid": row.id, "name": row.name, "slug": row.slug, "type": row.transport}
        uow.emit(SERVER_DELETED, space_id=row.space_id, server_id=row.id, data=told)
    keys = (await uow.execute(select(api_key).where(api_key.c.space_id.in_(spaces)))).all()
    for row in keys:
        emit_key(uow, KEY_REVOKED, row)
    hooks = (await uow.execute(select(webhook.c.id, webhook.c.space_id).where(webhook.c.space_id.in_(spaces)))).all()
    for row in hooks:  # whoever delivers to them forgets them; the address is sealed, and nobody is told of it
        uow.emit(WEBHOOK_DELETED, space_id=row.space_id, data={"webhook_id": row.id, "url": "***"})
    sessions = (await uow.execute(select(person_session).where(person_session.c.organization_id == found.id))).all()
    for row in sessions:
        session: SessionChanged = {"session_id": row.id, "user_id": row.person_id}
        uow.emit(SESSION_ENDED, space_id=found.live_space_id, key_id=row.id, data=session)
    grants = (await uow.execute(select(oauth_grant).where(oauth_grant.c.organization_id == found.id))).all()
    for row in grants:
        grant: GrantChanged = {"client_id": row.client_id, "client_name": row.client_name, "user_id": row.person_id}
        uow.emit(GRANT_REVOKED, space_id=found.live_space_id, key_id=row.id, data=grant)
    data: OrganizationChanged = {"organization_id": found.id}
    for space_id in spaces:
        uow.emit(ORGANIZATION_UPDATED, space_id=space_id, data=data)
    return {"servers": len(servers), "keys": len(keys), "sessions": len(sessions), "grants": len(grants)}
