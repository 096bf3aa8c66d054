"""Rules of API keys. Never wider than its maker, and nobody manages a key that is wider than their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import api_key, oauth_grant, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import KEY_CREATED, KEY_REVOKED, KEY_SUSPENDED, KEY_UPDATED, KeyChanged
from plughub.keys import store
from plughub.keys.schemas import Key, KeyCreate, KeyUpdate
from plughub.keys.secret import PREFIX_LENGTH, generate
from plughub.kit.caller import DEFAULT_SCOPES, SCOPES, Caller, expand_scopes
from plughub.kit.clock import parse_rfc3339
from plughub.kit.crypto import keyed_digest
from plughub.kit.errors import Conflict, Forbidden, Invalid, KeyNotFound, KeyRevoked, TokenRefused
from plughub.kit.ids import new_id, parse_public_id
from plughub.kit.pagination import Page

StatusFilter = Literal["active", "suspended", "revoked", "expired"]


@dataclass(frozen=True, slots=True)
class Peppers:
    """The server's secrets for digests of keys, by version. New keys use the newest; keys of older ones stay valid."""

    ring: Mapping[int, bytes]

    @property
    def current(self) -> int:
        """The newest version."""
        return max(self.ring)


async def create_key(uow: UnitOfWork, caller: Caller, body: KeyCreate, peppers: Peppers) -> tuple[Key, str]:
    """A new key and its secret, which is not stored and never told again.

    What is left out is the default, cut to what the caller has. Raises Forbidden for anything wider than the caller, Invalid.
    """
    given = body.model_fields_set
    now = uow.clock.time()
    environment = body.environment or caller.environment
    space_id = await _space_of(uow, caller, environment)
    limit = await _expiry_of_maker(uow, caller)
    scopes = DEFAULT_SCOPES & caller.scopes if body.scopes is None else permitted_scopes(caller, body.scopes)
    servers = await _granted(uow, caller, space_id, body.servers)
    if "expires_at" in given:
        expires_at = _expiry(body.expires_at, now, limit)
    else:
        expires_at = limit
    secret = generate(body.kind, environment)
    key = Key(
        id=new_id(),
        organization_id=caller.organization_id,
        space_id=space_id,
        name=body.name,
        description=body.description or "",
        kind=body.kind,
        environment=environment,
        prefix=secret[:PREFIX_LENGTH],
        last4=secret[-4:],
        scopes=tuple(sorted(scopes)),
        servers=servers,
        labels=body.labels or {},
        status="active",
        expires_at=expires_at,
        created_at=now,
        created_by=caller.user_id or caller.key_id or None,
        revoked_at=None,
    )
    values = {name: getattr(key, name) for name in Key.__slots__ if name != "servers"}
    values["scopes"] = list(key.scopes)
    values["pepper_version"] = peppers.current
    values["digest"] = keyed_digest(peppers.ring[peppers.current], secret)
    await store.insert_key(uow, values, servers)
    _emit(uow, KEY_CREATED, key)
    return key, secret


async def list_keys(
    connection: AsyncConnection, caller: Caller, *, limit: int, offset: int, status: StatusFilter | None = None, now: float = 0.0
) -> Page[Key]:
    """The keys of the caller's space, oldest first; revoked ones stay in the list. `now` is needed for `active` and `expired`."""
    conditions = (*_status_condition(status, now), *_own(caller))
    rows, total = await store.list_keys(connection, caller.space_id, conditions, limit, offset)
    grants = await store.list_grants(connection, [row.id for row in rows if not row.all_servers])
    return Page([_key(row, grants) for row in rows], total, limit, offset)


async def get_key(connection: AsyncConnection, caller: Caller, key_id: str) -> Key:
    """A key of the caller's space, in any state. Raises KeyNotFound."""
    row = await store.find_key(connection, key_id, caller.space_id)
    if row is None or (_sees_own_alone(caller) and row.created_by != caller.user_id):
        raise KeyNotFound
    return _key(row, {} if row.all_servers else await store.list_grants(connection, [row.id]))


