"""Rules of accounts: who may register, how somebody logs in, and what a forgotten password costs.

Every function opens its own units of work: none is open while a password is judged. Nothing here tells by status, body or time whether
an account exists, but registering without a mail server (CONTRACT section 3).
"""

import secrets
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal

from sqlalchemy.exc import IntegrityError

from plughub.db.audit import Deed, Hidden
from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity import invitations, letters, people
from plughub.identity.attempts import Attempts, AttemptsLeft
from plughub.identity.deeds import (
    BACKUP_CODES_RENEWED,
    PASSWORD_CHANGED,
    PASSWORD_RESET,
    SESSION_OPENED,
    TWO_FACTOR_BEGUN,
    TWO_FACTOR_DISABLED,
    TWO_FACTOR_ENABLED,
    USER_REGISTERED,
    USER_VERIFIED,
    act_as,
    home_of,
    session_deed,
    user_deed,
)
from plughub.identity.links import Link, LinkKind, drop_links, make_link, use_link
from plughub.identity.members import add_member, list_members
from plughub.identity.passwords import Passwords, check_new_password
from plughub.identity.people import Person, Place, find_person, insert_person, list_places, lock_person, normal_email
from plughub.identity.roles import Role
from plughub.identity.second_factor import LETTERS, SecondFactor, plain_code
from plughub.identity.service import Organization, create_organization, get_operator_id
from plughub.identity.sessions import BrowserSession, Visit, end_sessions, open_session
from plughub.identity.store import lock_hub
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import Conflict, Forbidden, Invalid, LinkNotFound, LoginRefused
from plughub.settings import Settings

Registration = Literal["open", "invite", "closed"]
_RESET: tuple[LinkKind, ...] = ("reset",)
_CODE_HINT = "Send the six digits that the authenticator shows now, or a backup code; each is good once"
_SETUP: tuple[LinkKind, ...] = ("setup",)
_CODE_GROUPS, _CODE_GROUP = 4, 5
_CONFIRMING: tuple[LinkKind, ...] = ("register", "verify")


@dataclass(frozen=True, slots=True)
class Login:
    """A login that went well; `token` is the cookie's."""

    person: Person
    place: Place
    session: BrowserSession
    token: str


@dataclass(frozen=True, slots=True)
class Crypto:
    """What identity keeps secrets with: peppers of digests by version, and the ring that seals."""

    peppers: dict[int, bytes]
    sealer: Sealer


