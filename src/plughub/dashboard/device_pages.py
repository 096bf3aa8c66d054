"""`/oauth/device` and `/cli/authorize`: somebody types the code that a device or a command line shows, and decides (RFC 8628)."""

from plughub.dashboard.consent import Question, ask, chosen_servers, find_caller, open_ticket, to_login
from plughub.dashboard.render import respond_page
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.actor import actor_of
from plughub.door.credentials import count_attempt
from plughub.door.oauth_fields import Fields, read_form, read_query
from plughub.door.request import Request
from plughub.door.routes import PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import DEFAULT_SCOPES, Caller
from plughub.oauth import devices, grants
from plughub.oauth.clients import Client, find_client
from plughub.oauth.devices import CLI, CLI_NAME, Waiting, find_waiting
from plughub.oauth.errors import InvalidRequest
from plughub.oauth.grants import Consent
from plughub.oauth.secret import normal_user_code

# Each page with the name that its code has in the query.
PATHS = {"/oauth/device": "user_code", "/cli/authorize": "code"}


class DevicePage:
    """Two addresses of one page."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def show(self, request: Request) -> None:
        """Where a code is typed; with a code, what the device asks for. A wrong code counts as an attempt."""
        caller = await find_caller(self._hub, request)
        if caller is None:
            await to_login(request)
            return
        path: str = request.scope["path"]
        typed = read_query(request.scope["query_string"]).find(PATHS[path])
        if typed is None:
            await respond_page(request, "device.html", action=path, parameter=PATHS[path], wrong=False)
            return
        question = await self._question(request, typed)
        if question is None:
            await respond_page(request, "device.html", status=404, action=path, parameter=PATHS[path], wrong=True)
            return
        await ask(self._hub, request, caller, question, action=path)

    async def decide(self, request: Request) -> None:
        """What the person says; the device hears it when it asks next."""
        caller = await find_caller(self._hub, request)
        if caller is None:
            raise InvalidRequest("You are not logged in (any more): type the code again")
        fields = await read_form(request)
        question = open_ticket(self._hub, caller, fields)
        allowed = fields.find("decision") == "allow" and bool(question.scopes & caller.scopes)
        async with self._hub.database.unit_of_work(actor_of(request, caller)) as uow:
            waiting = await find_waiting(uow.connection, self._hub.digests, question.user_code, self._hub.clock.time())
            if waiting is None:
                raise InvalidRequest("This code has run out")
            await self._settle(uow, caller, waiting, question, fields, allowed=allowed)
        title, text = (
            ("Connected", "The device goes on by itself. You can close this page.") if allowed else ("Denied", "The device gets nothing.")
        )
        await respond_page(request, "message.html", title=title, message=text, hint=None, link=None)

    async def _settle(
        self, uow: UnitOfWork, caller: Caller, waiting: Waiting, question: Question, fields: Fields, *, allowed: bool
    ) -> None:
        if waiting.kind == CLI:
            await devices.decide_cli(uow, caller, waiting, "approved" if allowed else "denied")
            return
        if not allowed:
            await devices.decide(uow, caller, waiting, "denied")
            return
        client, scopes = question.client, question.scopes & caller.scopes
        consent = Consent(client.client_id, client.name, scopes, chosen_servers(question, fields), question.target)
        await devices.decide(uow, caller, waiting, "approved", await grants.allow(uow, caller, consent))

    async def _question(self, request: Request, typed: str) -> Question | None:
        user_code = normal_user_code(typed)
        async with self._hub.database.read() as connection:
            waiting = await find_waiting(connection, self._hub.digests, user_code, self._hub.clock.time()) if user_code else None
            client = await find_client(connection, waiting.client_id) if waiting is not None else None
        if waiting is not None and waiting.kind == CLI:
            client = Client("", CLI, "app", CLI_NAME, ())
        if waiting is None or client is None or user_code is None:
            await count_attempt(request, self._hub)
            return None
        scopes = DEFAULT_SCOPES if waiting.kind == CLI else waiting.scopes
        return Question(client, scopes, waiting.target, user_code=user_code)


def routes(hub: Hub) -> list[Route]:
    """The rows."""
    page = DevicePage(hub)
    return [
        Route(method, path, PUBLIC, handler, "Connect a device", "Pages", "page", cost=0, hot=True)
        for path in PATHS
        for method, handler in (("GET", page.show), ("POST", page.decide))
    ]
