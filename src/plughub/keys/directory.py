"""Who a key is: asked on every request, answered from memory, kept right by the event log."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import ORGANIZATION_UPDATED
from plughub.keys import store
from plughub.keys.networks import AddressList
from plughub.keys.schemas import Status
from plughub.keys.secret import parse
from plughub.keys.service import Peppers
from plughub.keys.uses import Use
from plughub.kit.caller import Caller, expand_scopes, narrowed, tier_with
from plughub.kit.crypto import keyed_digest
from plughub.settings import Settings

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as admission needs it, by one of its secrets. Status and times are judged by the reader: a revoked key is known, and refused
    as such. `valid_until` is the end of a secret that was replaced; `addresses` is None where any will do. `plain`: neither status,
    nor time, nor environment, nor address can stand against it.
    """

    key_id: str
    status: Status
    expires_at: float | None
    caller: Caller
    valid_until: float | None
    addresses: AddressList | None
    use: Use
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        caller = self.caller
        plain = self.status == "active" and caller.until is None and caller.environment == "live" and self.addresses is None
        object.__setattr__(self, "plain", plain)


class KeyDirectory:
    """From a secret to its KeyEntry. Remembers digests, never secrets."""

    def __init__(self, database: Database, peppers: Peppers, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self._database = database
        self._peppers = [pepper for _, pepper in sorted(peppers.ring.items(), reverse=True)]
        self._only = self._peppers[0] if len(self._peppers) == 1 else None
        self._process_key = os.urandom(32)
        self._seen: dict[bytes, bytes] = {}
        self._max_seen = settings.cache_entries
        self._stdio_organizations = frozenset(settings.allow_stdio_organizations)
        self._cache: FollowedCache[bytes, KeyEntry] = FollowedCache(
            self._load, max_entries=settings.cache_entries, tags=_tags, trusted=trusted
        )
        database.listeners.append(self._follow)

    def find_seen(self, header: bytes) -> KeyEntry | None:
        """The key of an Authorization header that `remember` was told of, if it is in memory.

        Saves the checks of form and the HMAC, a third of an admission; what is kept is a keyed digest, under a key of this process.
        """
        digests = self._seen.get(blake2b(header, key=self._process_key, digest_size=16).digest())
        return None if digests is None else self._cache.find(digests)

    def remember(self, header: bytes, secret: str) -> None:
        """The header carries this secret, in a form that is good at every door."""
        if len(self._seen) >= self._max_seen:
            self._seen.clear()
        self._seen[blake2b(header, key=self._process_key, digest_size=16).digest()] = self._digests(secret)

    def find(self, secret: str) -> KeyEntry | None:
        """The key if it is in memory; None says only that `resolve` must be asked."""
        return self._cache.find(self._digests(secret))

    async def resolve(self, secret: str) -> KeyEntry | None:
        """The key, or None when there is none. A secret of the wrong form never reaches the database."""
        if parse(secret) is None:
            return None
        return await self._cache.resolve(self._digests(secret))

    async def find_by_digests(self, digests: bytes) -> KeyEntry | None:
        """The key of what `digests` gave for one of its secrets."""
        return await self._cache.resolve(digests)

    def digests(self, secret: str) -> bytes:
        """What a secret is looked up by."""
        return self._digests(secret)

    def _digests(self, secret: str) -> bytes:
        # The digests under every pepper, newest first, in one value: memory is asked once, the database too.
        if self._only is not None:
            return keyed_digest(self._only, secret)
        return b"".join([keyed_digest(pepper, secret) for pepper in self._peppers])

    async def _load(self, digests: bytes) -> KeyEntry | None:
        parts = [digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES)]
        async with self._database.read() as connection:
            row = await store.find_by_digest(connection, parts)
            if row is None:
                row = await store.find_by_retired_digest(connection, parts)
            return None if row is None else await self._entry(connection, row)

    async def find_by_id(self, key_id: str, space_id: str) -> KeyEntry | None:
        """The entry that a key of the space has, from the database."""
        async with self._database.read() as connection:
            row = await store.find_by_id(connection, key_id, space_id)
            return None if row is None else await self._entry(connection, row)

    async def _entry(self, connection: AsyncConnection, row: RowMapping) -> KeyEntry:
        servers = None
        if not row["all_servers"]:
            servers = frozenset((await store.list_grants(connection, [row["id"]]))[row["id"]])
        valid_until: float | None = row.get("valid_until")
        generation = row["generation"] if valid_until is None else row["retired_generation"]
        ends = [at for at in (row["expires_at"], valid_until) if at is not None]
        tier = tier_with(row["tier"], row["hourly_limit"], row["burst_limit"], row["concurrency_limit"])
        own = row["rate_limit"]
        caller = Caller(
            organization_id=row["organization_id"],
            space_id=row["space_id"],
            environment=row["environment"],
            key_id=row["id"],
            kind=row["kind"],
            scopes=expand_scopes(frozenset(row["scopes"])),
            servers=servers,
            tier=tier,
            operator=row["operator"],
            stdio_allowed=row["operator"] or row["stdio_allowed"] or row["organization_id"] in self._stdio_organizations,
            generation=generation,
            until=min(ends, default=None),
            superseded=valid_until is not None and valid_until == min(ends),
            key_limit=None if own is None else narrowed(tier, own.get("hourly"), own.get("burst"), own.get("concurrency")),
        )
        addresses = None if row["allowed_ips"] is None else AddressList(row["allowed_ips"])
        use = Use(row["id"], generation)
        return KeyEntry(row["id"], row["status"], row["expires_at"], caller, valid_until, addresses, use)

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name.startswith("key.") and event.key_id is not None:
                self._cache.evict_tag(event.key_id)
            elif event.name == ORGANIZATION_UPDATED:
                self._cache.evict_tag(event.data["organization_id"])


def _tags(entry: KeyEntry) -> tuple[str, str]:
    return entry.key_id, entry.caller.organization_id
