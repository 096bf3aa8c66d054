"""How often somebody may try: by account with growing pauses, by address with a bound (CONTRACT section 8).

Kept in the database, so that the bound is one for all processes and no outage of anything else opens it. An attempt is counted before it
is judged, so that attempts at once do not slip through; a good one is taken back. Accounts that do not exist are counted alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil

from sqlalchemy import delete, select, text, update

from plughub.db.tables import attempt
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.crypto import keyed_digest
from plughub.kit.errors import RateLimited

WINDOW_S = 900.0
# So many failures in a row cost nothing; then 1, 2, 4 … seconds, and never so long that a stranger could lock somebody out.
FREE_FAILURES = 5
MAX_PAUSE_S = 300.0
FORGET_S = 86_400.0
_GRAIN_S = 1e-6
_INSERT = text("INSERT INTO attempt (subject, tat, failures, seen_at) VALUES (:subject, 0, 0, :now) ON CONFLICT (subject) DO NOTHING")


@dataclass(frozen=True, slots=True)
class AttemptsLeft:
    """Of the address: `reset` is the epoch second at which `left` next grows, `full` the one at which nothing is counted any more."""

    limit: int
    left: int
    reset: int
    full: int


class Attempts:
    """The counters; `limit` attempts in 15 minutes from one address."""

    def __init__(self, limit: int, pepper: bytes) -> None:
        self._limit = limit
        self._interval_s = WINDOW_S / limit
        self._tolerance_s = WINDOW_S - self._interval_s
        self._pepper = pepper

    async def take(self, uow: UnitOfWork, address: str, account: str | None = None) -> AttemptsLeft:
        """Count one attempt. Raises RateLimited, which spends nothing when it leaves the unit of work."""
        now = uow.clock.time()
        by_address = self._subject("address", _network(address))
        by_account = self._subject("account", account) if account is not None else None
        rows = await _lock(uow, [by_address, *([by_account] if by_account else [])], now)
        tat = max(rows[by_address][0], now)
        if tat - now > self._tolerance_s + _GRAIN_S:
            raise _limited("address", self._limit, tat - now - self._tolerance_s)
        if by_account is not None:
            await _lengthen(uow, by_account, rows[by_account], now)
        await _write(uow, by_address, tat + self._interval_s, 0, now)
        return self._left(tat + self._interval_s, now)

    async def pace(self, uow: UnitOfWork, account: str) -> None:
        """Count a letter to an address, however trusted whoever asks for it: nobody is flooded with mails. Raises RateLimited."""
        now, subject = uow.clock.time(), self._subject("account", account)
        await _lengthen(uow, subject, (await _lock(uow, [subject], now))[subject], now)

    async def forgive(self, uow: UnitOfWork, address: str, account: str) -> None:
        """The attempt was a good one."""
        await self.forgive_account(uow, account)
        await self.give_back(uow, address)

    async def give_back(self, uow: UnitOfWork, address: str) -> None:
        """The address has guessed at nothing."""
        statement = update(attempt).where(attempt.c.subject == self._subject("address", _network(address)))
        await uow.execute(statement.values(tat=attempt.c.tat - self._interval_s))

    async def forgive_account(self, uow: UnitOfWork, account: str) -> None:
        """Forget the failures of an account: whoever has it has shown that."""
        await uow.execute(delete(attempt).where(attempt.c.subject == self._subject("account", account)))

    def _left(self, tat: float, now: float) -> AttemptsLeft:
        left = max(0, int((WINDOW_S - (tat - now)) / self._interval_s + _GRAIN_S))
        return AttemptsLeft(self._limit, left, ceil(tat - self._tolerance_s if left <= 0 else now + self._interval_s), ceil(tat))

    def _subject(self, kind: str, name: str) -> bytes:
        return keyed_digest(self._pepper, f"attempt:{kind}:{name}")


async def prune_attempts(uow: UnitOfWork) -> None:
    """Forget what counts no more."""
    now = uow.clock.time()
    await uow.execute(delete(attempt).where(attempt.c.seen_at < now - FORGET_S, attempt.c.tat < now))


async def _lock(uow: UnitOfWork, subjects: list[bytes], now: float) -> Mapping[bytes, tuple[float, int, float]]:
    # Always in one order: two attempts can wait for each other in one direction only.
    for subject in sorted(subjects):
        await uow.execute(_INSERT, {"subject": subject, "now": now})
    rows = await uow.execute(select(attempt).where(attempt.c.subject.in_(subjects)).order_by(attempt.c.subject).with_for_update())
    return {bytes(row.subject): (row.tat, row.failures, row.seen_at) for row in rows}


async def _write(uow: UnitOfWork, subject: bytes, tat: float, failures: int, now: float) -> None:
    await uow.execute(update(attempt).where(attempt.c.subject == subject).values(tat=tat, failures=failures, seen_at=now))


async def _lengthen(uow: UnitOfWork, subject: bytes, row: tuple[float, int, float], now: float) -> None:
    until, failures, seen_at = row
    if until > now:
        raise _limited("account", FREE_FAILURES, until - now)
    failures = 1 if now - seen_at > FORGET_S else failures + 1
    await _write(uow, subject, now + _pause(failures), failures, now)


def _pause(failures: int) -> float:
    return 0.0 if failures < FREE_FAILURES else min(2.0 ** min(failures - FREE_FAILURES, 30), MAX_PAUSE_S)


def _network(address: str) -> str:
    """Who has one IPv6 address has the other 2^64 of its network as well."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else str(found)


def _limited(policy: str, limit: int, wait_s: float) -> RateLimited:
    retry = max(1, ceil(wait_s))
    return RateLimited(policy=policy, limit=limit, retry_after=retry, headers={"retry-after": str(retry)})