class Accounts:
    """Holds what the rules need; no state of its own but the queue of passwords to judge."""

    def __init__(self, database: Database, settings: Settings, crypto: Crypto) -> None:
        self.database = database
        self.settings = settings
        self.sealer = crypto.sealer
        self.passwords = Passwords(crypto.peppers)
        self.second_factor = SecondFactor(crypto.sealer, crypto.peppers)
        self.attempts = Attempts(settings.credential_attempts, crypto.peppers[max(crypto.peppers)])
        self.mails = bool(settings.smtp_url)

    @property
    def registration(self) -> Registration:
        """Who may register: as set, else anybody where only this machine can ask."""
        if self.settings.registration:
            return self.settings.registration
        return "open" if _is_loopback(self.settings.host) and not self.settings.public_url else "invite"

    async def take(self, visit: Visit, email: str | None = None) -> AttemptsLeft:
        """Count an attempt. Raises RateLimited."""
        async with self.database.unit_of_work() as uow:
            return await self.attempts.take(uow, visit.address, email)

    async def register(self, visit: Visit, name: str, email: str, password: str, invitation: str | None = None) -> Person | None:
        """The new account; None when a mail tells whoever has the address what came of it.

        With an invitation the person is in its organisation as well. Raises Forbidden, Invalid, Conflict, LinkNotFound.
        """
        if self.registration == "closed" or (self.registration == "invite" and invitation is None):
            raise Forbidden("Registration is by invitation", reason=f"registration_{self.registration}")
        email = normal_email(email)
        check_new_password(password, email=email, name=name)
        hashed = await self.passwords.hash(password)
        if self.mails and invitation is None:
            async with self.database.unit_of_work() as uow:
                await letters.post(uow, self.sealer, "register", email, {"name": name, "password_hash": hashed})
            return None
        try:
            async with self.database.unit_of_work(visit.actor) as uow:
                if await find_person(uow.connection, email=email) is not None:
                    raise Conflict("An account with this address exists already")
                person = await self.found(uow, email, name, hashed, verified=False)
                if invitation is not None:
                    await invitations.accept(uow, invitation, person)
                await letters.post(uow, self.sealer, "verify", email)
                return person
        except IntegrityError as error:  # registered twice at the same moment
            raise Conflict("An account with this address exists already") from error

    async def found(self, uow: UnitOfWork, email: str, name: str, password_hash: str, *, verified: bool) -> Person:
        """A new person with an organisation of their own."""
        person = await insert_person(uow, email, name, password_hash, verified=verified)
        act_as(uow, person.id)
        made = await self.found_organization(uow, person, person.name)
        uow.audit(_registered(person, made.id))
        return person

    async def log_in(self, visit: Visit, email: str, password: str, code: str | None = None) -> Login:
        """Judge a password, and a code where the person has a second factor, and open a session. The attempt is counted already.

        Raises LoginRefused, Unavailable.
        """
        email = email.strip().lower()
        async with self.database.read() as connection:
            person = await find_person(connection, email=email)
        good = await self.passwords.verify(password, person.password_hash if person is not None else None)
        if person is None or not good:
            await self._refuse(visit, person, LoginRefused())
            raise LoginRefused
        if person.totp_confirmed_at is not None and code is None:
            async with self.database.unit_of_work() as uow:
                await self.attempts.give_back(uow, visit.address)
            raise LoginRefused("A code of the authenticator is needed", reason="code_required", hint=_CODE_HINT)
        newer = await self.passwords.hash(password) if self.passwords.outdated(person.password_hash) else None
        async with self.database.unit_of_work(visit.actor) as uow:
            now_is = await lock_person(uow, person.id)
            if now_is is None or now_is.password_hash != person.password_hash:  # changed meanwhile
                raise LoginRefused
            if now_is.totp_confirmed_at is None or await self.second_factor.accept(uow, now_is, code or ""):
                if newer is not None:
                    await people.update_person(uow, person.id, {"password_hash": newer})
                await self.attempts.forgive(uow, visit.address, email)
                act_as(uow, person.id)
                return await self.open(uow, person, visit)
        refused = LoginRefused("Wrong code", reason="code_wrong", hint=_CODE_HINT)
        await self._refuse(visit, person, refused)
        raise refused

    async def _refuse(self, visit: Visit, person: Person | None, error: LoginRefused) -> None:
        """Have the audit tell of a login that was refused; also where nobody has the address, so that the time it takes tells nothing.

        What was typed as an address that nobody has is not kept: it may be a password.
        """
        async with self.database.unit_of_work(visit.actor) as uow:
            organization_id = await home_of(uow, person)
            note = {"reason": error.details.get("reason", "credentials")}
            email = person.email if person is not None else None
            uow.audit(replace(session_deed(SESSION_OPENED, None, email, organization_id), outcome=error.code, note=note))

    async def open(self, uow: UnitOfWork, person: Person, visit: Visit, organization_id: str | None = None) -> Login:
        """A session of somebody who has proven who they are, for the organisation they were in first unless one is named."""
        places = await list_places(uow.connection, person.id)
        if not places:  # removed from the last one
            await self.found_organization(uow, person, person.name)
            places = await list_places(uow.connection, person.id)
        place = next((place for place in places if place.organization_id == organization_id), places[0])
        session, token = await open_session(uow, person.id, place.organization_id, visit, self.settings.login_lifetime_s)
        return Login(person, place, session, token)

    async def change_password(self, caller: Caller, visit: Visit, current: str, new: str) -> None:
        """Set another password; every other session of the person ends. Raises LoginRefused, Invalid, RateLimited."""
        person = await self.prove(caller, visit, current)
        check_new_password(new, email=person.email, name=person.name)
        hashed = await self.passwords.hash(new)
        async with self.database.unit_of_work(visit.actor) as uow:
            if (await self._locked(uow, person)).password_hash != person.password_hash:
                raise LoginRefused
            await self._set_password(uow, person, hashed)
            await self._changed(uow, person, visit, keep=caller.key_id)
            uow.audit(user_deed(PASSWORD_CHANGED, person, caller.organization_id, **_password(person, hashed)))

    async def prove(self, caller: Caller, visit: Visit, password: str, *, forgive: bool = True) -> Person:
        """The person behind a session, who has shown their password once more. Raises LoginRefused, RateLimited.

        Without `forgive` the attempt stays counted, because a code is judged after it.
        """
        async with self.database.read() as connection:
            person = await find_person(connection, person_id=caller.user_id)
        if person is None:
            raise LoginRefused
        await self.take(visit, person.email)
        if not await self.passwords.verify(password, person.password_hash):
            raise LoginRefused("Wrong password")
        if forgive:
            async with self.database.unit_of_work() as uow:
                await self.attempts.forgive(uow, visit.address, person.email)
        return person

    async def invite(self, uow: UnitOfWork, caller: Caller, email: str, role: Role) -> tuple[invitations.Invitation, str]:
        """See `invitations.invite`; an address that is invited again and again is written to more and more rarely. Raises RateLimited."""
        await self.attempts.pace(uow, f"invite:{caller.organization_id}:{normal_email(email)}")
        return await invitations.invite(uow, self.sealer, caller, email, role, mails=self.mails)

    async def begin_totp(self, caller: Caller, visit: Visit, password: str) -> tuple[str, str]:
        """A secret for an authenticator, and its address for a QR code. Raises LoginRefused, Conflict when there is one in use."""
        person = await self.prove(caller, visit, password)
        async with self.database.unit_of_work(visit.actor) as uow:
            person = await self._locked(uow, person)
            if person.totp_confirmed_at is not None:
                raise Conflict("The second factor is on already")
            begun = await self.second_factor.begin(uow, person)
            uow.audit(user_deed(TWO_FACTOR_BEGUN, person, caller.organization_id, after={"secret": Hidden(None)}))
            return begun

    async def confirm_totp(self, caller: Caller, visit: Visit, code: str) -> list[str]:
        """Switch the second factor on; every other session ends. The backup codes. Raises Invalid for a wrong code, Conflict."""
        async with self.database.read() as connection:
            person = await find_person(connection, person_id=caller.user_id)
        if person is None or person.totp_secret is None or person.totp_confirmed_at is not None:
            raise Conflict("There is no second factor to confirm")
        await self.take(visit, person.email)
        async with self.database.unit_of_work(visit.actor) as uow:
            codes = await self.second_factor.confirm(uow, await self._locked(uow, person), code)
            if codes is None:
                raise Invalid("code", "The 'code' field is not the code that the authenticator shows now", "***")
            await self._changed(uow, person, visit, keep=caller.key_id)
            uow.audit(user_deed(TWO_FACTOR_ENABLED, person, caller.organization_id, **_two_factor(on=True)))
            return codes

    async def disable_totp(self, caller: Caller, visit: Visit, password: str, code: str) -> None:
        """Switch the second factor off; every other session ends. Raises LoginRefused, Conflict when it is off."""
        person = await self.prove(caller, visit, password, forgive=False)
        async with self.database.unit_of_work(visit.actor) as uow:
            await self._accept(uow, person, code)
            await self.second_factor.disable(uow, person)
            await self._changed(uow, person, visit, keep=caller.key_id)
            uow.audit(user_deed(TWO_FACTOR_DISABLED, person, caller.organization_id, **_two_factor(on=False)))

    async def renew_backup_codes(self, caller: Caller, visit: Visit, password: str, code: str) -> list[str]:
        """New backup codes; the older ones are worth nothing. Raises LoginRefused, Conflict when there is no second factor."""
        person = await self.prove(caller, visit, password, forgive=False)
        async with self.database.unit_of_work(visit.actor) as uow:
            await self._accept(uow, person, code)
            await self._changed(uow, person, visit, keep=caller.key_id)
            uow.audit(user_deed(BACKUP_CODES_RENEWED, person, caller.organization_id, after={"backup_codes": Hidden(None)}))
            return await self.second_factor.renew_backup_codes(uow, person)

    async def set_up(self, visit: Visit, code: str, name: str, email: str, password: str) -> Login:
        """The operator's own account, by the set-up code of the first start. Raises LinkNotFound, Invalid, Conflict."""
        email = normal_email(email)
        check_new_password(password, email=email, name=name)
        hashed = await self.passwords.hash(password)
        async with self.database.unit_of_work(visit.actor) as uow:
            await use_link(uow, self.sealer, _SETUP, plain_code(code))
            if await find_person(uow.connection, email=email) is not None:
                raise Conflict("An account with this address exists already: invite it with the operator's key")
            person = await insert_person(uow, email, name, hashed, verified=True)
            act_as(uow, person.id)
            operator_id = await get_operator_id(uow.connection)
            uow.audit(_registered(person, operator_id))
            await add_member(uow, operator_id, person, "owner")
            return await self.open(uow, person, visit, operator_id)

    async def ensure_owner(self) -> bool:
        """Make the owner whom the settings name, while the operator's organisation has none. Whether there is one now.

        Raises Invalid when the settings name no good address or password.
        """
        email, password = self.settings.operator_email, self.settings.operator_password
        async with self.database.read() as connection:
            operator_id = await get_operator_id(connection)
            if (await list_members(connection, operator_id, role="owner", limit=1, offset=0)).total:
                return True
        if not email or not password:
            return False
        email = normal_email(email)
        check_new_password(password, email=email, name="")
        hashed = await self.passwords.hash(password)
        async with self.database.unit_of_work() as uow:
            await lock_hub(uow)  # processes that start together make one
            if (await list_members(uow.connection, operator_id, role="owner", limit=1, offset=0)).total:
                return True
            person = await find_person(uow.connection, email=email)
            if person is None:
                person = await insert_person(uow, email, "Operator", hashed, verified=True)
                uow.audit(_registered(person, operator_id))
            await add_member(uow, operator_id, person, "owner")
            await drop_links(uow, _SETUP, "")
        return True

    async def make_setup_code(self) -> str:
        """A code that is good for the operator's account once; it is told nowhere else."""
        code = "".join(secrets.choice(LETTERS) for _ in range(_CODE_GROUPS * _CODE_GROUP))
        async with self.database.unit_of_work() as uow:
            await make_link(uow, self.sealer, "setup", "", shown=False, token=code)
        return "-".join(code[at : at + _CODE_GROUP] for at in range(0, len(code), _CODE_GROUP))

    async def forget(self, email: str) -> None:
        """Have a link to set a new password written, if the address has an account. Raises Invalid."""
        async with self.database.unit_of_work() as uow:
            await letters.post(uow, self.sealer, "reset", normal_email(email))

    async def reset(self, visit: Visit, token: str, password: str) -> Person:
        """Set a new password by a link: all sessions end, the second factor stays. Raises LinkNotFound, Invalid."""
        hashed = await self.passwords.hash(password)
        async with self.database.unit_of_work(visit.actor) as uow:
            link = await use_link(uow, self.sealer, _RESET, token)
            person = await find_person(uow.connection, email=link.email)
            if person is None:
                raise LinkNotFound
            check_new_password(password, email=person.email, name=person.name)
            act_as(uow, person.id)
            await self._set_password(uow, person, hashed)
            await self._end_others(uow, person)
            uow.audit(user_deed(PASSWORD_RESET, person, await home_of(uow, person), **_password(person, hashed)))
            if person.verified_at is None and self.mails:  # only whoever reads its mail could have come here
                await people.update_person(uow, person.id, {"verified_at": uow.clock.time()})
            await self.attempts.forgive_account(uow, person.email)
            return person

    async def verify(self, visit: Visit, token: str) -> Person:
        """What the link says is true: finish a registration, or note the address as its person's. Raises LinkNotFound."""
        async with self.database.unit_of_work(visit.actor) as uow:
            link = await use_link(uow, self.sealer, _CONFIRMING, token)
            person = await find_person(uow.connection, email=link.email)
            if link.kind == "register" and person is None:
                return await self._finish(uow, link)
            if person is None or link.kind == "register":
                raise LinkNotFound
            act_as(uow, person.id)
            await people.update_person(uow, person.id, {"verified_at": uow.clock.time()})
            was = {"verified": person.verified_at is not None}
            uow.audit(user_deed(USER_VERIFIED, person, await home_of(uow, person), before=was, after={"verified": True}))
            return replace(person, verified_at=uow.clock.time())

    async def ask_again(self, caller: Caller) -> None:
        """Write to the person once more to confirm their address. Raises RateLimited."""
        async with self.database.unit_of_work() as uow:
            person = await find_person(uow.connection, person_id=caller.user_id)
            if person is not None and person.verified_at is None:
                await self.attempts.pace(uow, "verify:" + person.email)
                await letters.post(uow, self.sealer, "verify", person.email)

    async def _finish(self, uow: UnitOfWork, link: Link) -> Person:
        return await self.found(uow, link.email, link.data["name"], link.data["password_hash"], verified=True)

    async def found_organization(self, uow: UnitOfWork, person: Person, name: str) -> Organization:
        """A new organisation of a person's own, of the free tier."""
        made = await create_organization(uow, name)
        await add_member(uow, made.id, person, "owner")
        return made

    async def prove_again(self, uow: UnitOfWork, person: Person, code: str | None) -> Person:
        """The person whose password was shown just now, locked, once the code of their second factor is good too, where there is one.

        Raises LoginRefused, with the attempt still counted.
        """
        now_is = await self._locked(uow, person)
        if now_is.password_hash != person.password_hash:
            raise LoginRefused
        if now_is.totp_confirmed_at is not None:
            if code is None:
                raise LoginRefused("A code of the authenticator is needed", reason="code_required", hint=_CODE_HINT)
            await self._accept(uow, person, code)
        return now_is

    async def _locked(self, uow: UnitOfWork, person: Person) -> Person:
        found = await lock_person(uow, person.id)
        if found is None:
            raise LoginRefused
        return found

    async def _accept(self, uow: UnitOfWork, person: Person, code: str) -> None:
        now_is = await self._locked(uow, person)
        if now_is.totp_confirmed_at is None:
            raise Conflict("The second factor is off")
        if not await self.second_factor.accept(uow, now_is, code):
            raise LoginRefused("Wrong code", reason="code_wrong", hint=_CODE_HINT)

    async def _set_password(self, uow: UnitOfWork, person: Person, hashed: str) -> None:
        await people.update_person(uow, person.id, {"password_hash": hashed, "password_at": uow.clock.time()})
        await drop_links(uow, _RESET, person.email)

    async def _changed(self, uow: UnitOfWork, person: Person, visit: Visit, *, keep: str) -> None:
        """What a login needs is another thing now: whoever is logged in elsewhere has not shown it."""
        await self.attempts.forgive(uow, visit.address, person.email)
        await self._end_others(uow, person, keep=keep)

    async def _end_others(self, uow: UnitOfWork, person: Person, keep: str | None = None) -> None:
        await end_sessions(uow, person.id, keep=keep)
        if self.mails:
            await letters.post(uow, self.sealer, "changed", person.email)


def _registered(person: Person, organization_id: str) -> Deed:
    told = {"name": person.name, "verified": person.verified_at is not None}
    return user_deed(USER_REGISTERED, person, organization_id, after=told)


def _password(person: Person, hashed: str) -> dict[str, dict[str, Any]]:
    return {"before": {"password": Hidden(person.password_hash)}, "after": {"password": Hidden(hashed)}}


def _two_factor(*, on: bool) -> dict[str, dict[str, Any]]:
    return {"before": {"two_factor": not on}, "after": {"two_factor": on}}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
