"""Rules of API keys. Never wider than its maker, and nobody manages a key that is wider than their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import Deed
from plughub.db.tables import api_key, oauth_grant, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import KEY_CREATED, KEY_REVOKED, KEY_SUSPENDED, KEY_UPDATED, KeyChanged
from plughub.keys import store
from plughub.keys.networks import read_networks, require_within, within
from plughub.keys.notices import days_told
from plughub.keys.schemas import Key, KeyCreate, KeyUpdate, Previous, RateLimit
from plughub.keys.secret import PREFIX_LENGTH, generate
from plughub.kit.caller import DEFAULT_SCOPES, NUMBERS, SCOPES, Caller, expand_scopes
from plughub.kit.clock import parse_rfc3339, rfc3339
from plughub.kit.crypto import keyed_digest
from plughub.kit.errors import Conflict, Forbidden, Invalid, KeyNotFound, KeyRevoked, OnlyKey, TokenRefused
from plughub.kit.ids import new_id, parse_public_id
from plughub.kit.pagination import Page

REVOKED = "API key has been revoked"
StatusFilter = Literal["active", "suspended", "revoked", "expired"]


@dataclass(frozen=True, slots=True)
class Peppers:
    """The server's secrets for digests of keys, by version. New keys use the newest; keys of older ones stay valid."""

    ring: Mapping[int, bytes]

    @property
    def current(self) -> int:
        """The newest version."""
        return max(self.ring)

    def digests(self, secret: str) -> list[bytes]:
        """The digests of a secret under every version, newest first."""
        return [keyed_digest(pepper, secret) for _, pepper in sorted(self.ring.items(), reverse=True)]


@dataclass(frozen=True, slots=True)
class Maker:
    """What a caller has that a key of theirs cannot exceed, besides what `Caller` tells."""

    expires_at: float | None
    allowed_ips: tuple[str, ...] | None = None


async def create_key(uow: UnitOfWork, caller: Caller, body: KeyCreate, peppers: Peppers) -> tuple[Key, str]:
    """A new key and its secret, which is not stored and never told again.

    What is left out is the default, cut to what the caller has. Raises Forbidden for anything wider than the caller, Invalid.
    """
    given = body.model_fields_set
    now = uow.clock.time()
    environment = body.environment or caller.environment
    space_id = await _space_of(uow, caller, environment)
    maker = await _maker(uow, caller)
    limit = maker.expires_at if maker is not None else None
    scopes = DEFAULT_SCOPES & caller.scopes if body.scopes is None else permitted_scopes(caller, body.scopes)
    servers = await _granted(uow, caller, space_id, body.servers)
    if "expires_at" in given:
        expires_at = _expiry(body.expires_at, now, limit)
    else:
        expires_at = limit
    allowed_ips = _addresses(maker, body.allowed_ips) if "allowed_ips" in given else _limit_of(maker)
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
        allowed_ips=allowed_ips,
        labels=body.labels or {},
        status="active",
        expires_at=expires_at,
        created_at=now,
        created_by=caller.user_id or caller.key_id or None,
        revoked_at=None,
        rate_limit=_rate_limit(caller, body.rate_limit),
    )
    values = {name: getattr(key, name) for name in Key.__slots__ if name not in ("servers", "previous")}
    values["scopes"] = list(key.scopes)
    values["allowed_ips"] = None if allowed_ips is None else list(allowed_ips)
    values["expiry_told"] = days_told(expires_at, now)
    values["pepper_version"] = peppers.current
    values["digest"] = keyed_digest(peppers.ring[peppers.current], secret)
    await store.insert_key(uow, values, servers)
    emit(uow, KEY_CREATED, key)
    uow.audit(deed(KEY_CREATED, None, key))
    return key, secret


