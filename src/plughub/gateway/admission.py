"""From headers to a Caller: the one function that every door admits through.

Order: the credential, the state of the key, the scope, then the organisation's limits in one step. Whoever shows no good key is
counted against the limit of their address.
"""

from typing import Any, Protocol

from plughub.cluster.limits import AddressLimits, Header, Lease, Left, Limits, Meter, Own
from plughub.keys.directory import KeyDirectory, KeyEntry
from plughub.keys.secret import defect_of, parse
from plughub.kit.caller import OPERATOR, SESSION_TIER, Caller, Environment, Tier
from plughub.kit.clock import Clock
from plughub.kit.errors import Forbidden, KeyExpired, KeyRevoked, KeySuspended, RateLimited, Unauthorized
from plughub.settings import Settings

ANYBODY = "authenticated"
_BEARER = b"bearer "
_API_KEY = b"apikey "
_CREDENTIALS = (b"authorization", b"x-api-key")


class Arrival(Protocol):
    """What admission reads of a request, and what it leaves there."""

    scope: Any
    headers: dict[bytes, bytes]
    door: str
    caller: Caller | None
    meter: Meter | None
    lease: Lease | None
    limit_headers: list[Header] | None

    def repeated(self, names: tuple[bytes, ...]) -> bytes | None:
        """The first of `names` that was sent more than once."""


class Admission:
    """Admits callers; holds no state of its own but the address limits."""

    def __init__(self, settings: Settings, keys: KeyDirectory, limits: Limits, clock: Clock) -> None:
        self._keys = keys
        self._limits = limits
        self._clock = clock
        self._refuse_test_keys = settings.refuse_test_keys
        self._addresses = AddressLimits(clock, settings.address_limit_per_minute, settings.cache_entries)

    async def admit(self, arrival: Arrival, scope: str, cost: int) -> Caller:
        """Set the arrival's caller, and its lease when the request counts.

        Raises Unauthorized, KeyExpired, KeyRevoked, KeySuspended, Forbidden or RateLimited; the answer's limit headers are set either way.
        """
        try:
            if (doubled := arrival.repeated(_CREDENTIALS)) is not None:
                # A proxy and the hub may each believe another one of them.
                raise Unauthorized(hint=f"The {doubled.decode().title()} header appears more than once: send one")
            header = arrival.headers.get(b"authorization")
            entry = self._keys.find_seen(header) if header is not None else None
            if entry is None:
                entry = await self._look_up(arrival)
            caller = self._judge(entry, arrival)
        except (Unauthorized, Forbidden):
            self.count_address(arrival)
            raise
        arrival.caller = caller
        subject, tier = counted(caller)
        own = None if caller.key_limit is None else _own(caller)
        arrival.meter = self._limits.peek(subject, tier, own)
        if scope != ANYBODY and scope not in caller.scopes:
            if arrival.meter.stale:
                await self._limits.look(subject, tier, own)
            _require_operator(scope, caller)
        if cost:
            arrival.lease = self._limits.admit(subject, tier, cost, own) or await self._limits.admit_shared(subject, tier, cost, own)
        elif arrival.meter.stale:
            await self._limits.look(subject, tier, own)
        return caller

    def charge_at_once(self, arrival: Arrival, caller: Caller, cost: int) -> bool:
        """`charge`, if that can be told without waiting; else False, and nothing is counted."""
        subject, tier = counted(caller)
        own = None if caller.key_limit is None else _own(caller)
        arrival.lease = self._limits.admit(subject, tier, cost, own)
        return arrival.lease is not None

    async def charge(self, arrival: Arrival, caller: Caller, cost: int = 1) -> None:
        """Count a request whose cost is known only after its body (MCP: pings and notifications are free). Raises RateLimited."""
        (subject, tier), own = counted(caller), _own(caller)
        arrival.lease = self._limits.admit(subject, tier, cost, own) or await self._limits.admit_shared(subject, tier, cost, own)

    async def charge_more(self, arrival: Arrival, caller: Caller, cost: int) -> None:
        """Count another message of a request that may have its place already: it holds one, however many it counts. Raises RateLimited."""
        held, arrival.lease = arrival.lease, None
        if held is not None:
            held.release()
        try:
            await self.charge(arrival, caller, cost)
        except RateLimited:
            if held is not None:
                await self.charge(arrival, caller, 0)
            raise

    async def admit_stream(self, arrival: Arrival, caller: Caller, cost: int) -> None:
        """Count a request that becomes a stream: between its events it rests, so it holds a place among the streams alone.

        Raises RateLimited; policy `streams` when those are all taken.
        """
        (subject, tier), own = counted(caller), _own(caller)
        place = self._limits.open_stream(subject, tier, cost, own)
        arrival.lease = place or await self._limits.open_stream_shared(subject, tier, cost, own)

    async def left(self, caller: Caller) -> Left:
        """What is left of the caller's limits, wherever they are counted."""
        subject, tier = counted(caller)
        return (await self._limits.look(subject, tier, _own(caller))).left()

    def count_address(self, arrival: Arrival) -> None:
        """Count a request without a caller against its address. Raises RateLimited."""
        client = arrival.scope.get("client")
        arrival.limit_headers, refusal = self._addresses.count(client[0] if client else "")
        if refusal is not None:
            raise refusal

    async def _look_up(self, arrival: Arrival) -> KeyEntry:
        """The key of a header that was not seen lately: its form is proven, then its digest is looked up."""
        secret = _credential(arrival)
        entry = self._keys.find(secret) or await self._keys.resolve(secret)
        if entry is None:
            raise Unauthorized(key_prefix=secret[:8], hint="The key is complete but unknown here: check that it belongs to this hub")
        header = arrival.headers.get(b"authorization", b"")
        if header[:7].lower() == _BEARER:  # the other forms are not good at every door
            self._keys.remember(header, secret)
        return entry

    def _judge(self, entry: KeyEntry, arrival: Arrival) -> Caller:
        caller = entry.caller
        if entry.status == "revoked":
            raise KeyRevoked(key_prefix=_prefix(caller))
        if entry.expires_at is not None and entry.expires_at <= self._clock.time():
            raise KeyExpired(key_prefix=_prefix(caller))
        if entry.status != "active":
            raise KeySuspended(reason="key_suspended")
        if caller.environment == "test" and self._refuse_test_keys:
            raise Unauthorized(key_prefix=_prefix(caller), hint="Ensure you're using a production key for this environment")
        if caller.kind == "secret" and b"origin" in arrival.headers:
            raise Forbidden("Secret keys are for servers only, never for a browser", reason="secret_key_in_browser")
        return caller


