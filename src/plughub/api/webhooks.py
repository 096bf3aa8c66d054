"""Webhooks and integrations over REST (CONTRACT section 7)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, Field

from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, public_or_404, reply
from plughub.api.webhook_shapes import (
    DeliveryList,
    DeliveryOut,
    RecoveredOut,
    WebhookDeleted,
    WebhookList,
    WebhookMade,
    WebhookOut,
    WebhookTried,
)
from plughub.door.routes import Route
from plughub.kit.clock import parse_rfc3339, rfc3339
from plughub.kit.errors import Invalid, NotFound
from plughub.kit.ids import parse_uuid, public_id
from plughub.webhooks import deliveries, service
from plughub.webhooks.schemas import (
    Delivery,
    EventName,
    Format,
    IntegrationCreate,
    Recover,
    SecretRotate,
    Status,
    Webhook,
    WebhookCreate,
    WebhookTest,
    WebhookUpdate,
)
from plughub.webhooks.store import Position

# Of the body that is sent; it has 20 KB at most.
_EXCERPT = 4000
_SERVICES: Mapping[str, Format] = {"slack": "slack", "teams": "teams", "discord": "discord"}
_FOREVER = 1e11


class Wanted(BaseModel):
    """Filters; times are RFC 3339, of when the delivery was made."""

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=100)
    status: Status | None = None
    event: EventName | None = None
    since: str | None = Field(None, max_length=100, description="RFC 3339; included")
    until: str | None = Field(None, max_length=100, description="RFC 3339; not included")


async def list_webhooks(caller: CallerDep, connection: ReadDep, hub: HubDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The webhooks and integrations of the caller's organisation and environment, oldest first."""
    page = await service.list_webhooks(connection, caller, hub.webhooks, limit=limit, offset=offset)
    return reply({"webhooks": [shown(each) for each in page.items], "total": page.total, "limit": limit, "offset": offset})


async def create_webhook(caller: CallerDep, uow: UowDep, hub: HubDep, body: WebhookCreate) -> Response:
    """Be told of events from now on. Without a `secret` one is generated, and shown in this answer alone."""
    made, secret = await service.create_webhook(uow, caller, body, hub.webhooks)
    return reply({**shown(made), **({} if secret is None else {"secret": secret})}, 201)


async def get_webhook(caller: CallerDep, connection: ReadDep, hub: HubDep, webhook_id: str) -> Response:
    """One webhook."""
    return reply(shown(await service.get_webhook(connection, caller, _id(webhook_id), hub.webhooks)))


async def update_webhook(caller: CallerDep, uow: UowDep, hub: HubDep, webhook_id: str, body: WebhookUpdate) -> Response:
    """Change a webhook. `active: false` pauses it: what waits is sent when it is active again, what happens meanwhile only by
    `recover`."""
    return reply(shown(await service.update_webhook(uow, caller, _id(webhook_id), body, hub.webhooks)))


async def delete_webhook(caller: CallerDep, uow: UowDep, hub: HubDep, webhook_id: str) -> Response:
    """Delete a webhook, what waits for it, and the list of its deliveries."""
    await service.delete_webhook(uow, caller, _id(webhook_id), hub.webhooks)
    return reply({"id": public_id("webhook", _id(webhook_id)), "deleted": True})


async def rotate_secret(caller: CallerDep, uow: UowDep, hub: HubDep, webhook_id: str, body: SecretRotate) -> Response:
    """Give a webhook a new secret. For the overlap deliveries carry the signatures of both."""
    rotated, secret = await service.rotate_secret(uow, caller, _id(webhook_id), body, hub.webhooks)
    return reply({**shown(rotated), **({} if secret is None else {"secret": secret})})


async def try_webhook(caller: CallerDep, hub: HubDep, actor: ActorDep, webhook_id: str, body: WebhookTest) -> Response:
    """Send a test event now, and tell what came back. It is sent once."""
    parts = (hub.database, hub.deliverer, hub.webhooks)
    tried = await deliveries.try_out(parts, actor, caller, _id(webhook_id), body.event)
    return reply({"success": tried.status == "delivered", "delivery": _delivery(tried)})


async def list_deliveries(caller: CallerDep, connection: ReadDep, webhook_id: str, wanted: Annotated[Wanted, Query()]) -> Response:
    """What was sent to a webhook, or waits to be, newest first."""
    found = deliveries.DeliveryFilter(wanted.status, wanted.event, _time(wanted, "since"), _time(wanted, "until"))
    position = _position(wanted.cursor)
    rows, after = await deliveries.list_deliveries(connection, caller, _id(webhook_id), found, position, wanted.limit)
    cursor = None if after is None else f"{after[0]!r}_{after[1]}"
    return reply({"deliveries": [_delivery(row) for row in rows], "limit": wanted.limit, "next_cursor": cursor})


async def redeliver(caller: CallerDep, uow: UowDep, hub: HubDep, webhook_id: str, delivery_id: str) -> Response:
    """Send a delivery again, by the same `webhook-id`, with all its attempts anew."""
    again = await deliveries.redeliver(uow, caller, _id(webhook_id), public_or_404("dlv", delivery_id, deliveries.MISSING), hub.webhooks)
    return reply(_delivery(again))


