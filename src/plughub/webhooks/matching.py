"""Which events a webhook is told of, and the id of each delivery. Pure."""

import hashlib
from collections.abc import Collection
from typing import Any

from plughub.db.unit_of_work import Event
from plughub.events.names import matches
from plughub.webhooks.schemas import Webhook
from plughub.webhooks.subscriptions import is_told


def wants(webhook: Webhook, of_project: Collection[str], event: Event) -> bool:
    """Whether the webhook is told of the event. `of_project`: the servers of its project, when it has one."""
    if not is_told(webhook.scopes, event.name) or not matches(webhook.events, event.name):
        return False
    if webhook.servers is not None and event.server_id not in webhook.servers:
        return False
    if webhook.project_id is None:
        return True
    return event.server_id in of_project or event.data.get("project_uuid") == webhook.project_id


def delivery_id(webhook_id: str, epoch: str, seq: int) -> str:
    """The same for the same event and webhook, whoever makes the delivery and how often: a uuid (RFC 9562, version 8)."""
    digest: Any = bytearray(hashlib.sha256(f"{webhook_id}.{epoch}.{seq}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
