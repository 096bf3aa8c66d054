"""Rules of alerts: what to watch, from where on, and whom to tell. `usage.watch` looks at them every minute."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.tables import api_key, membership, person, server
from plughub.db.unit_of_work import UnitOfWork
from plughub.db.usage_tables import alert
from plughub.events.catalogue import ALERT_CREATED, ALERT_DELETED, ALERT_RESOLVED, ALERT_UPDATED, AlertChanged
from plughub.kit.caller import Caller
from plughub.kit.errors import AlertNotFound, Conflict, Forbidden, Invalid
from plughub.kit.ids import new_id, parse_public_id
from plughub.kit.pagination import Page

Metric = Literal["calls", "error_rate", "latency_p95_ms", "limit_share", "servers_down"]
Channel = Literal["webhook", "notification", "email"]
MOST: Final = 100
HOUR_S = 3_600
# Shares, which are more than 1 never.
_SHARES = ("error_rate",)
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00]*$")]
Id = Annotated[str, StringConstraints(max_length=100)]
Window = Annotated[int, Field(ge=60, le=86_400, description="Seconds")]
Threshold = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Email = Annotated[str, StringConstraints(min_length=3, max_length=254, strip_whitespace=True, to_lower=True)]


class AlertCreate(BaseModel):
    """`POST /api/alerts`: fires when `metric` over the last `window` seconds is `threshold` or more."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metric: Metric
    threshold: Threshold
    window: Window = 300
    channel: Channel = "webhook"
    name: Name | None = None
    server: Id | None = Field(
        None, validation_alias=AliasChoices("server", "server_uuid", "serverUuid"), description="Of this server alone"
    )
    key: Id | None = Field(None, validation_alias=AliasChoices("key", "key_id", "keyId"), description="Of this key alone")
    email: Email | None = Field(None, description="Of a member, for the channel `email`")
    enabled: bool = True


class AlertUpdate(BaseModel):
    """`PATCH /api/alerts/{id}`: what is not given stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metric: Metric | None = None
    threshold: Threshold | None = None
    window: Window | None = None
    channel: Channel | None = None
    name: Name | None = None
    server: Id | None = Field(None, validation_alias=AliasChoices("server", "server_uuid", "serverUuid"))
    key: Id | None = Field(None, validation_alias=AliasChoices("key", "key_id", "keyId"))
    email: Email | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule and how it stands: `firing` since `since_at`, when the metric was `value`."""

    id: str
    space_id: str
    name: str
    metric: Metric
    threshold: float
    window_s: int
    server_id: str | None
    key_id: str | None
    channel: Channel
    email: str | None
    enabled: bool
    firing: bool
    since_at: float | None
    value: float | None
    created_at: float
    updated_at: float


async def list_alerts(connection: AsyncConnection, caller: Caller, *, limit: int, offset: int) -> Page[Alert]:
    """The alerts that the caller may see, oldest first."""
    conditions = _own(caller)
    total = (await connection.execute(select(func.count()).select_from(alert).where(*conditions))).scalar_one()
    query = select(alert).where(*conditions).order_by(alert.c.created_at, alert.c.id).limit(limit).offset(offset)
    return Page([_alert(row) for row in (await connection.execute(query)).mappings()], total, limit, offset)


async def get_alert(connection: AsyncConnection, caller: Caller, alert_id: str) -> Alert:
    """Raises AlertNotFound."""
    row = (await connection.execute(select(alert).where(alert.c.id == alert_id, *_own(caller)))).mappings().first()
    if row is None:
        raise AlertNotFound
    return _alert(row)


async def create_alert(uow: UnitOfWork, caller: Caller, body: AlertCreate, *, mails: bool) -> Alert:
    """A new rule. Raises Invalid, Forbidden (of more than the caller's servers), Conflict (there are MOST). `mails`: mail can be sent."""
    count = select(func.count()).select_from(alert).where(alert.c.space_id == caller.space_id)
    if (await uow.execute(count)).scalar_one() >= MOST:
        raise Conflict(f"An environment may have {MOST} alerts")
    now = uow.clock.time()
    made = Alert(
        id=new_id(),
        space_id=caller.space_id,
        name=body.name or body.metric,
        metric=body.metric,
        threshold=body.threshold,
        window_s=body.window,
        server_id=await _server(uow, caller, body.server),
        key_id=await _key(uow, caller, body.key),
        channel=body.channel,
        email=body.email,
        enabled=body.enabled,
        firing=False,
        since_at=None,
        value=None,
        created_at=now,
        updated_at=now,
    )
    await _check(uow, caller, made, mails=mails)
    await uow.execute(insert(alert).values(**{name: getattr(made, name) for name in Alert.__slots__}))
    emit(uow, ALERT_CREATED, made, None)
    uow.audit(Deed(ALERT_CREATED, "alert", made.id, made.name, made.space_id, after=_audited(made)))
    return made