async def list_keys(
    connection: AsyncConnection, caller: Caller, *, limit: int, offset: int, status: StatusFilter | None = None, now: float = 0.0
) -> Page[Key]:
    """The keys of the caller's space, oldest first; revoked ones stay in the list. `now` is needed for `active` and `expired`."""
    conditions = (*_status_condition(status, now), *_own(caller))
    rows, total = await store.list_keys(connection, caller.space_id, conditions, limit, offset)
    grants = await store.list_grants(connection, [row.id for row in rows if not row.all_servers])
    retired = await store.list_retired(connection, [row.id for row in rows if row.generation])
    return Page([_key(row, grants, retired) for row in rows], total, limit, offset)


async def get_key(connection: AsyncConnection, caller: Caller, key_id: str) -> Key:
    """A key of the caller's space, in any state. Raises KeyNotFound."""
    found = await find_key(connection, key_id, caller.space_id)
    if found is None or (_sees_own_alone(caller) and found.created_by != caller.user_id):
        raise KeyNotFound
    return found


async def find_key(connection: AsyncConnection, key_id: str, space_id: str) -> Key | None:
    """A key of a space, in any state."""
    row = await store.find_key(connection, key_id, space_id)
    if row is None:
        return None
    grants = {} if row.all_servers else await store.list_grants(connection, [row.id])
    return _key(row, grants, await store.list_retired(connection, [row.id]) if row.generation else {})


async def update_key(uow: UnitOfWork, caller: Caller, key_id: str, body: KeyUpdate) -> Key:
    """Change what is given. Raises KeyNotFound, Forbidden (wider than the caller, before or after), Invalid, Conflict (revoked)."""
    key = await get_key(uow.connection, caller, key_id)
    maker = await _maker(uow, caller)
    require_as_wide(caller, maker, key)
    if key.status == "revoked":
        raise Conflict(REVOKED)
    changed = {name: value for name, value in _wanted(uow, caller, maker, body).items() if value != _stored(key, name)}
    if "expires_at" in changed:
        changed["expiry_told"] = days_told(changed["expires_at"], uow.clock.time())
    await store.update_key(uow, key_id, changed)
    changed.pop("expiry_told", None)
    servers = key.servers
    if body.servers is not None:
        servers = await _granted(uow, caller, key.space_id, body.servers)
        await store.replace_grant(uow, key_id, servers)
    tuples = {name: tuple(changed[name]) for name in ("scopes", "allowed_ips") if changed.get(name) is not None}
    now_is = replace(key, **{**changed, **tuples, "servers": servers})
    names = sorted(changed) + (["servers"] if servers != key.servers else [])
    _emit_changes(uow, now_is, names)
    if names:
        uow.audit(deed(KEY_SUSPENDED if _suspends(now_is, names) else KEY_UPDATED, key, now_is))
    return now_is


def _wanted(uow: UnitOfWork, caller: Caller, maker: Maker | None, body: KeyUpdate) -> dict[str, Any]:
    """The columns that the body names, judged."""
    given = body.model_fields_set
    values: dict[str, Any] = {}
    if body.name is not None:
        values["name"] = body.name
    if "description" in given:
        values["description"] = body.description or ""
    if "labels" in given:
        values["labels"] = body.labels or {}
    if "expires_at" in given:
        values["expires_at"] = _expiry(body.expires_at, uow.clock.time(), maker.expires_at if maker is not None else None)
    if "allowed_ips" in given:
        allowed_ips = _addresses(maker, body.allowed_ips)
        values["allowed_ips"] = None if allowed_ips is None else list(allowed_ips)
    if body.scopes is not None:
        values["scopes"] = sorted(permitted_scopes(caller, body.scopes))
    if "rate_limit" in given:
        values["rate_limit"] = _rate_limit(caller, body.rate_limit)
    if body.status is not None:
        values["status"] = body.status
    return values


async def require_another(connection: AsyncConnection, caller: Caller, key_id: str, now: float) -> None:
    """Raises OnlyKey when the caller asks with this key, and its space has no other that works."""
    if caller.key_id != key_id:
        return
    works = (api_key.c.space_id == caller.space_id, api_key.c.id != key_id, *_status_condition("active", now))
    if await connection.scalar(select(api_key.c.id).where(*works).limit(1)) is None:
        raise OnlyKey(reason="only_key")


