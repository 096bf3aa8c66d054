"""API keys over HTTP, in both dialects (CONTRACT section 4)."""

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import (
    KeyCreated,
    KeyDetail,
    KeyList,
    KeyOut,
    KeyRevoked,
    KeyRotated,
    LeakJudged,
    Success,
    SuccessPage,
    V1Key,
    V1KeyCreated,
    V1KeyDetail,
)
from plughub.api.reply import Offset, PageLimit, PageNumber, PerPage, public_or_404, reply, success
from plughub.door.routes import PUBLIC, Route
from plughub.events.key_figures import list_recent_calls
from plughub.keys import service
from plughub.keys.notices import rotation_due
from plughub.keys.of_people import email_of_maker
from plughub.keys.rotation import end_leaked
from plughub.keys.rotation import rotate_key as rotate
from plughub.keys.schemas import Description, Key, KeyCreate, KeyRotate, KeyUpdate, Leak, LeakReport, Name, Previous, ServerIds
from plughub.keys.service import StatusFilter
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import InvalidPermissions, KeyNotFound
from plughub.kit.ids import public_id
from plughub.usage.flags import Flag, list_flags
from plughub.usage.reading import KeyRequests, count_requests

# A key made through `/v1` is for calling tools: the documents give it no scopes to choose.
V1_SCOPES = ["execute:tools", "read:servers"]
_NOTHING = KeyRequests()
# Numbers of flags that are times.
_TIMES = ("first_seen_at", "known_since", "unused_since")


class Permissions(BaseModel):
    """`"*"` = all present and future servers, or a list of ids."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mcps: Literal["*"] | ServerIds


def _well_formed(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The documents have an error of its own for permissions."""
    try:
        return check(given)
    except ValidationError as error:
        raise InvalidPermissions from error


GivenPermissions = Annotated[Permissions | None, WrapValidator(_well_formed)]


class V1KeyCreate(BaseModel):
    """The body of `POST /v1/api-keys`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    description: Description | None = None
    expires_at: str | None = None
    permissions: GivenPermissions = None


class V1KeyUpdate(BaseModel):
    """The body of `PATCH /v1/api-keys/{id}`: what is not given stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    description: Description | None = None
    expires_at: str | None = None
    permissions: GivenPermissions = None
    status: Literal["active", "suspended"] | None = None


Status = Annotated[StatusFilter | None, Query(description="active, suspended, revoked or expired; without it all")]
V1Status = Annotated[Literal["active", "revoked", "expired", "suspended", "all"], Query()]


async def list_keys(
    caller: CallerDep, connection: ReadDep, hub: HubDep, limit: PageLimit = 20, offset: Offset = 0, status: Status = None
) -> Response:
    """The keys of the caller's organisation and environment, oldest first; revoked ones stay in the list."""
    now = hub.clock.time()
    page = await service.list_keys(connection, caller, limit=limit, offset=offset, status=status, now=now)
    flags = await list_flags(connection, [key.id for key in page.items], now)
    keys = [shown(key, now, flags.get(key.id, ())) for key in page.items]
    return reply({"keys": keys, "total": page.total, "limit": limit, "offset": offset})


async def create_key(caller: CallerDep, uow: UowDep, hub: HubDep, body: KeyCreate) -> Response:
    """Make a key. Its secret is in this answer and nowhere else. Never wider than the key that makes it."""
    key, secret = await service.create_key(uow, caller, body, hub.peppers)
    return reply({**shown(key, hub.clock.time()), "key": secret}, 201)


async def get_key(caller: CallerDep, connection: ReadDep, hub: HubDep, key_id: str) -> Response:
    """One key, in any state, and where it was used from."""
    key = await service.get_key(connection, caller, _id(key_id))
    addresses = [
        {"address": seen.address, "first_seen_at": rfc3339(seen.first_seen_at), "last_seen_at": rfc3339(seen.last_seen_at)}
        for seen in await service.list_addresses(connection, key)
    ]
    return reply({**await _flagged(connection, key, hub.clock.time()), "addresses": addresses})


async def update_key(caller: CallerDep, uow: UowDep, hub: HubDep, key_id: str, body: KeyUpdate) -> Response:
    """Change a key; `status` suspends it (403 from the next request on) or brings it back."""
    return reply(await _flagged(uow.connection, await service.update_key(uow, caller, _id(key_id), body), hub.clock.time()))


async def rotate_key(caller: CallerDep, uow: UowDep, hub: HubDep, key_id: str, body: KeyRotate) -> Response:
    """Give a key a new secret, shown this once; its id and rights stay. The old one works for the overlap, then it is a revoked key."""
    key, secret = await rotate(uow, caller, _id(key_id), body.overlap_seconds, hub.peppers)
    return reply({**await _flagged(uow.connection, key, hub.clock.time()), "key": secret, "previous": _previous(key.previous)})


