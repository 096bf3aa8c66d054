"""Rules of webhooks. Who may use some servers only makes, sees and changes webhooks that are told of those servers alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import MASK, Deed, Hidden
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import WEBHOOK_CREATED, WEBHOOK_DELETED, WEBHOOK_UPDATED, WebhookChanged
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.crypto import Sealer
from plughub.kit.dial import Allowed
from plughub.kit.errors import Conflict, Invalid, NotFound
from plughub.kit.ids import new_id, parse_uuid
from plughub.kit.pagination import Page
from plughub.webhooks import store
from plughub.webhooks.addresses import shown_url, url_defect
from plughub.webhooks.schemas import Format, IntegrationCreate, SecretRotate, Webhook, WebhookCreate, WebhookUpdate
from plughub.webhooks.signing import generate_secret, secret_defect
from plughub.webhooks.subscriptions import require_known, scopes_for

MISSING = "Webhook not found"
# Of a space: each event is matched with every one of them.
MAX_WEBHOOKS = 100
# What the services take of one webhook, deliveries a minute.
_RATES: Mapping[str, int] = {"slack": 60, "teams": 120, "discord": 30}


class Keeper:
    """What the rules need of the hub: `sealer` for secrets at rest, `allowed` private addresses."""

    def __init__(self, sealer: Sealer, allowed: Allowed) -> None:
        self._sealer = sealer
        self.allowed = allowed

    def seal(self, webhook_id: str, column: str, text: str) -> bytes:
        """Bound to row and column."""
        return self._sealer.seal(text.encode(), f"webhook:{webhook_id}:{column}")

    def open(self, webhook_id: str, column: str, blob: bytes) -> str:
        """What was sealed. Raises SealBroken."""
        return self._sealer.open(blob, f"webhook:{webhook_id}:{column}").decode()

    def webhook(self, row: RowMapping) -> Webhook:
        """A row as the rules see it."""
        return Webhook(
            id=row["id"],
            space_id=row["space_id"],
            url=self.open(row["id"], "url", row["sealed_url"]),
            events=tuple(row["events"]),
            active=row["active"],
            ordered=row["ordered"],
            format=row["format"],
            channel=row["channel"],
            project_id=row["project_id"],
            servers=None if row["servers"] is None else frozenset(row["servers"]),
            scopes=tuple(row["scopes"]),
            description=row["description"],
            rate_per_minute=row["rate_per_minute"],
            disabled=row["disabled"],
            failing_since=row["failing_since"],
            previous_until=row["previous_until"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            revision=row["revision"],
        )

    def secrets(self, row: RowMapping) -> tuple[str, str | None]:
        """The secret of a row, and the one before it when a rotation kept it."""
        previous = row["sealed_previous"]
        return (
            self.open(row["id"], "secret", row["sealed_secret"]),
            None if previous is None else self.open(row["id"], "previous", previous),
        )


async def create_webhook(uow: UnitOfWork, caller: Caller, body: WebhookCreate, keeper: Keeper) -> tuple[Webhook, str | None]:
    """A new webhook, and its secret when it was generated here, which is told this once. Raises Invalid, Conflict (too many)."""
    _require_secret(body.secret)
    given = body.model_dump(include={"url", "events", "active", "ordered", "rate_per_minute"})
    secret = body.secret or generate_secret()
    made = await _create(uow, caller, {**given, "description": body.description or "", "format": "webhook"}, secret, keeper)
    return made, None if body.secret else secret


async def create_integration(uow: UnitOfWork, caller: Caller, service: Format, body: IntegrationCreate, keeper: Keeper) -> Webhook:
    """A webhook that posts the service's messages. Raises Invalid, Forbidden, Conflict (too many)."""
    project_id = None
    if body.project_uuid is not None:
        wanted = parse_uuid(body.project_uuid)
        project_id = await store.find_project(uow.connection, caller.space_id, wanted) if wanted is not None else None
        if project_id is None:
            raise Invalid("project_uuid", f"Project '{body.project_uuid}' not found", body.project_uuid)
    values = {"url": body.webhook_url, "events": body.events, "active": True, "ordered": False, "rate_per_minute": _RATES[service]}
    values |= {"description": "", "format": service, "channel": body.channel, "project_id": project_id}
    return await _create(uow, caller, values, generate_secret(), keeper, field="webhook_url")