async def revoke_key(uow: UnitOfWork, caller: Caller, key_id: str) -> Key:
    """Revoke for good; revoking again changes nothing. Raises KeyNotFound, Forbidden (wider than the caller)."""
    key = await get_key(uow.connection, caller, key_id)
    require_as_wide(caller, await _maker(uow, caller), key)
    if key.status == "revoked":
        return key
    revoked = replace(key, status="revoked", revoked_at=uow.clock.time())
    await store.update_key(uow, key_id, {"status": "revoked", "revoked_at": revoked.revoked_at})
    emit(uow, KEY_REVOKED, revoked)
    uow.audit(deed(KEY_REVOKED, key, revoked))
    return revoked


async def list_addresses(connection: AsyncConnection, key: Key) -> Sequence[Row[Any]]:
    """Where the key was used from, the latest first: `address`, `first_seen_at`, `last_seen_at`."""
    return await store.list_addresses(connection, key.id)


def _sees_own_alone(caller: Caller) -> bool:
    """A person who is no administrator knows of the keys that they made, and of no others."""
    return caller.user_id is not None and "admin" not in caller.scopes


def _own(caller: Caller) -> Sequence[ColumnElement[bool]]:
    return (api_key.c.created_by == caller.user_id,) if _sees_own_alone(caller) else ()


def _stored(key: Key, name: str) -> Any:
    value = getattr(key, name)
    return list(value) if isinstance(value, tuple) else value


def _emit_changes(uow: UnitOfWork, key: Key, names: list[str]) -> None:
    if suspended := _suspends(key, names):
        emit(uow, KEY_SUSPENDED, key)
    if rest := [name for name in names if not (suspended and name == "status")]:
        more: dict[str, Any] = {"expires_at": key.expires_at} if "expires_at" in rest else {}
        emit(uow, KEY_UPDATED, key, changed=rest, **more)


def _suspends(key: Key, names: list[str]) -> bool:
    return "status" in names and key.status == "suspended"


def deed(action: str, before: Key | None, after: Key, note: Mapping[str, Any] | None = None) -> Deed:
    """What was done to a key, for the audit."""
    was = _audited(before) if before else {}
    return Deed(action, "key", after.id, after.name, after.space_id, before=was, after=_audited(after), note=note or {})


def _audited(key: Key) -> dict[str, Any]:
    """The key as the audit compares it: all that may change, and how it is recognised."""
    plain = ("name", "description", "kind", "environment", "prefix", "scopes", "labels", "status", "allowed_ips", "rate_limit")
    fields = {name: getattr(key, name) for name in plain}
    times = {"expires_at": key.expires_at, "revoked_at": key.revoked_at, "rotated_at": key.rotated_at}
    fields |= {name: None if at is None else rfc3339(at) for name, at in times.items()}
    return fields | {"servers": "*" if key.servers is None else key.servers}


def emit(uow: UnitOfWork, name: str, key: Key | Row[Any], **more: Any) -> None:
    """Tell of a key, with `more` of what `KeyChanged` may hold."""
    data: KeyChanged = {
        "key_id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "kind": key.kind,
        "environment": key.environment,
    }
    uow.emit(name, space_id=key.space_id, key_id=key.id, data={**data, **more})


async def _space_of(uow: UnitOfWork, caller: Caller, environment: str) -> str:
    """The space a new key belongs to. A live key without a server list may make test keys; nothing leads from test to live."""
    if environment == caller.environment:
        return caller.space_id
    if caller.environment != "live" or caller.servers is not None:
        raise Forbidden("A key cannot make keys for the other environment", reason="other_environment")
    query = select(space.c.id).where(space.c.organization_id == caller.organization_id, space.c.environment == environment)
    found: str = (await uow.execute(query)).scalar_one()
    return found