def _credential(arrival: Arrival) -> str:
    """The key in the Authorization header, or in the documents' older X-API-Key; its shape and checksum proven.

    Raises Unauthorized naming the defect.
    """
    header = arrival.headers.get(b"authorization")
    if header is None and (bare := arrival.headers.get(b"x-api-key")) is not None:
        header = b"Bearer " + bare
    if header is not None:
        scheme = header[:7].lower()
        if scheme == _BEARER or (scheme == _API_KEY and arrival.door == "v1"):
            secret = header[7:].decode("latin-1")
            if parse(secret) is not None:
                return secret
    prefix, hint = defect_of(header)
    if header is not None and header[:7].lower() == _API_KEY and arrival.door != "v1":
        hint = "'ApiKey' is for /v1 alone; here the header is: Authorization: Bearer <API key>"
    raise Unauthorized(key_prefix=prefix, hint=hint) if prefix else Unauthorized(hint=hint)


def _prefix(caller: Caller) -> str:
    return f"{'pk' if caller.kind == 'public' else 'sk'}_{caller.environment}_"


def session_limits(user_id: str) -> tuple[str, Tier]:
    """What the browser sessions of a person count against, all of them together: the name of the counters, and the tier."""
    return f"user:{user_id}", SESSION_TIER


def space_of(subject: str) -> tuple[str, Environment] | None:
    """The organisation and environment that the counters of that name are of; None for those of a key or of a person."""
    organization_id, colon, rest = subject.partition(":")
    if not colon:
        return organization_id, "live"
    return (organization_id, "test") if rest == "test" else None


def counted(caller: Caller) -> tuple[str, Tier]:
    """The name of the counters that the caller's requests count against, and what they allow."""
    return (caller.organization_id if caller.environment == "live" else caller.organization_id + ":test"), caller.tier


def _own(caller: Caller) -> Own | None:
    return None if caller.key_limit is None else (f"key:{caller.key_id}", caller.key_limit)


def _require_operator(scope: str, caller: Caller) -> None:
    """Raise Forbidden unless the missing scope is the operator's, and this is one."""
    if scope != OPERATOR:
        raise Forbidden(required_scope=scope)
    if not caller.operator:
        raise Forbidden(reason="operator_only")
    if "admin" not in caller.scopes:
        raise Forbidden(required_scope="admin", reason="operator_only")
    if caller.environment != "live":
        raise Forbidden("A key of the test environment changes nothing of the hub", reason="live_only")
