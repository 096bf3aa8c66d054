"""What people do with deliveries: look at them, send them again, bring back what was missed, and try an endpoint out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Actor, Deed
from plughub.db.engine import Database
from plughub.db.tables import space
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.webhook_tables import delivery
from plughub.events.body import event_body
from plughub.events.catalogue import WEBHOOK_UPDATED
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Conflict, Invalid, NotFound
from plughub.kit.ids import new_id, public_id
from plughub.webhooks import outbox, store
from plughub.webhooks.deliverer import Deliverer
from plughub.webhooks.formatters import body_of
from plughub.webhooks.matching import delivery_id, wants
from plughub.webhooks.outbox import Held, NewRow
from plughub.webhooks.schemas import Delivery, Status, Webhook
from plughub.webhooks.sender import Receiver
from plughub.webhooks.service import Keeper, get_row, shown, told
from plughub.webhooks.signing import Signer
from plughub.webhooks.store import LINE, Position
from plughub.webhooks.subscriptions import require_known

Json = Mapping[str, Any]
MISSING = "Delivery not found"
PING = "test.ping"
# Of one call of recover; the answer says from where to go on.
MOST_RECOVERED = 10_000
_PAGE = 500
_SENT_AGAIN, _TRIED, _RECOVERED = "webhook.redelivered", "webhook.tested", "webhook.recovered"


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """What to look for; None = anything. Times in epoch seconds, `until` not included."""

    status: Status | None = None
    event: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Recovered:
    """So many deliveries are due again or for the first time. `next_since`: where to go on, when there was more than one call may do."""

    count: int
    next_since: float | None


async def list_deliveries(
    connection: AsyncConnection, caller: Caller, webhook_id: str, wanted: DeliveryFilter, after: Position | None, limit: int
) -> tuple[list[Delivery], Position | None]:
    """Deliveries of a webhook, newest first, and what the next page comes after. Raises NotFound."""
    await get_row(connection, caller, webhook_id)
    rows = await store.list_deliveries(connection, webhook_id, list(_conditions(wanted)), after, limit + 1)
    more = rows[limit - 1] if len(rows) > limit else None
    return [_delivery(row) for row in rows[:limit]], None if more is None else (more["created_at"], more["id"])


async def redeliver(uow: UnitOfWork, caller: Caller, webhook_id: str, id_: str, keeper: Keeper) -> Delivery:
    """Send a delivery again, with the same id, body and a schedule of its own. Raises NotFound, Conflict (it is under way)."""
    row = await get_row(uow.connection, caller, webhook_id)
    before = await store.find_delivery(uow.connection, webhook_id, id_)
    if before is None:
        raise NotFound(MISSING)
    if not row["active"]:
        raise Conflict('The webhook is switched off: PATCH {"active":true} first')
    if not await store.revive(uow, [id_], None if row["ordered"] else uow.clock.time()):
        raise Conflict("The delivery is under way")
    webhook = keeper.webhook(row)
    _tell(uow, webhook, _SENT_AGAIN, {"delivery": before["status"]}, {"delivery": "pending"}, {"delivery_id": public_id("dlv", id_)})
    again = await store.find_delivery(uow.connection, webhook_id, id_)
    assert again is not None
    return _delivery(again)


async def recover(
    database: Database,
    actor: Actor,
    caller: Caller,
    webhook_id: str,
    times: tuple[float, float],
    keeper: Keeper,
    most: int = MOST_RECOVERED,
) -> Recovered:
    """Send what failed or waits for a later attempt, and what the webhook would have been told of while it was switched off, of events of
    those times [since, until). What was delivered is not sent again. Raises NotFound, Conflict (switched off).
    """
    async with database.read() as connection:
        row = await get_row(connection, caller, webhook_id)
        if not row["active"]:
            raise Conflict('The webhook is switched off: PATCH {"active":true} first')
        webhook = keeper.webhook(row)
        place = (await connection.execute(space.select().where(space.c.id == caller.space_id))).mappings().one()
        of_project = frozenset() if webhook.project_id is None else await store.list_servers_of(connection, webhook.project_id)
        seq = await store.first_since(connection, caller.space_id, times[0])
    count, next_since = 0, None
    while True:
        async with database.read() as connection:
            events = await store.list_walked(connection, caller.space_id, seq, _PAGE)
        told = [event for event in events if times[0] <= event.at < times[1] and wants(webhook, of_project, event)]
        if told:
            async with database.unit_of_work() as uow:
                count += await _bring_back(uow, webhook, place, told)
        if len(events) < _PAGE:
            break
        seq = events[-1].seq
        if count >= most:
            next_since = events[-1].at
            break
    async with database.unit_of_work(actor) as uow:
        _tell(uow, webhook, _RECOVERED, {}, {"deliveries": count}, {"since": rfc3339(times[0])})
    return Recovered(count, next_since)


async def _bring_back(uow: UnitOfWork, webhook: Webhook, place: RowMapping, events: Sequence[Event]) -> int:
    now = uow.clock.time()
    ids = {delivery_id(webhook.id, place["epoch"], event.seq): event for event in events}
    there = await store.list_statuses(uow.connection, list(ids))
    undone = [id_ for id_, status in there.items() if status != "delivered"]
    rows: list[NewRow] = []
    for id_, event in ids.items():
        if id_ not in there:
            body = body_of(event_body(event, place["organization_id"], place["epoch"]), webhook.format, webhook.channel)
            rows.append((id_, webhook.id, event.seq, event.name, body, LINE + event.seq if webhook.ordered else now, None))
    made = await outbox.insert_deliveries(uow, rows) if rows else set()
    revived = await store.revive(uow, undone, None if webhook.ordered else now) if undone else 0
    return len(made) + revived


async def try_out(hub: tuple[Database, Deliverer, Keeper], actor: Actor, caller: Caller, webhook_id: str, name: str) -> Delivery:
    """Send a test now, whether the webhook is active or not, and tell what came back; it is not tried again. Raises NotFound, Invalid."""
    database, deliverer, keeper = hub
    if name != PING:
        require_known([name])
        if "*" in name:
            raise Invalid("event", "A test is of one event: a wildcard is none", name)
    async with database.read() as connection:
        row = await get_row(connection, caller, webhook_id)
        place = await store.find_space(connection, caller.space_id)
    webhook, (secret, previous) = keeper.webhook(row), keeper.secrets(row)
    now, id_ = database.clock.time(), new_id()
    body = body_of(_test_event(webhook, caller, name, id_, now), webhook.format, webhook.channel)
    overlaps = webhook.previous_until is not None and now < webhook.previous_until
    receiver = Receiver(webhook.url, keeper.allowed, deliverer.tls)
    try:
        held = Held(id_, webhook.id, place["seq"], name, body, 0, 0, now)
        answer = await deliverer.attempt(receiver, Signer.of(secret, previous if overlaps else None), held)
    finally:
        receiver.close()
    values = {"id": id_, "webhook_id": webhook.id, "seq": place["seq"], "event": name, "body": body, "attempts": 1, "tries": 1}
    values |= {"status": "failed" if answer.error else "delivered", "next_at": None, "lease_owner": None, "created_at": now}
    values |= {"last_at": database.clock.time(), "response_status": answer.status, "response_excerpt": answer.excerpt}
    values |= {"error": answer.error, "duration_ms": answer.duration_ms}
    async with database.unit_of_work(actor) as uow:
        await store.insert_delivery(uow, values)
        uow.audit(
            Deed(
                _TRIED, "webhook", webhook.id, shown(webhook), webhook.space_id, after={"delivery": values["status"]}, note={"event": name}
            )
        )
        made = await store.find_delivery(uow.connection, webhook.id, id_)
    assert made is not None
    return _delivery(made)


def _tell(uow: UnitOfWork, webhook: Webhook, action: str, before: Json, after: Json, note: Json) -> None:
    """The audit, and every process that delivers: something is due."""
    uow.audit(Deed(action, "webhook", webhook.id, shown(webhook), webhook.space_id, before=before, after=after, note=note))
    uow.emit(WEBHOOK_UPDATED, space_id=webhook.space_id, data=told(webhook, changed=["deliveries"]))


def _test_event(webhook: Webhook, caller: Caller, name: str, id_: str, now: float) -> dict[str, Any]:
    data = {"test": True, "message": "A test of this webhook; nothing has happened", "webhook_id": public_id("webhook", webhook.id)}
    return {
        "id": public_id("evt", id_),
        "event": name,
        "type": name,
        "timestamp": rfc3339(now),
        "organization_id": public_id("org", caller.organization_id),
        "data": {**data, "server_uuid": None, "mcp_id": None},
    }


def _conditions(wanted: DeliveryFilter) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.status is not None:
        found.append(delivery.c.status == wanted.status)
    if wanted.event is not None:
        found.append(delivery.c.event == wanted.event)
    if wanted.since is not None:
        found.append(delivery.c.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(delivery.c.created_at < wanted.until)
    return found


def _delivery(row: RowMapping) -> Delivery:
    next_at = row["next_at"]
    return Delivery(
        id=row["id"],
        event=row["event"],
        status=row["status"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        # Held by somebody, or in a line: the next attempt is at no time that could be told.
        next_at=None if next_at is None or next_at >= LINE or row["lease_owner"] is not None else next_at,
        last_at=row["last_at"],
        body=row["body"],
        response_status=row["response_status"],
        response_excerpt=row["response_excerpt"],
        error=row["error"],
        duration_ms=row["duration_ms"],
    )
