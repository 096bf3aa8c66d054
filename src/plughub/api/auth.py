"""Accounts and logins over HTTP (CONTRACT section 3)."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from plughub.api import auth_shapes as shapes
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, ReadDep, UowDep, door_request, hub_of
from plughub.api.reply import public_or_404, reply
from plughub.door.credentials import count_attempt, visit_of
from plughub.door.request import Request as DoorRequest
from plughub.door.routes import AUTHENTICATED, PUBLIC, SIGNED_IN, Route
from plughub.gateway.hub import Hub
from plughub.identity import sessions
from plughub.identity.accounts import Login
from plughub.identity.letters import PATHS
from plughub.identity.links import PendingLink, list_pending
from plughub.identity.people import Person, Place, find_person, list_places
from plughub.identity.service import get_organization
from plughub.identity.sessions import BrowserSession
from plughub.kit.caller import OPERATOR
from plughub.kit.clock import rfc3339
from plughub.kit.errors import SessionEnded, SessionNotFound
from plughub.kit.ids import public_id

MAX_LINKS = 100


class Asked:
    """One request at credentials: from where it comes, and its count among the attempts."""

    def __init__(self, door: DoorRequest, hub: Hub) -> None:
        self._door = door
        self._hub = hub
        self.visit = visit_of(door)

    async def count(self, account: str | None = None) -> None:
        """Count it; the answer's limit headers speak of credentials from now on. Raises RateLimited."""
        await count_attempt(self._door, self._hub, account)

    def signed_in(self, answer: Response, token: str) -> Response:
        """The answer, with the cookie of a login."""
        answer.headers["set-cookie"] = self._hub.cookies.set(self._door, token)
        return answer

    def signed_out(self, answer: Response) -> Response:
        """The answer, that takes the cookie away."""
        answer.headers["set-cookie"] = self._hub.cookies.clear(self._door)
        return answer


def _asked(request: Request) -> Asked:
    return Asked(door_request(request), hub_of(request))


AskedDep = Annotated[Asked, Depends(_asked)]


async def register(hub: HubDep, asked: AskedDep, body: shapes.RegisterIn) -> Response:
    """Open an account with an organisation of its own. With a mail server the answer is always this one, and a mail tells the rest."""
    await asked.count()
    person = await hub.accounts.register(asked.visit, body.name, body.email, body.password, body.invitation)
    status = "verification_sent" if person is None else "registered"
    email = body.email.strip().lower()
    return reply({"status": status, "email": email, "user": None if person is None else user(person)}, 201)


async def log_in(hub: HubDep, asked: AskedDep, body: shapes.LoginIn) -> Response:
    """Open a session: the answer sets its cookie. A wrong address and a wrong password are told alike."""
    await asked.count(body.email.strip().lower())
    login = await hub.accounts.log_in(asked.visit, body.email, body.password, body.code)
    return asked.signed_in(reply(logged_in(login)), login.token)


async def set_up(hub: HubDep, asked: AskedDep, body: shapes.SetupIn) -> Response:
    """Make the operator's own account with the code that the first start has printed: the answer sets the cookie of its session."""
    await asked.count()
    login = await hub.accounts.set_up(asked.visit, body.code, body.name, body.email, body.password)
    return asked.signed_in(reply(logged_in(login), 201), login.token)


async def list_links(connection: ReadDep, hub: HubDep, base: BaseUrlDep) -> Response:
    """The links that people wait for where no mail is sent: the operator hands them over. With a mail server there are none."""
    found = await list_pending(connection, hub.sealer, hub.clock.time(), MAX_LINKS)
    return reply({"links": [_link(one, base) for one in found], "total": len(found), "limit": MAX_LINKS, "offset": 0})


async def log_out(caller: CallerDep, uow: UowDep, asked: AskedDep) -> Response:
    """End this session."""
    await sessions.end_session(uow, _person_id(caller.user_id), caller.key_id)
    return asked.signed_out(Response(status_code=204))