async def _create(uow: UnitOfWork, caller: Caller, given: Mapping[str, Any], secret: str, keeper: Keeper, *, field: str = "url") -> Webhook:
    events = require_known(given["events"])
    scopes = scopes_for(caller, events)
    _require_url(field, given["url"], keeper)
    now, id_ = uow.clock.time(), new_id()
    from_seq = await store.begin(uow, caller.space_id)
    if await store.count_webhooks(uow.connection, caller.space_id) >= MAX_WEBHOOKS:
        raise Conflict(f"There are {MAX_WEBHOOKS} webhooks already, which is the most")
    values: dict[str, Any] = {"channel": None, "project_id": None, **given}
    values |= {
        "id": id_,
        "space_id": caller.space_id,
        "events": events,
        "scopes": scopes,
        "from_seq": from_seq,
        "disabled": None,
        "failing_since": None,
    }
    values |= {"servers": None if caller.servers is None else sorted(caller.servers), "revision": 0, "created_at": now, "updated_at": now}
    values |= {"sealed_url": keeper.seal(id_, "url", values.pop("url")), "sealed_secret": keeper.seal(id_, "secret", secret)}
    await store.insert_webhook(uow, {**values, "sealed_previous": None, "previous_until": None})
    made = await get_webhook(uow.connection, caller, id_, keeper)
    _emit(uow, WEBHOOK_CREATED, made)
    uow.audit(deed(WEBHOOK_CREATED, None, made))
    return made


async def list_webhooks(connection: AsyncConnection, caller: Caller, keeper: Keeper, *, limit: int, offset: int) -> Page[Webhook]:
    """The webhooks of the caller's space that are no wider than the caller, oldest first."""
    rows = [row for row in await store.list_webhooks(connection, caller.space_id) if _within(caller, row)]
    return Page([keeper.webhook(row) for row in rows[offset : offset + limit]], len(rows), limit, offset)


async def get_webhook(connection: AsyncConnection, caller: Caller, webhook_id: str, keeper: Keeper) -> Webhook:
    """One of them. Raises NotFound."""
    return keeper.webhook(await get_row(connection, caller, webhook_id))


async def get_row(connection: AsyncConnection, caller: Caller, webhook_id: str, *, lock: bool = False) -> RowMapping:
    """Its row. Raises NotFound, for a wider one too."""
    row = await store.find_webhook(connection, webhook_id, caller.space_id, lock=lock)
    if row is None or not _within(caller, row):
        raise NotFound(MISSING)
    return row


async def update_webhook(uow: UnitOfWork, caller: Caller, webhook_id: str, body: WebhookUpdate, keeper: Keeper) -> Webhook:
    """Change what is given. Raises NotFound, Invalid, Forbidden."""
    webhook = keeper.webhook(await get_row(uow.connection, caller, webhook_id, lock=True))
    wanted = _wanted(webhook, body, keeper)
    changed = {name: value for name, value in wanted.items() if value != _plain(getattr(webhook, name))}
    if not changed:
        return webhook
    columns = dict(changed)
    if "events" in changed:
        columns["scopes"] = scopes_for(caller, changed["events"])
    if "url" in columns:
        columns["sealed_url"] = keeper.seal(webhook_id, "url", columns.pop("url"))
    if changed.get("active"):
        columns |= {"from_seq": await store.begin(uow, caller.space_id), "disabled": None, "failing_since": None}
    if "ordered" in changed:
        await store.line_up(uow, webhook_id, ordered=changed["ordered"])
    await store.update_webhook(uow, webhook_id, {**columns, "updated_at": uow.clock.time()})
    now_is = await get_webhook(uow.connection, caller, webhook_id, keeper)
    _emit(uow, WEBHOOK_UPDATED, now_is, changed=sorted(changed))
    uow.audit(deed(WEBHOOK_UPDATED, webhook, now_is))
    return now_is


def _wanted(webhook: Webhook, body: WebhookUpdate, keeper: Keeper) -> dict[str, Any]:
    values: dict[str, Any] = {name: value for name in ("active", "ordered", "description") if (value := getattr(body, name)) is not None}
    if body.url is not None and body.url != shown(webhook):  # as it is shown it says: leave it
        _require_url("url", body.url, keeper)
        values["url"] = body.url
    if body.events is not None:
        values["events"] = require_known(body.events)
    if "rate_per_minute" in body.model_fields_set:
        values["rate_per_minute"] = body.rate_per_minute
    return values


