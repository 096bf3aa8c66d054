"""Flags of keys: what somebody should look at, with the numbers that say why. Each is raised once and shown for a week.

Only keys that were used within the last hour are looked at. `unusual_volume`: at least 200 requests in that hour, and 10 times the mean
hour of the seven days before today, on three of which the key was used. `unusual_error_rate`: of at least 50 requests in that hour half
failed, and 3 times the share of those seven days. `unknown_client_ip`: the first use from an address, of a key that has been used from
others for a week. `dormant_key_used`: a use after 30 days without any.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import api_key, key_address
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.usage_tables import key_flag, usage_cell
from plughub.events.catalogue import KEY_FLAGGED, KeyFlagged
from plughub.usage.cells import CLASSES

FlagName = Literal["unusual_volume", "unusual_error_rate", "unknown_client_ip", "dormant_key_used"]
Numbers = dict[str, float | int | str | None]
HOUR_S, DAY_S = 3_600, 86_400
SHOWN_S: Final = 7 * DAY_S
USUAL_DAYS: Final = 7
LEAST_REQUESTS, TIMES_USUAL, LEAST_DAYS = 200, 10, 3
LEAST_JUDGED, LEAST_SHARE, TIMES_SHARE = 50, 0.5, 3
KNOWN_S: Final = 7 * DAY_S
DORMANT_S: Final = 30 * DAY_S
# Keys looked at in one query.
_AT_ONCE = 500
_RAISE = text(
    "INSERT INTO key_flag (key_id, flag, subject, raised_at, numbers) VALUES (:key_id, :flag, :subject, :raised_at, :numbers)"
    " ON CONFLICT DO NOTHING RETURNING key_id"
)
_ALL = sum((usage_cell.c[name] for name in CLASSES[1:]), usage_cell.c.ok)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a key. `subject` tells those of one name apart: an address, else empty."""

    key_id: str
    flag: FlagName
    subject: str
    raised_at: float
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Use:
    """What a key did in the last hour (`since`: the first minute of it), on the seven days before today, and when it was made and used
    before: `before` is the beginning of the last day on which it was, None = never."""

    requests: int
    failed: int
    since: int
    usual_requests: int
    usual_failed: int
    usual_days: int
    before: int | None
    made_at: float