async def revoke_key(caller: CallerDep, uow: UowDep, key_id: str) -> Response:
    """Revoke for good: refused from the next request on. The row stays."""
    return reply(_revoked(await service.revoke_key(uow, caller, _id(key_id))))


async def report_leaked(uow: UowDep, hub: HubDep, body: LeakReport) -> Response:
    """Report keys that were found in public: one, or a list as GitHub's secret scanning sends it. Whoever can show a key may end it.

    A key is revoked at once. A secret that a rotation has replaced ends at once, with those before it, and its key lives on.
    """
    reports = body if isinstance(body, list) else [body]
    known = await end_leaked(uow, {report.token: report.url for report in reports}, hub.peppers)
    return reply([_judged(report, report.token in known) for report in reports])


async def v1_list_keys(
    caller: CallerDep, connection: ReadDep, hub: HubDep, page: PageNumber = 1, per_page: PerPage = 20, status: V1Status = "all"
) -> Response:
    """The keys, in pages."""
    now, wanted = hub.clock.time(), None if status == "all" else status
    found = await service.list_keys(connection, caller, limit=per_page, offset=(page - 1) * per_page, status=wanted, now=now)
    asked = await count_requests(connection, caller, [key.id for key in found.items], now)
    return success([v1_shown(key, now, asked[key.id]) for key in found.items], page=page, per_page=per_page, total=found.total)


async def v1_create_key(caller: CallerDep, uow: UowDep, hub: HubDep, body: V1KeyCreate) -> Response:
    """Make a key that reads servers and calls tools."""
    fields: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"permissions"})
    scopes = [scope for scope in V1_SCOPES if scope in caller.scopes]
    servers = body.permissions.mcps if body.permissions is not None else None
    key, secret = await service.create_key(uow, caller, KeyCreate(**fields, scopes=scopes, servers=servers), hub.peppers)
    return success({**v1_shown(key, hub.clock.time()), "key": secret}, 201)


async def v1_get_key(caller: CallerDep, connection: ReadDep, hub: HubDep, key_id: str) -> Response:
    """One key, in any state, with who made it and its newest calls."""
    key = await service.get_key(connection, caller, _id(key_id))
    counted = await _v1_counted(connection, caller, key, hub.clock.time())
    return success({**counted, **await _v1_more(connection, caller, key)})


async def v1_update_key(caller: CallerDep, uow: UowDep, hub: HubDep, key_id: str, body: V1KeyUpdate) -> Response:
    """Change a key, its permissions too."""
    fields: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"permissions"})
    if body.permissions is not None:
        fields["servers"] = body.permissions.mcps
    key = await service.update_key(uow, caller, _id(key_id), KeyUpdate(**fields))
    return success(await _v1_counted(uow.connection, caller, key, hub.clock.time()))


async def v1_revoke_key(caller: CallerDep, uow: UowDep, hub: HubDep, key_id: str) -> Response:
    """Revoke for good. A key does not revoke itself while it is the only one that works."""
    await service.require_another(uow.connection, caller, _id(key_id), hub.clock.time())
    return success(_revoked(await service.revoke_key(uow, caller, _id(key_id))))


async def _flagged(connection: AsyncConnection, key: Key, now: float) -> dict[str, Any]:
    return shown(key, now, (await list_flags(connection, [key.id], now)).get(key.id, ()))


def shown_flag(flag: Flag) -> dict[str, Any]:
    """A flag of a key; the numbers that are times as times."""
    numbers = {name: rfc3339(value) if name in _TIMES and isinstance(value, int | float) else value for name, value in flag.numbers.items()}
    return {"flag": flag.flag, "raised_at": rfc3339(flag.raised_at), "numbers": numbers}


