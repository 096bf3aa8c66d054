"""When, from where and with which secret each key was used: noted in memory by every request, written a moment later."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork

FLUSH_S = 1.5
# So many addresses of a key are kept, and so many new ones noted between two writes.
MAX_ADDRESSES = 50
_CLOSE_S = 5.0

# A use may be written after the rotation that retired its secret; one of the two has the row.
_NEWEST = text(
    "UPDATE api_key SET last_used_at = :at, last_used_ip = :address"
    " WHERE id = :key_id AND generation = :generation AND (last_used_at IS NULL OR last_used_at < :at)"
)
_EARLIER = text(
    "UPDATE retired_secret SET last_used_at = :at, last_used_ip = :address"
    " WHERE key_id = :key_id AND generation = :generation AND (last_used_at IS NULL OR last_used_at < :at)"
)
_SEEN = text(
    "INSERT INTO key_address (key_id, address, first_seen_at, last_seen_at)"
    " SELECT id, CAST(:address AS text), CAST(:first AS double precision), CAST(:last AS double precision)"
    " FROM api_key WHERE id = :key_id"
    " ON CONFLICT (key_id, address) DO UPDATE SET"
    " first_seen_at = CASE WHEN excluded.first_seen_at < key_address.first_seen_at THEN excluded.first_seen_at"
    " ELSE key_address.first_seen_at END,"
    " last_seen_at = CASE WHEN excluded.last_seen_at > key_address.last_seen_at THEN excluded.last_seen_at"
    " ELSE key_address.last_seen_at END"
)
_FORGET = text(
    "DELETE FROM key_address WHERE key_id = :key_id AND address NOT IN"
    " (SELECT address FROM key_address WHERE key_id = :key_id ORDER BY last_seen_at DESC, address LIMIT :most)"
)
_log = structlog.get_logger("plughub.keys")


class Use:
    """The last use of one secret. `seen` holds first and last use at each address since the last write."""

    __slots__ = ("address", "at", "generation", "key_id", "seen", "waiting")

    def __init__(self, key_id: str, generation: int) -> None:
        self.key_id = key_id
        self.generation = generation
        self.at = 0.0
        self.address = ""
        self.waiting = False
        self.seen: dict[str, tuple[float, float]] = {}


class KeyUses:
    """Collects uses and writes them within two seconds, and at the stop. Losing the last of them in a crash is no harm.

    While the database is away what waits is bounded: a secret has one last use, a key MAX_ADDRESSES addresses, and there are at most
    `max_keys` of them.
    """

    def __init__(self, database: Database, max_keys: int) -> None:
        self._database = database
        self._time = database.clock.time
        self._max_keys = max_keys
        self._noted: list[Use] = []
        self._last: dict[tuple[str, int], tuple[float, str]] = {}
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, use: Use, address: str) -> None:
        """The secret is used from there, just now."""
        now = self._time()
        if not use.waiting or use.address != address:
            self._begin(use, address, now)
        use.at = now

    @property
    def waiting(self) -> int:
        """Secrets whose last use is not yet written."""
        return len(self._noted) + len(self._last)

    async def flush(self) -> None:
        """Return when everything noted so far was written, or could not be."""
        if self._writing is not None:  # it began without the newest
            await asyncio.shield(self._writing)
        self._start()
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def aclose(self) -> None:
        """Write what is left."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.flush()
        except TimeoutError:
            _log.warning("key_uses_lost", keys=len(self._last))
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.wait([self._writing])
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, use: Use, address: str, now: float) -> None:
        """The first use since the last write, or from another address than the one before."""
        if use.waiting:
            _see(use.seen, use.address, use.at)
        elif len(self._noted) >= self._max_keys:
            return
        else:
            use.waiting = True
            self._noted.append(use)
        use.address = address
        _see(use.seen, address, now)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._start)

    def _start(self) -> None:
        if self._writing is None and (self._noted or self._last):
            self._writing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        self._collect()
        last, self._last = self._last, {}
        seen, self._seen = self._seen, {}
        try:
            async with self._database.unit_of_work() as uow:
                await _write(uow, last, seen)
        except (SQLAlchemyError, OSError) as error:
            _log.warning("key_uses_not_written", keys=len(last), error=str(error))
            # Tried again with the next ones; meanwhile nothing was collected.
            self._last, self._seen = last, seen
        finally:
            self._writing = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._noted or self._last:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._start)

    def _collect(self) -> None:
        """Take over what requests have noted; they begin anew."""
        noted, self._noted = self._noted, []
        for use in noted:
            use.waiting = False
            _see(use.seen, use.address, use.at)
            key = (use.key_id, use.generation)
            if key in self._last or len(self._last) < self._max_keys:
                self._last[key] = max((use.at, use.address), self._last.get(key, (0.0, "")))
                for address, (first, last) in use.seen.items():
                    known = self._seen.get((use.key_id, address))
                    self._seen[use.key_id, address] = (min(first, known[0]), max(last, known[1])) if known else (first, last)
            use.seen = {}
        while len(self._seen) > self._max_keys:
            del self._seen[next(iter(self._seen))]


def _see(seen: dict[str, tuple[float, float]], address: str, at: float) -> None:
    if not address:
        return
    known = seen.pop(address, None)
    if len(seen) >= MAX_ADDRESSES:  # the longest unseen makes room
        del seen[next(iter(seen))]
    seen[address] = (known[0] if known else at, at)


async def _write(
    uow: UnitOfWork, last: Mapping[tuple[str, int], tuple[float, str]], seen: Mapping[tuple[str, str], Sequence[float]]
) -> None:
    # Sorted: several processes write the same rows, and can wait for each other in one direction only.
    uses: list[dict[str, Any]] = [
        {"key_id": key_id, "generation": generation, "at": at, "address": address or None}
        for (key_id, generation), (at, address) in sorted(last.items())
    ]
    places = [{"key_id": key_id, "address": address, "first": at[0], "last": at[1]} for (key_id, address), at in sorted(seen.items())]
    await uow.execute(_NEWEST, uses)
    await uow.execute(_EARLIER, uses)
    if places:
        await uow.execute(_SEEN, places)
        await uow.execute(_FORGET, [{"key_id": key_id, "most": MAX_ADDRESSES} for key_id in sorted({key_id for key_id, _ in seen})])
