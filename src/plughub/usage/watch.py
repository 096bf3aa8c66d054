"""What is looked at every minute, over counts that are up to date: flags of keys, and alerts. Each is told once, whoever looks."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.engine import Database
from plughub.db.tables import api_key, organization, server, server_health, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.usage_tables import alert, usage_cell
from plughub.events.catalogue import ALERT_FIRED, ALERT_RESOLVED
from plughub.identity.letters import post
from plughub.kit.caller import TIERS
from plughub.kit.crypto import Sealer
from plughub.usage.alerts import HOUR_S, Alert, emit, is_member
from plughub.usage.cells import CALL, CLASSES, GRAIN_S, Grain
from plughub.usage.flags import find_flags, raise_flag
from plughub.usage.rollup import roll_up
from plughub.usage.sketch import percentiles, together

# A share of fewer calls says nothing.
LEAST_CALLS = 5
# Longer windows are counted by hours, which are whole ones.
_BY_MINUTES_S = 2 * HOUR_S
# Minutes, or hours, whose sketches are read at once.
_READ_AT_ONCE = 10
_ALL = sum((usage_cell.c[name] for name in CLASSES[1:]), usage_cell.c.ok)


async def watch(database: Database, sealer: Sealer) -> None:
    """Count, then raise the flags and fire or resolve the alerts that are due."""
    await roll_up(database)
    now = database.clock.time()
    async with database.read() as connection:
        flags = await find_flags(connection, now)
        rules = [Alert(**row) for row in (await connection.execute(select(alert).where(alert.c.enabled))).mappings()]
    for flag in flags:
        async with database.unit_of_work() as uow:
            await raise_flag(uow, flag)
    for rule in rules:
        async with database.read() as connection:
            value = await measure(connection, rule, now)
        fires = value is not None and value >= rule.threshold
        if fires != rule.firing:
            async with database.unit_of_work() as uow:
                await _turn(uow, sealer, rule, value, fires=fires)


async def measure(connection: AsyncConnection, rule: Alert, now: float) -> float | None:
    """The metric of an alert over its window; None when there is too little to tell."""
    if rule.metric == "servers_down":
        return await _servers_down(connection, rule, now)
    if rule.metric == "latency_p95_ms":
        return await _p95_ms(connection, rule, now)
    if rule.metric == "limit_share":
        return await _limit_share(connection, rule, now)
    counted = select(func.coalesce(func.sum(_ALL), 0), func.coalesce(func.sum(usage_cell.c.ok), 0)).where(*_cells(rule, now))
    calls, ok = (int(number) for number in (await connection.execute(counted)).one())
    if rule.metric == "calls":
        return float(calls)
    return (calls - ok) / calls if calls >= LEAST_CALLS else None


async def _p95_ms(connection: AsyncConnection, rule: Alert, now: float) -> float | None:
    """Read piece by piece, and merged beside the loop: of many keys and tools it is much."""
    length, kept = _READ_AT_ONCE * GRAIN_S[_grain(rule)], list[bytes]()
    for begin in range(int(now - rule.window_s), int(now) + 1, length):
        piece = (usage_cell.c.start >= begin, usage_cell.c.start < begin + length, usage_cell.c.digest.is_not(None))
        found = (await connection.execute(select(usage_cell.c.digest).where(*_cells(rule, now), *piece))).scalars().all()
        whole = await asyncio.to_thread(together, [*kept, *found])
        kept = [] if whole is None else [whole]
    [value] = percentiles(kept, [], (95,))
    return None if value is None else value / 1000


def _grain(rule: Alert) -> Grain:
    return "minute" if rule.window_s <= _BY_MINUTES_S else "hour"


def _cells(rule: Alert, now: float, *, calls: bool = True) -> Sequence[ColumnElement[bool]]:
    of_window = (usage_cell.c.grain == _grain(rule), usage_cell.c.start >= now - rule.window_s)
    found = [usage_cell.c.space_id == rule.space_id, *of_window]
    if calls:
        found.append(usage_cell.c.kind == CALL)
    if rule.server_id is not None:
        found.append(usage_cell.c.server_id == rule.server_id)
    if rule.key_id is not None:
        found.append(usage_cell.c.key_id == rule.key_id)
    return found


async def _limit_share(connection: AsyncConnection, rule: Alert, now: float) -> float | None:
    """The requests of the last hour, but for those that were refused for the limit, as a share of what the hour allows."""
    counted = select(func.coalesce(func.sum(_ALL - usage_cell.c.limited), 0)).where(*_cells(rule, now, calls=False))
    requests = int((await connection.execute(counted)).scalar_one())
    query = select(organization.c.tier, organization.c.hourly_limit).join(space, space.c.organization_id == organization.c.id)
    tier, hourly = (await connection.execute(query.where(space.c.id == rule.space_id))).one()
    limit = hourly or TIERS[tier].hourly
    if rule.key_id is not None:
        own: dict[str, Any] | None = (await connection.execute(select(api_key.c.rate_limit).where(api_key.c.id == rule.key_id))).scalar()
        limit = min(limit, (own or {}).get("hourly") or limit)
    return requests / limit


async def _servers_down(connection: AsyncConnection, rule: Alert, now: float) -> float:
    """How many servers that are switched on have been in error all through the window: they were at its beginning, and nothing since
    says otherwise."""
    begin = now - rule.window_s
    seen = server_health.alias("seen")
    newest = select(seen.c.status).where(seen.c.server_id == server.c.id, seen.c.at <= begin)
    newest_before = newest.order_by(seen.c.at.desc(), seen.c.id.desc()).limit(1).scalar_subquery()
    better = exists().where(and_(server_health.c.server_id == server.c.id, server_health.c.at > begin, server_health.c.status != "error"))
    of_rule = [server.c.space_id == rule.space_id, server.c.enabled]
    if rule.server_id is not None:
        of_rule.append(server.c.id == rule.server_id)
    query = select(func.count()).select_from(server).where(*of_rule, newest_before == "error", ~better)
    return float((await connection.execute(query)).scalar_one())


async def _turn(uow: UnitOfWork, sealer: Sealer, rule: Alert, value: float | None, *, fires: bool) -> None:
    """Fire or resolve, unless somebody else has, or the rule was changed meanwhile."""
    now = uow.clock.time()
    unchanged = (alert.c.id == rule.id, alert.c.firing == rule.firing, alert.c.enabled, alert.c.updated_at == rule.updated_at)
    turned = await uow.execute(update(alert).where(*unchanged).values(firing=fires, since_at=now, value=value))
    if not turned.rowcount:
        return
    emit(uow, ALERT_FIRED if fires else ALERT_RESOLVED, rule, value)
    if rule.channel != "email" or rule.email is None:
        return
    owner = select(space.c.organization_id).where(space.c.id == rule.space_id)
    if not await is_member(uow.connection, (await uow.execute(owner)).scalar_one(), rule.email):
        return
    condition = f"{rule.metric} of {rule.threshold:g} or more over {rule.window_s} s"
    words = {"alert": rule.name, "condition": condition, "value": "unknown" if value is None else f"{value:g}"}
    await post(uow, sealer, "alert_fired" if fires else "alert_resolved", rule.email, words)
