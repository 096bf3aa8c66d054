"""The pages around a login: log in, register, a forgotten password, an address to confirm, an invitation, the first account of a hub."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from plughub.dashboard.forms import local_path, read_form, read_query
from plughub.dashboard.render import read_static, redirect, respond_page
from plughub.door.actor import actor_of
from plughub.door.credentials import count_attempt, visit_of
from plughub.door.request import Request
from plughub.door.routes import PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.identity import invitations, sessions
from plughub.identity.accounts import Login
from plughub.identity.deeds import act_as
from plughub.identity.people import find_person, list_places
from plughub.identity.service import get_organization
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, LinkNotFound, SessionEnded

HOME = "/account"
_STYLE: tuple[bytes, bytes] = (b"content-type", b"text/css; charset=utf-8")
Fields = Mapping[str, str]
Submit = Callable[[Request, Fields], Awaitable[None]]


class AccountPages:
    """Each page is shown by GET and sent by POST; what is refused is shown again with the reason and what was typed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._accounts = hub.accounts
        self._style = read_static("plughub.css")

    async def style(self, request: Request) -> None:
        """The style sheet of all pages."""
        await request.respond(200, self._style, _STYLE, [(b"cache-control", b"public, max-age=3600")])

    async def login(self, request: Request) -> None:
        """Log in."""
        await self._page(request, "login.html", self._log_in)

    async def register(self, request: Request) -> None:
        """Open an account."""
        await self._page(request, "register.html", self._register, registration=self._accounts.registration)

    async def forgot(self, request: Request) -> None:
        """Have a link sent to set a new password."""
        await self._page(request, "forgot.html", self._forget)

    async def reset(self, request: Request) -> None:
        """Set a new password by a link."""
        await self._page(request, "reset.html", self._reset)

    async def verify(self, request: Request) -> None:
        """Confirm an address: by a button, because some mail programs open every link by themselves."""
        await self._page(request, "verify.html", self._verify)

    async def setup(self, request: Request) -> None:
        """Make the operator's account with the code that the first start has printed."""
        await self._page(request, "setup.html", self._set_up)

    async def invitation(self, request: Request) -> None:
        """Accept an invitation, with an account or by opening one."""
        fields = read_query(request) if request.scope["method"] != "POST" else {}
        caller = await self._caller(request)
        async with self._hub.database.read() as connection:
            found = await invitations.find_invitation(connection, fields.get("token", ""), self._hub.clock.time()) if fields else None
            person = await find_person(connection, person_id=caller.user_id) if caller is not None else None
            known = await find_person(connection, email=found[0].email) is not None if found is not None else False
        if fields and found is None:
            raise LinkNotFound
        values: dict[str, Any] = {"email": "", "organization": "", "role": "", "person": person, "known": known, "here": ""}
        if found is not None:
            here = quote(f"/invitation?token={fields['token']}", safe="")
            values |= {"email": found[0].email, "organization": found[1], "role": found[0].role, "here": here}
        await self._page(request, "invitation.html", self._accept, **values)

    async def account(self, request: Request) -> None:
        """Who is logged in, and for which organisation."""
        caller = await self._caller(request)
        if caller is None or caller.user_id is None:
            await redirect(request, "/login")
            return
        async with self._hub.database.read() as connection:
            person = await find_person(connection, person_id=caller.user_id)
            here = await get_organization(connection, caller.organization_id)
            places = await list_places(connection, caller.user_id)
        await respond_page(request, "account.html", person=person, here=here, places=places)

    async def logout(self, request: Request) -> None:
        """Log out."""
        await read_form(request, self._hub.cookies)
        caller = await self._caller(request)
        if caller is not None and caller.user_id is not None:
            async with self._hub.database.unit_of_work(actor_of(request)) as uow:
                act_as(uow, caller.user_id)
                await sessions.end_session(uow, caller.user_id, caller.key_id)
        await redirect(request, "/login", cookie=self._hub.cookies.clear(request))

    async def _page(self, request: Request, template: str, submit: Submit, **values: Any) -> None:
        if request.scope["method"] != "POST":
            await respond_page(request, template, fields=read_query(request), error=None, code_needed=False, **values)
            return
        fields = await read_form(request, self._hub.cookies)
        try:
            await submit(request, fields)
        except HubError as error:
            code_needed = str(error.details.get("reason", "")).startswith("code_")
            shown = {name: value for name, value in fields.items() if name not in ("password", "code")}
            for name, value in error.headers.items():
                request.limit_headers = [*(request.limit_headers or []), (name.encode(), value.encode())]
            await respond_page(request, template, status=error.status, fields=shown, error=error.text, code_needed=code_needed, **values)

    async def _log_in(self, request: Request, fields: Fields) -> None:
        email = fields.get("email", "")
        await count_attempt(request, self._hub, email.strip().lower())
        login = await self._accounts.log_in(visit_of(request), email, fields.get("password", ""), fields.get("code") or None)
        await self._entered(request, login, fields)

    async def _register(self, request: Request, fields: Fields) -> None:
        await count_attempt(request, self._hub)
        name, email, password = (fields.get(field, "") for field in ("name", "email", "password"))
        person = await self._accounts.register(visit_of(request), name, email, password, fields.get("invitation") or None)
        if person is None:
            message = f"We have written to {email.strip()}: open the link in that mail to go on."
            await respond_page(request, "message.html", title="Look into your mail", message=message, hint=None, link=None)
            return
        await count_attempt(request, self._hub, person.email)
        await self._entered(request, await self._accounts.log_in(visit_of(request), person.email, password), fields)

    async def _forget(self, request: Request, fields: Fields) -> None:
        email = fields.get("email", "")
        await count_attempt(request, self._hub, "forgot:" + email.strip().lower())
        await self._accounts.forget(email)
        by_mail = "If there is an account with this address, a link is on its way to it."
        by_hand = "If there is an account with this address, the operator of this hub has a link for it: ask them."
        message = by_mail if self._accounts.mails else by_hand
        await respond_page(request, "message.html", title="Asked for", message=message, hint=None, link="/login")

    async def _reset(self, request: Request, fields: Fields) -> None:
        await count_attempt(request, self._hub)
        await self._accounts.reset(visit_of(request), fields.get("token", ""), fields.get("password", ""))
        await respond_page(
            request, "message.html", title="Password set", message="Log in with your new password.", hint=None, link="/login"
        )

    async def _verify(self, request: Request, fields: Fields) -> None:
        await count_attempt(request, self._hub)
        person = await self._accounts.verify(visit_of(request), fields.get("token", ""))
        message = f"{person.email} is confirmed."
        await respond_page(request, "message.html", title="Address confirmed", message=message, hint=None, link="/login")

    async def _set_up(self, request: Request, fields: Fields) -> None:
        await count_attempt(request, self._hub)
        code, name, email, password = (fields.get(field, "") for field in ("setup_code", "name", "email", "password"))
        login = await self._accounts.set_up(visit_of(request), code, name, email, password)
        await self._entered(request, login, fields)

    async def _accept(self, request: Request, fields: Fields) -> None:
        caller = await self._caller(request)
        if caller is None or caller.user_id is None:
            raise SessionEnded
        async with self._hub.database.unit_of_work(actor_of(request)) as uow:
            act_as(uow, caller.user_id)
            person = await find_person(uow.connection, person_id=caller.user_id)
            if person is None:
                raise SessionEnded
            accepted = await invitations.accept(uow, fields.get("token", ""), person)
            await sessions.switch_session(uow, person.id, caller.key_id, accepted.organization_id)
        await redirect(request, HOME)

    async def _entered(self, request: Request, login: Login, fields: Fields) -> None:
        await redirect(request, local_path(fields.get("next", "")) or HOME, cookie=self._hub.cookies.set(request, login.token))

    async def _caller(self, request: Request) -> Caller | None:
        """Who has this browser, if anybody."""
        token = self._hub.cookies.find_token(request)
        if token is None:
            return None
        try:
            return await self._hub.cookies.admit(request, token)
        except SessionEnded:
            return None


def routes(hub: Hub) -> list[Route]:
    """The rows of all pages; none of them counts, attempts do."""
    pages = AccountPages(hub)
    shown = {
        "/login": (pages.login, "Log in"),
        "/register": (pages.register, "Open an account"),
        "/forgot-password": (pages.forgot, "Forgot the password"),
        "/reset-password": (pages.reset, "Set a new password"),
        "/verify": (pages.verify, "Confirm an address"),
        "/setup": (pages.setup, "The operator's account"),
        "/invitation": (pages.invitation, "Accept an invitation"),
    }
    rows = [_row(method, path, handler, summary) for path, (handler, summary) in shown.items() for method in ("GET", "POST")]
    return [
        *rows,
        _row("GET", HOME, pages.account, "Who is logged in"),
        _row("POST", "/logout", pages.logout, "Log out"),
        _row("GET", "/assets/plughub.css", pages.style, "The style of all pages"),
    ]


def _row(method: str, path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    return Route(method, path, PUBLIC, handler, summary, "Pages", "page", cost=0, hot=True)
