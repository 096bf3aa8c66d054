"""Alerts over REST: rules that are looked at every minute."""

from functools import partial
from typing import Any

from fastapi import Response

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, public_or_404, reply
from plughub.api.usage_shapes import AlertList, AlertOut
from plughub.door.routes import Route
from plughub.gateway.hub import Hub
from plughub.kit.clock import rfc3339
from plughub.kit.errors import AlertNotFound
from plughub.kit.ids import public_id
from plughub.usage import alerts
from plughub.usage.alerts import Alert, AlertCreate, AlertUpdate


async def list_alerts(caller: CallerDep, connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The alerts of the caller's environment, oldest first. A key with a server list sees those of its servers."""
    page = await alerts.list_alerts(connection, caller, limit=limit, offset=offset)
    return reply({"alerts": [shown(one) for one in page.items], "total": page.total, "limit": limit, "offset": offset})


async def create_alert(caller: CallerDep, uow: UowDep, hub: HubDep, body: AlertCreate) -> Response:
    """Watch a metric: `calls`, `error_rate` (0 to 1), `latency_p95_ms`, `limit_share` (of the hour) or `servers_down`.

    It fires once when the metric is at the threshold or above, and is resolved once when it is not: `alert.fired` and `alert.resolved` in
    the log, which webhooks and notifications hear, and a mail to a member with the channel `email`.
    """
    return reply(shown(await alerts.create_alert(uow, caller, body, mails=_mails(hub))), 201)


async def get_alert(caller: CallerDep, connection: ReadDep, alert_id: str) -> Response:
    """One alert, and how it stands."""
    return reply(shown(await alerts.get_alert(connection, caller, _id(alert_id))))


async def update_alert(caller: CallerDep, uow: UowDep, hub: HubDep, alert_id: str, body: AlertUpdate) -> Response:
    """Change an alert: one that fires is over with that, and may fire anew."""
    return reply(shown(await alerts.update_alert(uow, caller, _id(alert_id), body, mails=_mails(hub))))


async def delete_alert(caller: CallerDep, uow: UowDep, alert_id: str) -> Response:
    """Remove an alert."""
    await alerts.delete_alert(uow, caller, _id(alert_id))
    return Response(status_code=204)


def shown(one: Alert) -> dict[str, Any]:
    """The alert as `/api` shows it."""
    return {
        "id": public_id("alert", one.id),
        "name": one.name,
        "metric": one.metric,
        "threshold": one.threshold,
        "window": one.window_s,
        "server_uuid": one.server_id,
        "key_id": None if one.key_id is None else public_id("key", one.key_id),
        "channel": one.channel,
        "email": one.email,
        "enabled": one.enabled,
        "state": "firing" if one.firing else "ok",
        "since": None if one.since_at is None else rfc3339(one.since_at),
        "value": one.value,
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def _mails(hub: Hub) -> bool:
    return bool(hub.settings.smtp_url)


def _id(text: str) -> str:
    return public_or_404("alert", text, AlertNotFound.message)


_PATH, _ONE = "/api/alerts", "/api/alerts/{alert_id}"
_row = partial(Route, tag="Alerts")
ROUTES = [
    _row("GET", _PATH, "read:usage", list_alerts, "List alerts", output=AlertList),
    _row("POST", _PATH, "write:notifications", create_alert, "Make an alert", status=201, output=AlertOut),
    _row("GET", _ONE, "read:usage", get_alert, "Get an alert", output=AlertOut),
    _row("PATCH", _ONE, "write:notifications", update_alert, "Change an alert", output=AlertOut),
    _row("DELETE", _ONE, "write:notifications", delete_alert, "Remove an alert", status=204),
]