async def me(caller: CallerDep, connection: ReadDep) -> Response:
    """Who is calling, and for which organisation."""
    person = await find_person(connection, person_id=caller.user_id) if caller.user_id is not None else None
    places = await list_places(connection, person.id) if person is not None else []
    here = await get_organization(connection, caller.organization_id)
    role = next((found.role for found in places if found.organization_id == here.id), None)
    return reply(
        {
            "credential": caller.credential,
            "environment": caller.environment,
            "scopes": sorted(caller.scopes),
            "user": None if person is None else user(person),
            "organization": {"id": public_id("org", here.id), "name": here.name, "slug": here.slug, "role": role},
            "organizations": [place(found) for found in places],
        }
    )


async def list_sessions(caller: CallerDep, connection: ReadDep, hub: HubDep) -> Response:
    """Where the person is logged in."""
    person_id = _person_id(caller.user_id)
    found = await sessions.list_sessions(connection, person_id, hub.clock.time(), hub.settings.login_idle_s)
    shown = [_session(session, caller.key_id) for session in found]
    return reply({"sessions": shown, "total": len(shown), "limit": sessions.MAX_SESSIONS, "offset": 0})


async def end_session(caller: CallerDep, uow: UowDep, session_id: str) -> Response:
    """Log one browser out, from its next request on."""
    await sessions.end_session(uow, _person_id(caller.user_id), public_or_404("ses", session_id, SessionNotFound.message))
    return Response(status_code=204)


async def end_other_sessions(caller: CallerDep, uow: UowDep) -> Response:
    """Log out everywhere but here."""
    return reply({"ended": await sessions.end_sessions(uow, _person_id(caller.user_id), keep=caller.key_id)})


async def change_password(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.PasswordIn) -> Response:
    """Set another password; every other session ends."""
    await hub.accounts.change_password(caller, asked.visit, body.current_password, body.new_password)
    return Response(status_code=204)


async def forgot_password(hub: HubDep, asked: AskedDep, body: shapes.ForgotIn) -> Response:
    """Have a link sent to set a new password. The answer is the same for every address."""
    await asked.count("forgot:" + body.email.strip().lower())
    await hub.accounts.forget(body.email)
    return reply({"status": "sent_if_known"}, 202)


async def reset_password(hub: HubDep, asked: AskedDep, body: shapes.ResetIn) -> Response:
    """Set a new password by the link of a mail; every session of the person ends."""
    await asked.count()
    return reply({"user": user(await hub.accounts.reset(asked.visit, body.token, body.password))})


async def verify(hub: HubDep, asked: AskedDep, body: shapes.VerifyIn) -> Response:
    """Confirm an address by the link of a mail: it finishes a registration."""
    await asked.count()
    return reply({"user": user(await hub.accounts.verify(asked.visit, body.token))})


async def send_verification(caller: CallerDep, hub: HubDep) -> Response:
    """Have the link to confirm the address sent once more."""
    await hub.accounts.ask_again(caller)
    return reply({"status": "sent_if_known"}, 202)


async def begin_totp(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.TotpIn) -> Response:
    """Get a secret for an authenticator; nothing changes until it is confirmed."""
    secret, uri = await hub.accounts.begin_totp(caller, asked.visit, body.password)
    return reply({"secret": secret, "uri": uri})


async def confirm_totp(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.TotpConfirmIn) -> Response:
    """Show a code of the authenticator: from now on every login needs one. Every other session ends."""
    return reply({"backup_codes": await hub.accounts.confirm_totp(caller, asked.visit, body.code)})


async def disable_totp(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.ProofIn) -> Response:
    """Log in with a password alone again. Every other session ends."""
    await hub.accounts.disable_totp(caller, asked.visit, body.password, body.code)
    return Response(status_code=204)


async def renew_backup_codes(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.ProofIn) -> Response:
    """Get new backup codes; the older ones are worth nothing."""
    return reply({"backup_codes": await hub.accounts.renew_backup_codes(caller, asked.visit, body.password, body.code)})


