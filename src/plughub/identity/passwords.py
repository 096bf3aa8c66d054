"""Passwords: argon2id at the least that OWASP advises, one global bound on how many are judged at once, and no word of who exists."""

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from plughub.kit.crypto import keyed_digest
from plughub.kit.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from pwdlib.hashers.argon2 import Argon2Hasher

T = TypeVar("T")
MIN_LENGTH, MAX_LENGTH = 8, 256
TIME_COST, MEMORY_KIB, LANES = 2, 19_456, 1
# 20 ms and 19 MiB each: more at once would take both from the calls.
_AT_ONCE = 2
_MOST_WAITING = 20
# Judged in the place of the hash of an account that does not exist: it costs the same.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$rwAn5qyHJzUE6bv/4uG+ag$evhaOJspVwQKLz/aeCBD4z6DmSWhcz0i4fa9aYkAQAY"


class Passwords:
    """Hashes are `<pepper version>:<argon2id of the HMAC under that pepper>`: the database alone is nothing to guess against."""

    def __init__(self, peppers: Mapping[int, bytes]) -> None:
        self._peppers = peppers
        self._current = max(peppers)
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """What to keep of a password. Raises Unavailable when too many are waiting."""
        peppered = self._peppered(self._current, password)
        return f"{self._current}:" + await self._run(lambda: _hasher().hash(peppered))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether it is the password that `stored` was made of; None (nobody's) is false, in the same time. Raises Unavailable."""
        version, _, hashed = (stored or "").partition(":")
        known = version.isdigit() and int(version) in self._peppers
        peppered = self._peppered(int(version) if known else self._current, password)
        found = await self._run(lambda: _hasher().verify(peppered, hashed if known else _NOBODY))
        return found and known

    def outdated(self, stored: str) -> bool:
        """Whether it was made with an older pepper or other costs, and is to be made anew at the next login."""
        costs = f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={LANES}$"
        return not stored.startswith(f"{self._current}:{costs}")

    def _peppered(self, version: int, password: str) -> str:
        return keyed_digest(self._peppers[version], "password:" + password).hex()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("Too many logins at once", headers={"retry-after": "2"})
        self._waiting += 1
        try:
            async with self._gate:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


@cache
def _hasher() -> "Argon2Hasher":
    # Loaded by the first password, not by the start: most hubs see few.
    from pwdlib.hashers.argon2 import Argon2Hasher

    return Argon2Hasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES)


@cache
def _frequent() -> frozenset[str]:
    lines = Path(__file__).with_name("frequent_passwords.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def check_new_password(password: str, *, email: str, name: str) -> None:
    """Length, the obvious and the 3,000 most common, no rules of composition (NIST SP 800-63B section 5.1.1.2).

    Raises Invalid; the value is not repeated.
    """
    if len(password) < MIN_LENGTH:
        raise Invalid("password", f"The 'password' field must have at least {MIN_LENGTH} characters", "***")
    if len(password) > MAX_LENGTH:
        raise Invalid("password", f"The 'password' field may have at most {MAX_LENGTH} characters", "***")
    plain = password.lower()
    obvious = plain in (email, email.partition("@")[0], name.lower()) or len(set(plain)) < 3
    if obvious or plain in _frequent():
        raise Invalid("password", "The 'password' field must not be easy to guess", "***")
