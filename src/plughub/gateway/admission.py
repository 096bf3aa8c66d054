"""From headers to a Caller: the one function that every door admits through.

Order: the credential, the state of the key, the address, the scope, then the organisation's limits in one step. Whoever shows no good
key is counted against the limit of their address.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from plughub.cluster.limits import AddressLimits, Header, Lease, Left, Limits, Meter, Own
from plughub.gateway.addresses import ClientAddresses
from plughub.gateway.cookies import Cookies
from plughub.gateway.tickets import Shown, Ticket
from plughub.gateway.tokens import Tokens
from plughub.keys.directory import KeyDirectory, KeyEntry
from plughub.keys.secret import defect_of, holds_secret_key, parse
from plughub.keys.uses import KeyUses
from plughub.kit.caller import OPERATOR, Caller, Environment
from plughub.kit.clock import Clock
from plughub.kit.crypto import token_digest
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
    address: str
    ticket: Ticket | None
    meter: Meter | None
    lease: Lease | None
    limit_headers: list[Header] | None

    def repeated(self, names: tuple[bytes, ...]) -> bytes | None:
        """The first of `names` that was sent more than once."""


# Raises what stands against the key, shown by a request (None: none in particular) from an address.
Rule = Callable[[KeyEntry, Arrival | None, str], None]


class Admission:
    """Admits callers; holds no state of its own but the address limits."""

    def __init__(
        self, settings: Settings, keys: KeyDirectory, cookies: Cookies, tokens: Tokens, limits: Limits, clock: Clock, uses: KeyUses
    ) -> None:
        self._keys = keys
        self._cookies = cookies
        self._tokens = tokens
        self._note = uses.note
        self.address_of = ClientAddresses(settings.trusted_proxies).of
        self._limits = limits
        self._clock = clock
        self._refuse_test_keys = settings.refuse_test_keys
        # What is asked of a key, in this order, and under which name `explaining` tells of it.
        self.rules: tuple[tuple[str, Rule], ...] = (
            ("key_revoked", self._not_revoked),
            ("key_expiry", self._not_over),
            ("key_status", self._not_suspended),
            ("environment", self._environment),
            ("address", self._from_there),
            ("browser", self._kept_secret),
        )
        self._addresses = AddressLimits(clock, settings.address_limit_per_minute, settings.cache_entries)

    async def admit(self, arrival: Arrival, scope: str, cost: int) -> Caller:
        """Set the arrival's caller, and its lease when the request counts.

        Raises Unauthorized, KeyExpired, KeyRevoked, KeySuspended, Forbidden or RateLimited; the answer's limit headers are set either way.
        """
        address = arrival.address = self.address_of(arrival)
        try:
            if (doubled := arrival.repeated(_CREDENTIALS)) is not None:
                # A proxy and the hub may each believe another one of them.
                raise Unauthorized(hint=f"The {doubled.decode().title()} header appears more than once: send one")
            header = arrival.headers.get(b"authorization")
            entry = self._keys.find_seen(header) if header is not None else None
            if entry is None and (other := await self._admit_other(arrival, address)) is not None:
                caller = other
            else:
                if entry is None:
                    entry = await self._look_up(arrival)
                caller = self._judge(entry, arrival, address)
        except (Unauthorized, Forbidden):
            self._count(arrival, address)
            raise
        if entry is not None:
            self._note(entry.use, address)
        arrival.caller = caller
        subject, tier = caller.counters, caller.allowance
        own = None if caller.key_limit is None else _own(caller)
        meter = arrival.meter = self._limits.peek(subject, tier, own)
        if scope != ANYBODY and scope not in caller.scopes:
            if meter.stale:
                await self._limits.look(subject, tier, own)
            require_scope(caller, scope)
        if cost:
            arrival.lease = self._limits.admit(subject, tier, cost, own) or await self._limits.admit_shared(subject, tier, cost, own)
        elif meter.stale:
            await self._limits.look(subject, tier, own)
        return caller

    def charge_at_once(self, arrival: Arrival, caller: Caller, cost: int) -> bool:
        """`charge`, if that can be told without waiting; else False, and nothing is counted."""
        own = None if caller.key_limit is None else _own(caller)
        arrival.lease = self._limits.admit(caller.counters, caller.allowance, cost, own)
        return arrival.lease is not None

    async def charge(self, arrival: Arrival, caller: Caller, cost: int = 1) -> None:
        """Count a request whose cost is known only after its body (MCP: pings and notifications are free). Raises RateLimited."""
        subject, tier, own = caller.counters, caller.allowance, _own(caller)
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
        subject, tier, own = caller.counters, caller.allowance, _own(caller)
        place = self._limits.open_stream(subject, tier, cost, own)
        arrival.lease = place or await self._limits.open_stream_shared(subject, tier, cost, own)

    async def left(self, caller: Caller) -> Left:
        """What is left of the caller's limits, wherever they are counted."""
        return (await self._limits.look(caller.counters, caller.allowance, _own(caller))).left()

    def count_address(self, arrival: Arrival) -> None:
        """Count a request without a caller against its address, which is known. Raises RateLimited."""
        self._count(arrival, arrival.address)

    def _count(self, arrival: Arrival, address: str) -> None:
        arrival.limit_headers, refusal = self._addresses.count(address)
        if refusal is not None:
            raise refusal

    def _token(self, arrival: Arrival) -> str | None:
        """The token of a login. A header wins over it, and MCP clients are no browsers: there it is nothing."""
        if arrival.door == "mcp" or not _NAMED.isdisjoint(arrival.headers):
            return None
        return self._cookies.find_token(arrival)

    async def _admit_other(self, arrival: Arrival, address: str) -> Caller | None:
        """Whoever comes with something else than a key: a login, an access token, or a ticket for one. The rules of keys are not theirs."""
        if (token := self._token(arrival)) is not None:
            return await self._cookies.admit(arrival, token)
        header = arrival.headers.get(b"authorization")
        if self._tokens.carried(header):
            return await self._tokens.admit(arrival)
        if self._tokens.tickets.carried(header):
            return await self._admit_ticket(arrival, address)
        return None

    async def _admit_ticket(self, arrival: Arrival, address: str) -> Caller:
        """Who made the ticket that the request carries, as far as they may still come; with the scopes of then, where they had fewer."""
        ticket = await self._tokens.tickets.find(arrival)
        kind, digest = ticket.shown.credential, ticket.shown.digest
        if kind == "session":
            caller = await self._cookies.admit_digest(digest, ticket.environment)
        elif kind == "token":
            caller = await self._tokens.admit_digest(digest, ticket.environment)
        else:
            entry = await self._keys.find_by_digests(digest)
            if entry is None:
                raise Unauthorized
            # Without the request: the key itself is in no browser and in no address.
            caller = self._judge(entry, None, address)
        arrival.ticket = ticket
        return replace(caller, scopes=caller.scopes & ticket.scopes)

    def shown(self, arrival: Arrival, caller: Caller) -> Shown:
        """The credential of an admitted request, to be looked up again."""
        if caller.credential == "session":
            return Shown("session", token_digest(self._token(arrival) or ""))
        if caller.credential == "token":
            return Shown("token", self._tokens.digest(arrival.headers[b"authorization"]))
        return Shown("key", self._keys.digests(_credential(arrival)))

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

    def _judge(self, entry: KeyEntry, arrival: Arrival | None, address: str) -> Caller:
        caller = entry.caller
        # Nearly every request comes with a key that no rule has anything to say of.
        bare = arrival is None or (b"origin" not in arrival.headers and not arrival.scope["query_string"])
        if not entry.plain or (caller.kind == "secret" and not bare):
            for _, rule in self.rules:
                rule(entry, arrival, address)
        return caller

    def _not_revoked(self, entry: KeyEntry, _arrival: Arrival | None, _address: str) -> None:
        if entry.status == "revoked":
            raise KeyRevoked(key_prefix=_prefix(entry.caller))

    def _not_over(self, entry: KeyEntry, _arrival: Arrival | None, _address: str) -> None:
        if (until := entry.caller.until) is not None and until <= self._clock.time():
            raise self._ended(entry)

    def _not_suspended(self, entry: KeyEntry, _arrival: Arrival | None, _address: str) -> None:
        if entry.status not in ("active", "revoked"):
            raise KeySuspended(reason="key_suspended")

    def _environment(self, entry: KeyEntry, _arrival: Arrival | None, _address: str) -> None:
        if self._refuse_test_keys and entry.caller.environment == "test":
            raise Unauthorized(key_prefix=_prefix(entry.caller), hint="Ensure you're using a production key for this environment")

    def _from_there(self, entry: KeyEntry, _arrival: Arrival | None, address: str) -> None:
        if entry.addresses is not None and not entry.addresses.allows(address):
            raise Forbidden("API key may not be used from this address", reason="address_not_allowed", address=address)

    def _kept_secret(self, entry: KeyEntry, arrival: Arrival | None, _address: str) -> None:
        if arrival is not None and entry.caller.kind == "secret":
            _require_kept_secret(arrival)

    def _ended(self, entry: KeyEntry) -> Unauthorized:
        """What a key is whose secret is over: one that was replaced is a revoked one, whenever the key itself expires."""
        if entry.valid_until is not None and entry.valid_until <= self._clock.time():
            return KeyRevoked(key_prefix=_prefix(entry.caller))
        return KeyExpired(key_prefix=_prefix(entry.caller))