def user(person: Person) -> dict[str, Any]:
    """A person as the API shows them."""
    return {
        "id": public_id("user", person.id),
        "email": person.email,
        "name": person.name,
        "verified": person.verified_at is not None,
        "two_factor": person.totp_confirmed_at is not None,
        "created_at": rfc3339(person.created_at),
    }


def place(found: Place) -> dict[str, Any]:
    """An organisation as its people see it."""
    return {"id": public_id("org", found.organization_id), "name": found.name, "slug": found.slug, "role": found.role}


def logged_in(login: Login) -> dict[str, Any]:
    """The answer to a login."""
    return {"user": user(login.person), "organization": place(login.place), "expires_at": rfc3339(login.session.expires_at)}


def _session(found: BrowserSession, current_id: str) -> dict[str, Any]:
    return {
        "id": public_id("ses", found.id),
        "current": found.id == current_id,
        "organization_id": public_id("org", found.organization_id),
        "address": found.address,
        "user_agent": found.agent,
        "created_at": rfc3339(found.created_at),
        "last_seen_at": rfc3339(found.seen_at),
        "expires_at": rfc3339(found.expires_at),
    }


def _link(found: PendingLink, base: str) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "email": found.email,
        "url": f"{base}{PATHS[found.kind]}?token={found.token}",
        "created_at": rfc3339(found.created_at),
        "expires_at": None if found.expires_at is None else rfc3339(found.expires_at),
    }


def _person_id(user_id: str | None) -> str:
    if user_id is None:
        raise SessionEnded
    return user_id


_PATH, _TAG = "/api/auth", "Accounts"


def _row(method: str, path: str, scope: str, handler: Any, summary: str, *, status: int = 200, output: Any = None) -> Route:
    return Route(method, _PATH + path, scope, handler, summary, _TAG, status=status, output=output, secret=True)


ROUTES = [
    _row("POST", "/register", PUBLIC, register, "Open an account", status=201, output=shapes.RegisteredOut),
    _row("POST", "/login", PUBLIC, log_in, "Log in", output=shapes.LoginOut),
    _row("POST", "/setup", PUBLIC, set_up, "Make the operator's account", status=201, output=shapes.LoginOut),
    _row("POST", "/logout", SIGNED_IN, log_out, "Log out", status=204),
    _row("GET", "/me", AUTHENTICATED, me, "Who is calling", output=shapes.MeOut),
    _row("GET", "/sessions", SIGNED_IN, list_sessions, "List sessions", output=shapes.SessionList),
    _row("DELETE", "/sessions", SIGNED_IN, end_other_sessions, "Log out everywhere else", output=shapes.EndedOut),
    _row("DELETE", "/sessions/{session_id}", SIGNED_IN, end_session, "Log one browser out", status=204),
    _row("POST", "/password", SIGNED_IN, change_password, "Change the password", status=204),
    _row("POST", "/totp", SIGNED_IN, begin_totp, "Begin with a second factor", output=shapes.TotpOut),
    _row("POST", "/totp/confirm", SIGNED_IN, confirm_totp, "Switch the second factor on", output=shapes.BackupCodesOut),
    _row("POST", "/totp/disable", SIGNED_IN, disable_totp, "Switch the second factor off", status=204),
    _row("POST", "/totp/backup-codes", SIGNED_IN, renew_backup_codes, "Get new backup codes", output=shapes.BackupCodesOut),
    _row("POST", "/password/forgot", PUBLIC, forgot_password, "Forgot the password", status=202, output=shapes.SentOut),
    _row("POST", "/password/reset", PUBLIC, reset_password, "Set a new password", output=shapes.VerifiedOut),
    _row("POST", "/verify", PUBLIC, verify, "Confirm an address", output=shapes.VerifiedOut),
    _row("POST", "/verify/resend", SIGNED_IN, send_verification, "Send the confirmation again", status=202, output=shapes.SentOut),
    Route("GET", "/api/admin/links", OPERATOR, list_links, "Links to hand over", "Operator", output=shapes.LinkList, secret=True),
]
