"""`/oauth/authorize`: a client sends a browser here, its person decides, and the browser takes the answer back (RFC 6749 section 4.1).

Nothing is ever redirected to an address that is not the client's, and nothing is fetched or shown before somebody has logged in.
"""

from urllib.parse import urlencode

from plughub.dashboard.consent import Question, ask, chosen_servers, find_caller, open_ticket, to_login
from plughub.dashboard.render import redirect
from plughub.door.actor import actor_of
from plughub.door.oauth_fields import Fields, read_form, read_query
from plughub.door.request import Request
from plughub.door.routes import PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.oauth import grants
from plughub.oauth.clients import CODE_GRANT, Client, find_client, is_document_url
from plughub.oauth.errors import AccessDenied, InvalidRequest, OAuthError, UnauthorizedClient, UnsupportedResponseType
from plughub.oauth.grants import Consent, is_challenge
from plughub.oauth.redirects import find_match
from plughub.oauth.resources import read_scopes, read_target

PATH = "/oauth/authorize"
_MAX_STATE = 4096


class AuthorizePage:
    """The page and the answer to it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def show(self, request: Request) -> None:
        """The consent page: who asks, for what, with which servers, and where the answer goes. Whoever is not logged in logs in first."""
        fields = read_query(request.scope["query_string"])
        caller = await find_caller(self._hub, request)
        if caller is None:
            await to_login(request)
            return
        client = await self._client(request, fields)
        redirect_uri = find_match(client.redirect_uris, fields.find("redirect_uri"))
        if redirect_uri is None:
            raise InvalidRequest("The redirect URI is not one that this client has registered")
        try:
            await ask(self._hub, request, caller, self._question(request, client, redirect_uri, fields), action=PATH)
        except OAuthError as error:
            await self._refuse(request, redirect_uri, fields.find("state"), error)

    async def decide(self, request: Request) -> None:
        """What the person says: a code for the client, or its refusal."""
        caller = await find_caller(self._hub, request)
        if caller is None:
            raise InvalidRequest("You are not logged in (any more): begin again where you came from")
        fields = await read_form(request)
        question = open_ticket(self._hub, caller, fields)
        if not question.redirect_uri:
            raise InvalidRequest("This form is another page's")
        more = question.more or {}
        if fields.find("decision") != "allow" or not question.scopes & caller.scopes:
            await self._refuse(request, question.redirect_uri, more.get("state"), AccessDenied())
            return
        code = await self._allow(request, caller, question, fields)
        await self._answer(request, question.redirect_uri, {"code": code, "state": more.get("state")})

    async def _allow(self, request: Request, caller: Caller, question: Question, fields: Fields) -> str:
        client, more = question.client, question.more or {}
        scopes = question.scopes & caller.scopes
        consent = Consent(client.client_id, client.name, scopes, chosen_servers(question, fields), question.target)
        async with self._hub.database.unit_of_work(actor_of(request, caller)) as uow:
            if not is_document_url(client.client_id) and await find_client(uow.connection, client.client_id) is None:
                raise InvalidRequest("The client was removed meanwhile")
            grant_id = await grants.allow(uow, caller, consent)
            return await grants.make_code(uow, self._hub.digests, grant_id, more.get("sent_uri"), more.get("challenge"))

    async def _client(self, request: Request, fields: Fields) -> Client:
        client_id = fields.get("client_id")
        if is_document_url(client_id):
            self._hub.admission.count_address(request)  # the page itself counts nothing, but this may have us fetch something
            return await self._hub.documents.get(client_id)
        async with self._hub.database.read() as connection:
            client = await find_client(connection, client_id)
        if client is None:
            raise InvalidRequest("No client of this id is registered here")
        return client

    def _question(self, request: Request, client: Client, redirect_uri: str, fields: Fields) -> Question:
        """What the client asks. Raises OAuthError that the client may be told of."""
        if fields.find("response_type") != "code":
            raise UnsupportedResponseType
        if CODE_GRANT not in client.grant_types:
            raise UnauthorizedClient
        if fields.find("response_mode") not in (None, "query"):
            raise InvalidRequest("The only response mode is query")
        if fields.find("request") is not None or fields.find("request_uri") is not None:
            raise InvalidRequest("Request objects are not supported")
        if len(fields.find("state") or "") > _MAX_STATE:
            raise InvalidRequest("The state is too long")
        challenge = _challenge(client, fields)
        target = read_target(fields.all("resource"), request.base_url(self._hub.settings.public_url))
        scopes = read_scopes(fields.find("scope"), target, client.most)
        more = {"state": fields.find("state"), "challenge": challenge, "sent_uri": fields.find("redirect_uri")}
        return Question(client, scopes, target, redirect_uri, more=more)

    async def _refuse(self, request: Request, redirect_uri: str, state: str | None, error: OAuthError) -> None:
        told = {"error": error.code.lower(), "error_description": error.text, "state": state}
        await self._answer(request, redirect_uri, told)

    async def _answer(self, request: Request, redirect_uri: str, told: dict[str, str | None]) -> None:
        """Back to the client; `iss` tells it whose answer this is (RFC 9207)."""
        told["iss"] = request.base_url(self._hub.settings.public_url)
        query = urlencode({name: value for name, value in told.items() if value is not None})
        await redirect(request, f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}")


def _challenge(client: Client, fields: Fields) -> str | None:
    """The PKCE challenge. Raises InvalidRequest for a client that needs one and sends none, or another method than S256."""
    challenge, method = fields.find("code_challenge"), fields.find("code_challenge_method")
    if challenge is None:
        if client.needs_pkce or method is not None:
            raise InvalidRequest("PKCE is required: send code_challenge, with code_challenge_method=S256")
        return None
    if method != "S256" or not is_challenge(challenge):
        raise InvalidRequest("The only code_challenge_method is S256")
    return challenge


def routes(hub: Hub) -> list[Route]:
    """The rows."""
    page = AuthorizePage(hub)
    return [
        Route("GET", PATH, PUBLIC, page.show, "Ask for consent", "Pages", "page", cost=0, hot=True),
        Route("POST", PATH, PUBLIC, page.decide, "Give or refuse consent", "Pages", "page", cost=0, hot=True),
    ]