def shown(key: Key, now: float, flags: Sequence[Flag] = ()) -> dict[str, Any]:
    """The key as `/api` shows it."""
    return {
        "id": public_id("key", key.id),
        "name": key.name,
        "description": key.description,
        "prefix": key.prefix,
        "last4": key.last4,
        "kind": key.kind,
        "environment": key.environment,
        "scopes": list(key.scopes),
        "servers": "*" if key.servers is None else list(key.servers),
        "allowed_ips": None if key.allowed_ips is None else list(key.allowed_ips),
        "labels": key.labels,
        "rate_limit": key.rate_limit,
        "status": _status(key, now),
        "created_at": rfc3339(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "rotated_at": _time(key.rotated_at),
        "rotation_due": rotation_due(key, now),
        "last_used_at": _time(key.last_used_at),
        "last_used_ip": key.last_used_ip,
        "flags": [shown_flag(flag) for flag in flags],
        "previous": _previous(key.previous) if key.previous is not None and key.previous.valid_until > now else None,
    }


def _judged(report: Leak, known: bool) -> dict[str, str]:
    digest = b64encode(sha256(report.token.encode()).digest()).decode()
    return {"token_hash": digest, "token_type": report.type, "label": "true_positive" if known else "false_positive"}


def _previous(secret: Previous | None) -> dict[str, Any] | None:
    if secret is None:
        return None
    return {
        "prefix": secret.prefix,
        "valid_until": rfc3339(secret.valid_until),
        "last_used_at": _time(secret.last_used_at),
        "last_used_ip": secret.last_used_ip,
    }


async def _v1_counted(connection: AsyncConnection, caller: Caller, key: Key, now: float) -> dict[str, Any]:
    return v1_shown(key, now, (await count_requests(connection, caller, [key.id], now))[key.id])


def v1_shown(key: Key, now: float, asked: KeyRequests = _NOTHING) -> dict[str, Any]:
    """The key as `/v1` shows it."""
    servers = "*" if key.servers is None else [public_id("mcp", server_id) for server_id in key.servers]
    return {
        "id": public_id("key", key.id),
        "name": key.name,
        "description": key.description,
        "prefix": key.prefix,
        "status": _status(key, now),
        "created_at": rfc3339(key.created_at),
        "last_used": _time(key.last_used_at),
        "expires_at": _time(key.expires_at),
        "permissions": {"mcps": servers},
        "usage": {
            "total_requests": asked.total,
            "requests_today": asked.today,
            "requests_this_week": asked.week,
            "requests_this_month": asked.month,
        },
    }


async def _v1_more(connection: AsyncConnection, caller: Caller, key: Key) -> dict[str, Any]:
    email = await email_of_maker(connection, key)
    maker = None if key.created_by is None else {"id": public_id("key" if email is None else "user", key.created_by), "email": email}
    recent = [
        {
            "timestamp": rfc3339(call.at),
            "mcp_id": None if call.server_id is None else public_id("mcp", call.server_id),
            "tool": call.tool,
            "status": "error" if call.is_error else "success",
        }
        for call in await list_recent_calls(connection, caller, key.id)
    ]
    return {"created_by": maker, "recent_activity": recent}


def _status(key: Key, now: float) -> str:
    expired = key.status != "revoked" and key.expires_at is not None and key.expires_at <= now
    return "expired" if expired else key.status


def _revoked(key: Key) -> dict[str, Any]:
    return {"id": public_id("key", key.id), "status": "revoked", "revoked_at": _time(key.revoked_at)}


def _time(epoch_s: float | None) -> str | None:
    return None if epoch_s is None else rfc3339(epoch_s)


def _id(text: str) -> str:
    return public_or_404("key", text, KeyNotFound.message)


_API, _V1 = "/api/auth/keys", "/v1/api-keys"
# Whatever tells of keys is stored by nobody on the way.
_row = partial(Route, secret=True)
ROUTES = [
    _row("GET", _API, "read:keys", list_keys, "List keys", "Keys", output=KeyList),
    _row("POST", _API, "write:keys", create_key, "Create a key", "Keys", status=201, output=KeyCreated),
    _row("GET", _API + "/{key_id}", "read:keys", get_key, "Get a key", "Keys", output=KeyDetail),
    _row("PATCH", _API + "/{key_id}", "write:keys", update_key, "Change a key", "Keys", output=KeyOut),
    _row("DELETE", _API + "/{key_id}", "write:keys", revoke_key, "Revoke a key", "Keys", output=KeyRevoked),
    _row("POST", _API + "/{key_id}/rotate", "write:keys", rotate_key, "Rotate a key", "Keys", output=KeyRotated),
    _row("POST", _API + "/leaked", PUBLIC, report_leaked, "Report leaked keys", "Keys", output=list[LeakJudged]),
    _row("GET", _V1, "read:keys", v1_list_keys, "List keys", "API keys (v1)", "v1", output=SuccessPage[V1Key]),
    _row(
        "POST",
        _V1,
        "write:keys",
        v1_create_key,
        "Create a key",
        "API keys (v1)",
        "v1",
        status=201,
        output=Success[V1KeyCreated],
    ),
    _row("GET", _V1 + "/{key_id}", "read:keys", v1_get_key, "Get a key", "API keys (v1)", "v1", output=Success[V1KeyDetail]),
    _row("PATCH", _V1 + "/{key_id}", "write:keys", v1_update_key, "Change a key", "API keys (v1)", "v1", output=Success[V1Key]),
    _row("DELETE", _V1 + "/{key_id}", "write:keys", v1_revoke_key, "Revoke a key", "API keys (v1)", "v1", output=Success[KeyRevoked]),
]