async def delete_webhook(uow: UnitOfWork, caller: Caller, webhook_id: str, keeper: Keeper) -> None:
    """It is told of nothing more, and what it was told of goes. Raises NotFound."""
    webhook = keeper.webhook(await get_row(uow.connection, caller, webhook_id, lock=True))
    await store.delete_webhook(uow, webhook_id)
    _emit(uow, WEBHOOK_DELETED, webhook)
    uow.audit(deed(WEBHOOK_DELETED, webhook, replace(webhook, active=False)))


async def rotate_secret(uow: UnitOfWork, caller: Caller, webhook_id: str, body: SecretRotate, keeper: Keeper) -> tuple[Webhook, str | None]:
    """A new secret, told when it was generated here; the one before signs beside it for the overlap. Raises NotFound, Invalid."""
    _require_secret(body.secret)
    row = await get_row(uow.connection, caller, webhook_id, lock=True)
    before, _ = keeper.secrets(row)
    if body.secret == before:
        raise Invalid("secret", "The 'secret' field is the secret that it has", MASK)
    secret = body.secret or generate_secret()
    values: dict[str, Any] = {"sealed_secret": keeper.seal(webhook_id, "secret", secret), "sealed_previous": None, "previous_until": None}
    if body.overlap_seconds:
        values["sealed_previous"] = keeper.seal(webhook_id, "previous", before)
        values["previous_until"] = uow.clock.time() + body.overlap_seconds
    await store.update_webhook(uow, webhook_id, {**values, "updated_at": uow.clock.time()})
    rotated = await get_webhook(uow.connection, caller, webhook_id, keeper)
    _emit(uow, WEBHOOK_UPDATED, rotated, changed=["secret"])
    plain = audited(rotated)
    was, now_is = plain | {"secret": Hidden(before)}, plain | {"secret": Hidden(secret)}
    uow.audit(Deed(WEBHOOK_UPDATED, "webhook", rotated.id, shown(rotated), rotated.space_id, before=was, after=now_is))
    return rotated, None if body.secret else secret


def shown(webhook: Webhook) -> str:
    """Its address as it may be seen."""
    return shown_url(webhook.url, whole_path=webhook.format == "webhook")


def deed(action: str, before: Webhook | None, after: Webhook, note: Mapping[str, Any] | None = None) -> Deed:
    """What was done to a webhook, for the audit."""
    was = audited(before) if before else {}
    return Deed(action, "webhook", after.id, shown(after), after.space_id, before=was, after=audited(after), note=note or {})


def audited(webhook: Webhook) -> dict[str, Any]:
    """The webhook as the audit compares it."""
    names = ("events", "active", "ordered", "format", "channel", "description", "rate_per_minute", "disabled")
    fields = {name: _plain(getattr(webhook, name)) for name in names}
    ends_at = webhook.previous_until
    return fields | {"url": Hidden(webhook.url, shown(webhook)), "previous_until": None if ends_at is None else rfc3339(ends_at)}


def told(webhook: Webhook, **more: Any) -> WebhookChanged:
    """What events say of it, with `more` of what `WebhookChanged` may hold."""
    data: WebhookChanged = {"webhook_id": webhook.id, "url": shown(webhook)}
    return {**data, **more}  # type: ignore[typeddict-item]


def _emit(uow: UnitOfWork, name: str, webhook: Webhook, **more: Any) -> None:
    uow.emit(name, space_id=webhook.space_id, data=told(webhook, **more))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _within(caller: Caller, row: RowMapping) -> bool:
    servers = row["servers"]
    reached = caller.servers is None or (servers is not None and caller.servers.issuperset(servers))
    return reached and caller.scopes.issuperset(row["scopes"])


def _require_url(field: str, url: str, keeper: Keeper) -> None:
    if defect := url_defect(url, keeper.allowed):
        raise Invalid(field, f"The '{field}' field is invalid: {defect}", MASK)


def _require_secret(secret: str | None) -> None:
    if secret is not None and (defect := secret_defect(secret)):
        raise Invalid("secret", f"The 'secret' field is invalid: {defect}", MASK)
