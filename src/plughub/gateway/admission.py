"""From headers to a Caller: the one function that every door admits through.

Order: the credential, the state of the key, the scope, then the organisation's limits in one step. Whoever shows no good key is
counted against the limit of their address.
"""

from typing import Any, Protocol

from plughub.cluster.limits import AddressLimits, Header, Lease, Left, Limits, Meter
from plughub.gateway.cookies import Cookies
from plughub.gateway.tokens import Tokens
from plughub.keys.directory import KeyDirectory, KeyEntry
from plughub.keys.secret import defect_of, parse
from plughub.kit.caller import OPERATOR, Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import Forbidden, KeyExpired, KeyRevoked, KeySuspended, RateLimited, Unauthorized
from plughub.settings import Settings

ANYBODY = "authenticated"
# A person alone, and no key of anybody's.
PERSON = "session"
_BEARER = b"bearer "
_API_KEY = b"apikey "
_CREDENTIALS = (b"authorization", b"x-api-key")
_NAMED = frozenset(_CREDENTIALS)


class Arrival(Protocol):
    """What admission reads of a request, and what it leaves there."""

    scope: Any
    headers: dict[bytes, bytes]
    door: str
    route: Any
    values: tuple[str, ...]
    caller: Caller | None
    meter: Meter | None
    lease: Lease | None
    limit_headers: list[Header] | None

    def repeated(self, names: tuple[bytes, ...]) -> bytes | None:
        """The first of `names` that was sent more than once."""


class Admission:
    """Admits callers; holds no state of its own but the address limits."""

    def __init__(self, settings: Settings, keys: KeyDirectory, cookies: Cookies, tokens: Tokens, limits: Limits, clock: Clock) -> None:
        self._keys = keys
        self._cookies = cookies
        self._tokens = tokens
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
            caller = self._judge(entry, arrival) if entry is not None else await self._admit_other(arrival)
        except (Unauthorized, Forbidden):
            self.count_address(arrival)
            raise
        arrival.caller = caller
        subject = _subject(caller)
        arrival.meter = self._limits.peek(subject, caller.tier)
        if scope != ANYBODY and scope not in caller.scopes:
            _require(scope, caller)
        if cost:
            arrival.lease = self._limits.admit(subject, caller.tier, cost)
        return caller

    def charge(self, arrival: Arrival, caller: Caller, cost: int = 1) -> None:
        """Count a request whose cost is known only after its body (MCP: pings and notifications are free)."""
        arrival.lease = self._limits.admit(_subject(caller), caller.tier, cost)

    def charge_more(self, arrival: Arrival, caller: Caller, cost: int) -> None:
        """Count another message of a request that may have its place already: it holds one, however many it counts. Raises RateLimited."""
        held, arrival.lease = arrival.lease, None
        if held is not None:
            held.release()
        try:
            self.charge(arrival, caller, cost)
        except RateLimited:
            if held is not None:
                self.charge(arrival, caller, 0)
            raise

    def admit_stream(self, arrival: Arrival, caller: Caller, cost: int) -> None:
        """Count a request that becomes a stream: between its events it rests, so it holds a place among the streams alone.

        Raises RateLimited; policy `streams` when those are all taken.
        """
        subject = _subject(caller)
        place = self._limits.open_stream(subject, caller.tier)
        try:
            self._limits.admit(subject, caller.tier, cost).release()
        except RateLimited:
            place.release()
            raise
        arrival.lease = place

    def left(self, caller: Caller) -> Left:
        """What is left of the caller's limits."""
        return self._limits.peek(_subject(caller), caller.tier).left()

    def count_address(self, arrival: Arrival) -> None:
        """Count a request without a caller against its address. Raises RateLimited."""
        client = arrival.scope.get("client")
        arrival.limit_headers, refusal = self._addresses.count(client[0] if client else "")
        if refusal is not None:
            raise refusal

    def _token(self, arrival: Arrival) -> str | None:
        """The token of a login. A header wins over it, and MCP clients are no browsers: there it is nothing."""
        if arrival.door == "mcp" or not _NAMED.isdisjoint(arrival.headers):
            return None
        return self._cookies.find_token(arrival)

    async def _admit_other(self, arrival: Arrival) -> Caller:
        """Whoever comes with something else than a key that was seen lately."""
        if (token := self._token(arrival)) is not None:
            return await self._cookies.admit(arrival, token)
        if self._tokens.carried(arrival.headers.get(b"authorization")):
            return await self._tokens.admit(arrival)
        return self._judge(await self._look_up(arrival), arrival)

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


def _require(scope: str, caller: Caller) -> None:
    """Raise Forbidden unless what is missing is no scope of keys, and the caller is who it is for."""
    if scope == PERSON:
        if caller.credential != "session":
            raise Forbidden(reason="session_required")
        return
    if scope != OPERATOR:
        raise Forbidden(required_scope=scope)
    if not caller.operator:
        raise Forbidden(reason="operator_only")
    if "admin" not in caller.scopes:
        raise Forbidden(required_scope="admin", reason="operator_only")


def _subject(caller: Caller) -> str:
    if caller.credential == "session":
        return f"user:{caller.user_id}"
    return caller.organization_id if caller.environment == "live" else caller.organization_id + ":test"