async def update_alert(uow: UnitOfWork, caller: Caller, alert_id: str, body: AlertUpdate, *, mails: bool) -> Alert:
    """Change a rule; one that fires is over with that, and may fire anew. Raises as `create_alert`, and AlertNotFound."""
    before = await get_alert(uow.connection, caller, alert_id)
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    for name in given.keys() - {"server", "key", "email"}:
        if given[name] is None:
            raise Invalid(name, f"The '{name}' field must not be null")
    values = {"window_s" if name == "window" else name: given[name] for name in given if name not in ("server", "key")}
    if "server" in given:
        values["server_id"] = await _server(uow, caller, body.server)
    if "key" in given:
        values["key_id"] = await _key(uow, caller, body.key)
    after = replace(before, **values, updated_at=uow.clock.time())
    await _check(uow, caller, after, mails=mails)
    if before.firing:
        emit(uow, ALERT_RESOLVED, before, before.value, reason="changed")
        after = replace(after, firing=False, since_at=uow.clock.time())
    await uow.execute(update(alert).where(alert.c.id == alert_id).values(**{name: getattr(after, name) for name in Alert.__slots__}))
    emit(uow, ALERT_UPDATED, after, None)
    uow.audit(Deed(ALERT_UPDATED, "alert", after.id, after.name, after.space_id, before=_audited(before), after=_audited(after)))
    return after


async def delete_alert(uow: UnitOfWork, caller: Caller, alert_id: str) -> None:
    """Remove a rule; one that fires is over with that. Raises AlertNotFound."""
    before = await get_alert(uow.connection, caller, alert_id)
    await uow.execute(delete(alert).where(alert.c.id == alert_id))
    if before.firing:
        emit(uow, ALERT_RESOLVED, before, before.value, reason="deleted")
    emit(uow, ALERT_DELETED, before, None)
    uow.audit(Deed(ALERT_DELETED, "alert", before.id, before.name, before.space_id, before=_audited(before)))


def emit(uow: UnitOfWork, name: str, of: Alert, value: float | None, *, reason: Literal["changed", "deleted"] | None = None) -> None:
    """An event of an alert in the log, where webhooks and notifications hear of it."""
    data: AlertChanged = {
        "alert_id": of.id,
        "name": of.name,
        "metric": of.metric,
        "threshold": of.threshold,
        "window": of.window_s,
        "value": value,
        "channel": of.channel,
    }
    if of.server_id is not None:
        data["server_uuid"] = of.server_id
    if of.key_id is not None:
        data["key_id"] = of.key_id
    if reason is not None:
        data["reason"] = reason
    uow.emit(name, space_id=of.space_id, server_id=of.server_id, key_id=of.key_id, data=data)


async def is_member(connection: AsyncConnection, organization_id: str, email: str) -> bool:
    """Whether an address is that of a member: nobody else gets mail."""
    query = select(person.c.id).join(membership, membership.c.person_id == person.c.id)
    found = await connection.execute(query.where(membership.c.organization_id == organization_id, person.c.email == email))
    return found.first() is not None


async def _check(uow: UnitOfWork, caller: Caller, rule: Alert, *, mails: bool) -> None:
    if rule.server_id is None and caller.servers is not None:
        raise Forbidden("A key with a server list may watch servers of its list alone", reason="server_list")
    if rule.metric in _SHARES and rule.threshold > 1:
        raise Invalid("threshold", f"The 'threshold' field of {rule.metric} is a share, from 0 to 1", rule.threshold)
    if rule.metric == "limit_share" and rule.server_id is not None:
        raise Invalid("server", "The 'server' field is not possible here: servers have no limit of calls")
    if rule.metric == "limit_share" and rule.window_s != HOUR_S:
        raise Invalid("window", f"The 'window' field of limit_share is {HOUR_S}: limits are of an hour", rule.window_s)
    if rule.metric == "servers_down" and rule.key_id is not None:
        raise Invalid("key", "The 'key' field is not possible here: a server is down for every key")
    if rule.channel != "email":
        return
    if not mails:
        raise Invalid("channel", "The 'channel' field cannot be email: this hub sends no mail", rule.channel)
    if rule.email is None:
        raise Invalid("email", "The 'email' field is required for the channel email")
    if not await is_member(uow.connection, caller.organization_id, rule.email):
        raise Invalid("email", "The 'email' field is not the address of a member", rule.email)


async def _server(uow: UnitOfWork, caller: Caller, text: str | None) -> str | None:
    if text is None:
        return None
    server_id = parse_public_id("mcp", text)
    query = select(server.c.id).where(server.c.id == server_id, server.c.space_id == caller.space_id)
    if server_id is None or not caller.granted(server_id) or (await uow.execute(query)).first() is None:
        raise Invalid("server", "The 'server' field is no server that this caller may use", text)
    return server_id


async def _key(uow: UnitOfWork, caller: Caller, text: str | None) -> str | None:
    if text is None:
        return None
    key_id = parse_public_id("key", text)
    query = select(api_key.c.id).where(api_key.c.id == key_id, api_key.c.space_id == caller.space_id)
    if key_id is None or (await uow.execute(query)).first() is None:
        raise Invalid("key", "The 'key' field is no key of this environment", text)
    return key_id


def _own(caller: Caller) -> tuple[ColumnElement[bool], ...]:
    if caller.servers is None:
        return (alert.c.space_id == caller.space_id,)
    return (alert.c.space_id == caller.space_id, alert.c.server_id.in_(caller.servers))


def _audited(of: Alert) -> dict[str, Any]:
    fields = ("name", "metric", "threshold", "window_s", "server_id", "key_id", "channel", "email", "enabled")
    return {name: getattr(of, name) for name in fields}


def _alert(row: RowMapping) -> Alert:
    return Alert(**row)