async def _maker(uow: UnitOfWork, caller: Caller) -> Maker | None:
    """What limits a key that the caller makes: their own key, or the grant of their token; None for who has neither.

    Raises KeyRevoked, TokenRefused.
    """
    if caller.credential == "token":
        query = select(oauth_grant.c.expires_at).where(oauth_grant.c.id == caller.key_id)
        ends_at: float | None = (await uow.execute(query)).scalar()
        if ends_at is None:
            raise TokenRefused
        return Maker(ends_at)
    if not caller.key_id or caller.credential != "key":
        return None
    row = await store.find_key(uow.connection, caller.key_id, caller.space_id)
    if row is None or row.status != "active":
        # Revoked between its admission and this transaction.
        raise KeyRevoked
    return Maker(row.expires_at, None if row.allowed_ips is None else tuple(row.allowed_ips))


def _limit_of(maker: Maker | None) -> tuple[str, ...] | None:
    return None if maker is None else maker.allowed_ips


def _addresses(maker: Maker | None, wanted: Sequence[str] | None) -> tuple[str, ...] | None:
    networks = None if wanted is None else read_networks(wanted)
    require_within(_limit_of(maker), networks)
    return networks


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
            raise Invalid("expires_at", "The 'expires_at' field must be in the future", text, v1_text="Must be a future date")
    if limit is not None and (expires_at is None or expires_at > limit):
        raise Forbidden("A key cannot make keys that live longer than it does", reason="wider_than_maker")
    return expires_at


def _rate_limit(caller: Caller, wanted: RateLimit | None) -> dict[str, int] | None:
    """What to keep of the key's own numbers. Without some of them the maker's hold. Raises Invalid beyond what the organisation may
    use, Forbidden beyond what the maker's own limit is."""
    given = {} if wanted is None else wanted.model_dump(exclude_none=True)
    for name, number in given.items():
        most = getattr(caller.tier, name)
        if number > most:
            raise Invalid(f"rate_limit.{name}", f"The 'rate_limit.{name}' must be at most {most}, what the organisation may use", number)
        if caller.key_limit is not None and number > getattr(caller.key_limit, name):
            raise Forbidden("A key cannot make keys with a wider limit than its own", reason="wider_than_maker")
    if caller.key_limit is not None:
        given = {name: given.get(name, getattr(caller.key_limit, name)) for name in NUMBERS}
    return given or None


async def require_wide_caller(uow: UnitOfWork, caller: Caller, key: Key) -> None:
    """Raise Forbidden when the key is wider than the caller, KeyRevoked when the caller's own is no more."""
    require_as_wide(caller, await _maker(uow, caller), key)


def require_as_wide(caller: Caller, maker: Maker | None, key: Key) -> None:
    """Raise Forbidden when the key is wider than the caller, of whom `maker` tells more."""
    if key.id == caller.key_id:
        return
    wider_scopes = expand_scopes(frozenset(key.scopes)) - caller.scopes
    wider_servers = caller.servers is not None and (key.servers is None or not caller.servers.issuperset(key.servers))
    own, its = caller.key_limit, key.rate_limit or {}
    wider_limit = own is not None and any(its.get(name, NUMBERS[name]) > getattr(own, name) for name in NUMBERS)
    if wider_scopes or wider_servers or wider_limit or not within(_limit_of(maker), key.allowed_ips):
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


def _key(row: Row[Any], grants: Mapping[str, Sequence[str]], retired: Mapping[str, Sequence[Row[Any]]]) -> Key:
    values = dict(row._mapping)
    values["servers"] = None if values.pop("all_servers") else tuple(grants[row.id])
    values["scopes"] = tuple(values["scopes"])
    values["allowed_ips"] = None if values["allowed_ips"] is None else tuple(values["allowed_ips"])
    if earlier := retired.get(row.id):
        newest = earlier[0]
        values["previous"] = Previous(newest.prefix, newest.valid_until, newest.last_used_at, newest.last_used_ip)
        last = max((row, *earlier), key=lambda secret: secret.last_used_at or 0.0)
        values["last_used_at"], values["last_used_ip"] = last.last_used_at, last.last_used_ip
    return Key(**values)