def judge(use: Use) -> dict[FlagName, Numbers]:
    """The flags that the counts of a key raise."""
    found: dict[FlagName, Numbers] = {}
    usual = use.usual_requests / (USUAL_DAYS * 24)
    if use.usual_days >= LEAST_DAYS and use.requests >= max(LEAST_REQUESTS, TIMES_USUAL * usual):
        found["unusual_volume"] = {"requests_last_hour": use.requests, "usual_per_hour": round(usual, 2), "days": use.usual_days}
    share = use.failed / use.requests if use.requests else 0.0
    usual_share = use.usual_failed / use.usual_requests if use.usual_requests else 0.0
    if use.requests >= LEAST_JUDGED and share >= max(LEAST_SHARE, TIMES_SHARE * usual_share):
        numbers: Numbers = {"requests_last_hour": use.requests, "failed_last_hour": use.failed}
        found["unusual_error_rate"] = {**numbers, "error_rate": round(share, 4), "usual_error_rate": round(usual_share, 4)}
    unused_since = use.made_at if use.before is None else use.before + DAY_S
    if use.since - unused_since >= DORMANT_S:
        found["dormant_key_used"] = {"days_unused": int((use.since - unused_since) // DAY_S), "unused_since": unused_since}
    return found


async def find_flags(connection: AsyncConnection, now: float) -> list[Flag]:
    """What is to be raised now, by the counts (which are up to date) and the addresses; some of it may have been raised before."""
    query = select(usage_cell.c.key_id, func.sum(_ALL), func.sum(usage_cell.c.ok), func.min(usage_cell.c.start))
    query = query.where(usage_cell.c.grain == "minute", usage_cell.c.start >= now - HOUR_S, usage_cell.c.key_id != "")
    lately = {row[0]: row for row in await connection.execute(query.group_by(usage_cell.c.key_id))}
    found: list[Flag] = []
    keys = sorted(lately)
    for begin in range(0, len(keys), _AT_ONCE):
        part = keys[begin : begin + _AT_ONCE]
        for key_id, use in (await _uses(connection, part, lately, now)).items():
            found += [Flag(key_id, name, "", now, numbers) for name, numbers in judge(use).items()]
        found += await _strangers(connection, part, now)
    return found


async def raise_flag(uow: UnitOfWork, flag: Flag) -> bool:
    """Raise it, unless it is. Says so in the log."""
    values = {"key_id": flag.key_id, "flag": flag.flag, "subject": flag.subject, "raised_at": flag.raised_at}
    if (await uow.execute(_RAISE, {**values, "numbers": json.dumps(flag.numbers)})).first() is None:
        return False
    row = (await uow.execute(select(api_key).where(api_key.c.id == flag.key_id))).one()
    data: KeyFlagged = {
        "key_id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "kind": row.kind,
        "environment": row.environment,
        "flag": flag.flag,
        "numbers": flag.numbers,
    }
    uow.emit(KEY_FLAGGED, space_id=row.space_id, key_id=row.id, data=data)
    return True


async def list_flags(connection: AsyncConnection, key_ids: Sequence[str], now: float) -> dict[str, list[Flag]]:
    """The flags of each key that has any, the newest first."""
    found: dict[str, list[Flag]] = {}
    query = select(key_flag).where(key_flag.c.key_id.in_(key_ids), key_flag.c.raised_at > now - SHOWN_S)
    for row in await connection.execute(query.order_by(key_flag.c.raised_at.desc(), key_flag.c.flag, key_flag.c.subject)):
        found.setdefault(row.key_id, []).append(Flag(row.key_id, row.flag, row.subject, row.raised_at, json.loads(row.numbers)))
    return found


async def prune_flags(uow: UnitOfWork) -> None:
    """Remove what is shown no longer; it may be raised anew."""
    await uow.execute(delete(key_flag).where(key_flag.c.raised_at <= uow.clock.time() - SHOWN_S))


async def _uses(connection: AsyncConnection, key_ids: Iterable[str], lately: Mapping[str, Any], now: float) -> dict[str, Use]:
    """Of those that are keys: sessions and tokens have none of these flags."""
    today = int(now // DAY_S) * DAY_S
    of_days = (usage_cell.c.grain == "day", usage_cell.c.key_id.in_(key_ids))
    usual_query = select(usage_cell.c.key_id, func.sum(_ALL), func.sum(usage_cell.c.ok), func.count(usage_cell.c.start.distinct()))
    usual_query = usual_query.where(*of_days, usage_cell.c.start >= today - USUAL_DAYS * DAY_S, usage_cell.c.start < today)
    usual = {row[0]: row for row in await connection.execute(usual_query.group_by(usage_cell.c.key_id))}
    # An hour that began yesterday makes no day of use of yesterday.
    first_day = int((now - HOUR_S) // DAY_S) * DAY_S
    before_query = select(usage_cell.c.key_id, func.max(usage_cell.c.start)).where(*of_days, usage_cell.c.start < first_day)
    before = {row[0]: row[1] for row in await connection.execute(before_query.group_by(usage_cell.c.key_id))}
    made = await connection.execute(select(api_key.c.id, api_key.c.created_at).where(api_key.c.id.in_(key_ids)))
    found = {}
    for key_id, made_at in made:
        _, requests, ok, since = lately[key_id]
        _, usual_requests, usual_ok, days = usual.get(key_id, (key_id, 0, 0, 0))
        usual_failed = int(usual_requests - usual_ok)
        found[key_id] = Use(int(requests), int(requests - ok), since, int(usual_requests), usual_failed, days, before.get(key_id), made_at)
    return found


async def _strangers(connection: AsyncConnection, key_ids: Iterable[str], now: float) -> list[Flag]:
    """Addresses that a key was used from for the first time within the hour, while others have been known for a week."""
    query = select(key_address.c.key_id, key_address.c.address, key_address.c.first_seen_at).where(key_address.c.key_id.in_(key_ids))
    seen: dict[str, list[tuple[float, str]]] = {}
    for key_id, address, first_at in await connection.execute(query):
        seen.setdefault(key_id, []).append((first_at, address))
    found = []
    for key_id, addresses in seen.items():
        oldest = min(addresses)[0]
        known = sum(first_at <= now - KNOWN_S for first_at, _ in addresses)
        for first_at, address in addresses:
            if first_at >= now - HOUR_S and first_at - oldest >= KNOWN_S:
                numbers: Numbers = {"address": address, "first_seen_at": first_at, "known_addresses": known, "known_since": oldest}
                found.append(Flag(key_id, "unknown_client_ip", address, now, numbers))
    return found