async def recover(caller: CallerDep, hub: HubDep, actor: ActorDep, webhook_id: str, body: Recover) -> Response:
    """Send again what failed, and what the webhook missed while it was switched off, of the events since a time. What was delivered is
    not sent again."""
    async with hub.database.read() as connection:
        await service.get_webhook(connection, caller, _id(webhook_id), hub.webhooks)
    since, until = _time(body, "since"), _time(body, "until")
    times = (since or 0.0, _FOREVER if until is None else until)
    done = await deliveries.recover(hub.database, actor, caller, _id(webhook_id), times, hub.webhooks)
    return reply({"recovered": done.count, "next_since": None if done.next_since is None else rfc3339(done.next_since)})


async def create_integration(caller: CallerDep, uow: UowDep, hub: HubDep, service_name: str, body: IntegrationCreate) -> Response:
    """Post events as messages to a chat service, through a webhook of its own. It is managed under `/api/webhooks`."""
    if service_name not in _SERVICES:
        raise NotFound
    return reply(shown(await service.create_integration(uow, caller, _SERVICES[service_name], body, hub.webhooks)), 201)


def shown(webhook: Webhook) -> dict[str, Any]:
    """The webhook as `/api` shows it."""
    return {
        "id": public_id("webhook", webhook.id),
        "url": service.shown(webhook),
        "events": list(webhook.events),
        "active": webhook.active,
        "ordered": webhook.ordered,
        "format": webhook.format,
        "channel": webhook.channel,
        "project_uuid": webhook.project_id,
        "servers": "*" if webhook.servers is None else sorted(webhook.servers),
        "description": webhook.description,
        "rate_per_minute": webhook.rate_per_minute,
        "disabled_reason": webhook.disabled,
        "failing_since": _shown_time(webhook.failing_since),
        "previous_secret_until": _shown_time(webhook.previous_until),
        "created_at": rfc3339(webhook.created_at),
        "updated_at": rfc3339(webhook.updated_at),
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    came = {"status": delivery.response_status, "body": delivery.response_excerpt}
    return {
        "id": public_id("dlv", delivery.id),
        "message_id": public_id("msg", delivery.id),
        "event": delivery.event,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "created_at": rfc3339(delivery.created_at),
        "last_attempt_at": _shown_time(delivery.last_at),
        "next_attempt_at": _shown_time(delivery.next_at),
        "request_body": delivery.body[:_EXCERPT],
        "response": None if delivery.last_at is None else {**came, "error": delivery.error, "duration_ms": delivery.duration_ms},
    }


def _shown_time(epoch_s: float | None) -> str | None:
    return None if epoch_s is None else rfc3339(epoch_s)


def _time(wanted: BaseModel, field: str) -> float | None:
    text: str | None = getattr(wanted, field)
    found = parse_rfc3339(text) if text is not None else None
    if text is not None and found is None:
        raise Invalid(field, f"The '{field}' field must be an RFC 3339 time with its offset", text)
    return found


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    at, _, id_ = cursor.partition("_")
    try:
        found = float(at), parse_uuid(id_)
    except ValueError:
        found = (-1.0, None)
    if found[1] is None or not 0 <= found[0] < _FOREVER:
        raise Invalid("cursor", "The 'cursor' field is no cursor of this list", cursor)
    return found[0], found[1]


def _id(text: str) -> str:
    return public_or_404("webhook", text, service.MISSING)


_PATH = "/api/webhooks"
_ONE = _PATH + "/{webhook_id}"
_row = partial(Route, secret=True)
ROUTES = [
    Route("GET", _PATH, "read:webhooks", list_webhooks, "List webhooks", "Webhooks", output=WebhookList),
    _row("POST", _PATH, "write:webhooks", create_webhook, "Create a webhook", "Webhooks", status=201, output=WebhookMade),
    Route("GET", _ONE, "read:webhooks", get_webhook, "Get a webhook", "Webhooks", output=WebhookOut),
    Route("PATCH", _ONE, "write:webhooks", update_webhook, "Change a webhook", "Webhooks", output=WebhookOut),
    Route("DELETE", _ONE, "write:webhooks", delete_webhook, "Delete a webhook", "Webhooks", output=WebhookDeleted),
    _row("POST", _ONE + "/rotate-secret", "write:webhooks", rotate_secret, "Rotate a webhook's secret", "Webhooks", output=WebhookMade),
    Route("POST", _ONE + "/test", "write:webhooks", try_webhook, "Try a webhook out", "Webhooks", output=WebhookTried),
    Route("GET", _ONE + "/deliveries", "read:webhooks", list_deliveries, "List deliveries", "Webhooks", output=DeliveryList),
    Route(
        "POST", _ONE + "/deliveries/{delivery_id}/redeliver", "write:webhooks", redeliver, "Deliver again", "Webhooks", output=DeliveryOut
    ),
    Route("POST", _ONE + "/recover", "write:webhooks", recover, "Recover deliveries", "Webhooks", output=RecoveredOut),
    Route(
        "POST",
        "/api/integrations/{service_name}",
        "write:webhooks",
        create_integration,
        "Connect a chat service",
        "Webhooks",
        status=201,
        output=WebhookOut,
    ),
]
