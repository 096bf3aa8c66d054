"""The second factor: codes of an authenticator (TOTP, RFC 6238), each good once, and backup codes for the day it is lost."""

import hmac
import secrets
from collections.abc import Mapping

from sqlalchemy import delete, insert

from plughub.db.tables import backup_code
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.people import Person, update_person
from plughub.kit.crypto import Sealer, keyed_digest

STEP_S = 30
BACKUP_CODES = 10
# Without what is easily mistaken for something else; 10 of 30 letters are 49 bits, and whoever guesses waits longer and longer.
LETTERS = "23456789abcdefghjkmnpqrstvwxyz"
_HALF = 5
_ISSUER = "Plughub"


class SecondFactor:
    """Secrets are sealed and bound to their person, backup codes kept as keyed digests."""

    def __init__(self, sealer: Sealer, peppers: Mapping[int, bytes]) -> None:
        self._sealer = sealer
        self._peppers = peppers

    async def begin(self, uow: UnitOfWork, person: Person) -> tuple[str, str]:
        """A new secret in base 32, and the address that an authenticator reads from a QR code. It counts once it is confirmed."""
        from pyotp import TOTP, random_base32

        secret = random_base32()
        sealed = self._sealer.seal(secret.encode(), _aad(person.id))
        await update_person(uow, person.id, {"totp_secret": sealed, "totp_confirmed_at": None, "totp_step": None})
        return secret, TOTP(secret).provisioning_uri(name=person.email, issuer_name=_ISSUER)

    async def confirm(self, uow: UnitOfWork, person: Person, code: str) -> list[str] | None:
        """From now on a login needs a code: the backup codes, shown this once. None when the code is wrong."""
        step = self._find_step(person, plain_code(code), uow.clock.time())
        if step is None:
            return None
        await update_person(uow, person.id, {"totp_confirmed_at": uow.clock.time(), "totp_step": step})
        return await self.renew_backup_codes(uow, person)

    async def accept(self, uow: UnitOfWork, person: Person, code: str) -> bool:
        """Whether the code is good, of either kind; it is so once. `person` is locked."""
        plain = plain_code(code)
        step = self._find_step(person, plain, uow.clock.time())
        if step is not None:
            await update_person(uow, person.id, {"totp_step": step})
            return True
        digests = [self._digest(version, person, plain) for version in self._peppers]
        spent = delete(backup_code).where(backup_code.c.person_id == person.id, backup_code.c.digest.in_(digests))
        return (await uow.execute(spent.returning(backup_code.c.person_id))).first() is not None

    async def renew_backup_codes(self, uow: UnitOfWork, person: Person) -> list[str]:
        """New backup codes in the place of all older ones."""
        await uow.execute(delete(backup_code).where(backup_code.c.person_id == person.id))
        plain = ["".join(secrets.choice(LETTERS) for _ in range(2 * _HALF)) for _ in range(BACKUP_CODES)]
        newest = max(self._peppers)
        await uow.execute(insert(backup_code), [{"person_id": person.id, "digest": self._digest(newest, person, code)} for code in plain])
        return [f"{code[:_HALF]}-{code[_HALF:]}" for code in plain]

    async def disable(self, uow: UnitOfWork, person: Person) -> None:
        """A login needs a password alone from now on."""
        await update_person(uow, person.id, {"totp_secret": None, "totp_confirmed_at": None, "totp_step": None})
        await uow.execute(delete(backup_code).where(backup_code.c.person_id == person.id))

    def _find_step(self, person: Person, code: str, now: float) -> int | None:
        """The step of time whose code this is: the present one or a neighbour, and later than the last one that was used."""
        from pyotp import TOTP

        if person.totp_secret is None:
            return None
        codes = TOTP(self._sealer.open(person.totp_secret, _aad(person.id)).decode())
        here = int(now) // STEP_S
        found = None
        for step in (here - 1, here, here + 1):
            good = hmac.compare_digest(codes.generate_otp(step).encode(), code.encode())
            if good and (person.totp_step is None or step > person.totp_step):
                found = step
        return found

    def _digest(self, version: int, person: Person, code: str) -> bytes:
        return keyed_digest(self._peppers[version], f"backup:{person.id}:{code}")


def plain_code(code: str) -> str:
    """A code without what people put in to read it more easily."""
    return code.replace(" ", "").replace("-", "").lower()


def _aad(person_id: str) -> str:
    return f"person:{person_id}:totp_secret"