def _require_kept_secret(arrival: Arrival) -> None:
    """Raise Forbidden where a secret key is shown by a browser, or in the URL as well."""
    if b"origin" in arrival.headers:
        raise Forbidden("Secret keys are for servers only, never for a browser", reason="secret_key_in_browser")
    _refuse_in_url(arrival)


def _refuse_in_url(arrival: Arrival) -> None:
    if (query := arrival.scope["query_string"]) and holds_secret_key(query):
        raise Forbidden(
            "Secret keys never stand in a URL, where they end up in logs and histories",
            reason="secret_key_in_url",
            hint="Rotate the key, and send the new one in the Authorization header alone",
        )


def _credential(arrival: Arrival) -> str:
    """The key in the Authorization header, or in the documents' older X-API-Key; its shape and checksum proven.

    Raises Unauthorized naming the defect, Forbidden for a secret key in the URL.
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
    _refuse_in_url(arrival)
    prefix, hint = defect_of(header)
    if header is not None and header[:7].lower() == _API_KEY and arrival.door != "v1":
        hint = "'ApiKey' is for /v1 alone; here the header is: Authorization: Bearer <API key>"
    raise Unauthorized(key_prefix=prefix, hint=hint) if prefix else Unauthorized(hint=hint)


def require_scope(caller: Caller, scope: str) -> None:
    """Raise Forbidden naming the scope that is missing."""
    if scope != ANYBODY and scope not in caller.scopes:
        _require_other(scope, caller)


def _prefix(caller: Caller) -> str:
    return f"{'pk' if caller.kind == 'public' else 'sk'}_{caller.environment}_"


def space_of(subject: str) -> tuple[str, Environment] | None:
    """The organisation and environment that the counters of that name are of; None for those of a key or of a person."""
    organization_id, colon, rest = subject.partition(":")
    if not colon:
        return organization_id, "live"
    return (organization_id, "test") if rest == "test" else None


def _own(caller: Caller) -> Own | None:
    return None if caller.key_limit is None else (f"key:{caller.key_id}", caller.key_limit)


def _require_other(scope: str, caller: Caller) -> None:
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
    if caller.environment != "live":
        raise Forbidden("A key of the test environment changes nothing of the hub", reason="live_only")