async def update_key(uow: UnitOfWork, caller: Caller, key_id: str, body: KeyUpdate) -> Key:
    """Change what is given. Raises KeyNotFound, Forbidden (wider than the caller, before or after), Invalid, Conflict (revoked)."""
    key = await get_key(uow.connection, caller, key_id)
    _require_as_wide(caller, key)
    if key.status == "revoked":
        raise Conflict("API key has been revoked")
    given = body.model_fields_set
    values: dict[str, Any] = {}
    if body.name is not None:
        values["name"] = body.name
    if "description" in given:
        values["description"] = body.description or ""
    if "labels" in given:
        values["labels"] = body.labels or {}
    if "expires_at" in given:
        values["expires_at"] = _expiry(body.expires_at, uow.clock.time(), await _expiry_of_maker(uow, caller))
    if body.scopes is not None:
        values["scopes"] = sorted(permitted_scopes(caller, body.scopes))
    if body.status is not None:
        values["status"] = body.status
    changed = {name: value for name, value in values.items() if value != _stored(key, name)}
    await store.update_key(uow, key_id, changed)
    servers = key.servers
    if body.servers is not None:
        servers = await _granted(uow, caller, key.space_id, body.servers)
        await store.replace_grant(uow, key_id, servers)
    now_is = replace(key, **{**changed, "servers": servers, "scopes": tuple(changed.get("scopes", key.scopes))})
    names = sorted(changed) + (["servers"] if servers != key.servers else [])
    _emit_changes(uow, now_is, names)
    return now_is


async def revoke_key(uow: UnitOfWork, caller: Caller, key_id: str) -> Key:
    """Revoke for good; revoking again changes nothing. Raises KeyNotFound, Forbidden (wider than the caller)."""
    key = await get_key(uow.connection, caller, key_id)
    _require_as_wide(caller, key)
    if key.status == "revoked":
        return key
    revoked = replace(key, status="revoked", revoked_at=uow.clock.time())
    await store.update_key(uow, key_id, {"status": "revoked", "revoked_at": revoked.revoked_at})
    _emit(uow, KEY_REVOKED, revoked)
    return revoked


def _sees_own_alone(caller: Caller) -> bool:
    """A person who is no administrator knows of the keys that they made, and of no others."""
    return caller.user_id is not None and "admin" not in caller.scopes


def _own(caller: Caller) -> Sequence[ColumnElement[bool]]:
    return (api_key.c.created_by == caller.user_id,) if _sees_own_alone(caller) else ()


def _stored(key: Key, name: str) -> Any:
    return list(key.scopes) if name == "scopes" else getattr(key, name)


def _emit_changes(uow: UnitOfWork, key: Key, names: list[str]) -> None:
    suspended = "status" in names and key.status == "suspended"
    if suspended:
        _emit(uow, KEY_SUSPENDED, key)
    if rest := [name for name in names if not (suspended and name == "status")]:
        _emit(uow, KEY_UPDATED, key, rest)


def _emit(uow: UnitOfWork, name: str, key: Key, changed: list[str] | None = None) -> None:
    data: KeyChanged = {
        "key_id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "kind": key.kind,
        "environment": key.environment,
    }
    if changed:
        data["changed"] = changed
    uow.emit(name, space_id=key.space_id, key_id=key.id, data=data)


async def _space_of(uow: UnitOfWork, caller: Caller, environment: str) -> str:
    """The space a new key belongs to. A live key without a server list may make test keys; nothing leads from test to live."""
    if environment == caller.environment:
        return caller.space_id
    if caller.environment != "live" or caller.servers is not None:
        raise Forbidden("A key cannot make keys for the other environment", reason="other_environment")
    query = select(space.c.id).where(space.c.organization_id == caller.organization_id, space.c.environment == environment)
    found: str = (await uow.execute(query)).scalar_one()
    return found


async def _expiry_of_maker(uow: UnitOfWork, caller: Caller) -> float | None:
    if caller.credential == "token":
        query = select(oauth_grant.c.expires_at).where(oauth_grant.c.id == caller.key_id)
        ends_at: float | None = (await uow.execute(query)).scalar()
        if ends_at is None:
            raise TokenRefused
        return ends_at
    if not caller.key_id or caller.credential != "key":
        return None
    row = await store.find_key(uow.connection, caller.key_id, caller.space_id)
    if row is None or row.status != "active":
        # Revoked between its admission and this transaction.
        raise KeyRevoked
    expires_at: float | None = row.expires_at
    return expires_at


def permitted_scopes(caller: Caller, wanted: Sequence[str]) -> frozenset[str]:
    """The wanted scopes when the caller has them all. Raises Invalid for unknown ones, Forbidden for wider ones."""
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown:
        raise Invalid("scopes", f"Unknown scope '{unknown[0][:50]}'", wanted)
    wider = sorted(set(wanted) - caller.scopes)
    if wider:
        raise Forbidden("A key cannot give more than it has", required_scope=wider[0], reason="wider_than_maker")
    return frozenset(wanted)


async def _granted(uow: UnitOfWork, caller: Caller, space_id: str, wanted: Literal["*"] | Sequence[str] | None) -> tuple[str, ...] | None:
    if wanted is None:
        return (
            None if caller.servers is None else tuple(sorted(await store.list_known_servers(uow.connection, space_id, [*caller.servers])))
        )
    if wanted == "*":
        if caller.servers is not None:
            raise Forbidden("A key with a server list cannot give all servers", reason="wider_than_maker")
        return None
    ids = [parse_public_id("mcp", server_id) for server_id in wanted]
    known = await store.list_known_servers(uow.connection, space_id, [id_ for id_ in ids if id_])
    for text, id_ in zip(wanted, ids, strict=True):
        if id_ not in known:
            raise Invalid("servers", f"Server '{text}' not found", list(wanted))
    if caller.servers is not None and not known <= caller.servers:
        raise Forbidden("A key cannot give servers that it has no access to", reason="wider_than_maker")
    return tuple(sorted(known))


def _expiry(text: str | None, now: float, limit: float | None) -> float | None:
    expires_at = None
    if text is not None:
        expires_at = parse_rfc3339(text)
        if expires_at is None:
            raise Invalid("expires_at", "The 'expires_at' field must be an RFC 3339 time with an offset, like 2030-01-31T12:00:00Z", text)
        if expires_at <= now:
            raise Invalid("expires_at", "The 'expires_at' field must be in the future", text)
    if limit is not None and (expires_at is None or expires_at > limit):
        raise Forbidden("A key cannot make keys that live longer than it does", reason="wider_than_maker")
    return expires_at


def _require_as_wide(caller: Caller, key: Key) -> None:
    if key.id == caller.key_id:
        return
    wider_scopes = expand_scopes(frozenset(key.scopes)) - caller.scopes
    wider_servers = caller.servers is not None and (key.servers is None or not caller.servers.issuperset(key.servers))
    if wider_scopes or wider_servers:
        raise Forbidden("This key is wider than the one you use", reason="wider_than_caller")


def _status_condition(status: StatusFilter | None, now: float) -> Sequence[ColumnElement[bool]]:
    alive = or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > now)
    conditions: dict[StatusFilter | None, Sequence[ColumnElement[bool]]] = {
        None: (),
        "active": (api_key.c.status == "active", alive),
        "suspended": (api_key.c.status == "suspended",),
        "revoked": (api_key.c.status == "revoked",),
        "expired": (api_key.c.status != "revoked", api_key.c.expires_at <= now),
    }
    return conditions[status]


def _key(row: Row[Any], grants: Mapping[str, Sequence[str]]) -> Key:
    values = dict(row._mapping)
    servers = None if values.pop("all_servers") else tuple(grants[row.id])
    return Key(**{**values, "scopes": tuple(values["scopes"]), "servers": servers})
