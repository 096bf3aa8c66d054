"""The authorization server's endpoints for clients: tokens, revocation, introspection, registration, devices, metadata.

Raw handlers: what comes in may be a form, which no other door takes, and errors have RFC 6749's form. What people see is in `consent`.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api import oauth_shapes as shapes
from plughub.cluster.limits import Header
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.actor import actor_of
from plughub.door.credentials import count_attempt
from plughub.door.oauth_fields import Fields, read_client, read_fields, read_object
from plughub.door.request import NO_STORE, Request
from plughub.door.routes import PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.identity.service import get_operator_id
from plughub.kit.caller import SCOPES
from plughub.kit.ids import public_id
from plughub.oauth import devices, grants
from plughub.oauth.clients import (
    AUTH_METHODS,
    CODE_GRANT,
    DEVICE_GRANT,
    GRANT_TYPES,
    REFRESH_GRANT,
    Client,
    Presented,
    authenticate,
    register,
)
from plughub.oauth.deeds import client_deed
from plughub.oauth.errors import InvalidClient, OAuthError, UnauthorizedClient, UnsupportedGrantType
from plughub.oauth.grants import Issued, TokenAsked
from plughub.oauth.registration import read_registration
from plughub.oauth.resources import Target, read_scopes, read_target

_PRAGMA: Header = (b"pragma", b"no-cache")


@dataclass(frozen=True, slots=True)
class _Asking:
    """A token request: the transaction, the client that it is of, and its parameters."""

    uow: UnitOfWork
    client: Client
    fields: Fields
    asked: TokenAsked


class OAuthDoor:
    """The handlers of `/oauth`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def token(self, request: Request) -> None:
        """Tokens for an authorization code, a refresh token or a device code. Takes JSON and forms.

        A client with a secret sends it in the body or by HTTP Basic. A refresh token is good once: used twice, it ends all of its family.
        """
        fields = await read_fields(request)
        presented = read_client(request, fields)
        grant_type = fields.get("grant_type")
        if grant_type not in GRANT_TYPES:
            raise UnsupportedGrantType
        asked = TokenAsked(_scopes(fields), self._target(request, fields))
        client = await self._client(request, presented)
        async with self._hub.database.unit_of_work(actor_of(request)) as uow:
            found = await self._given(grant_type, _Asking(uow, client, fields, asked))
        if isinstance(found, OAuthError):
            raise found
        await _answer(
            request,
            {
                "access_token": found.access_token,
                "token_type": "Bearer",
                "expires_in": found.expires_in,
                "refresh_token": found.refresh_token,
                "scope": " ".join(found.scopes),
            },
        )

    async def revoke(self, request: Request) -> None:
        """End what a token stands for, at once and with all of its family (RFC 7009). A token that is none is ended already."""
        fields = await read_fields(request)
        token = fields.get("token")
        client = await self._client(request, read_client(request, fields))
        async with self._hub.database.unit_of_work(actor_of(request)) as uow:
            await grants.revoke_token(uow, self._hub.digests, client, token)
        await _answer(request, {})

    async def introspect(self, request: Request) -> None:
        """What a token of one's own is good for (RFC 7662); for clients with a secret."""
        fields = await read_fields(request)
        token = fields.get("token")
        client = await self._client(request, read_client(request, fields))
        if client.public:
            raise UnauthorizedClient("Introspection is for clients with a secret")
        async with self._hub.database.read() as connection:
            await _answer(request, await self._introspected(connection, request, client, token))

    async def register(self, request: Request) -> None:
        """Register a client (RFC 7591). Whoever is asked for consent is told that nobody vouches for it."""
        given = read_registration(await read_object(request))
        await self._count(request)
        async with self._hub.database.unit_of_work(actor_of(request)) as uow:
            client, secret = await register(uow, self._hub.digests, given)
            uow.audit(client_deed(client, await get_operator_id(uow.connection)))
        answer: dict[str, Any] = {
            "client_id": client.client_id,
            "client_id_issued_at": int(client.created_at),
            "client_name": client.name,
            "redirect_uris": client.redirect_uris,
            "grant_types": client.grant_types,
            "response_types": ["code"] if CODE_GRANT in client.grant_types else [],
            "token_endpoint_auth_method": client.auth_method,
        }
        if secret is not None:
            answer |= {"client_secret": secret, "client_secret_expires_at": 0}
        if client.scopes is not None:
            answer["scope"] = " ".join(sorted(client.scopes))
        if client.client_uri is not None:
            answer["client_uri"] = client.client_uri
        await _answer(request, answer, 201)

    async def device_authorization(self, request: Request) -> None:
        """Begin on a device without a browser: a code to show, and one to fetch the tokens with (RFC 8628)."""
        fields = await read_fields(request)
        client = await self._client(request, read_client(request, fields))
        if DEVICE_GRANT not in client.grant_types or client.kind == "document":
            raise UnauthorizedClient
        target = self._target(request, fields)
        scopes = read_scopes(fields.find("scope"), target, client.most)
        await self._count(request)
        async with self._hub.database.unit_of_work(actor_of(request)) as uow:
            begun = await devices.begin(uow, self._hub.digests, client.client_id, scopes, target)
        page = f"{request.base_url(self._hub.settings.public_url)}/oauth/device"
        await _answer(
            request,
            {
                "device_code": begun.device_code,
                "user_code": begun.user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={begun.user_code}",
                "expires_in": devices.DEVICE_S,
                "interval": devices.INTERVAL_S,
            },
        )

    async def metadata(self, request: Request) -> None:
        """Where everything is, and what the authorization server can do (RFC 8414)."""
        base = request.base_url(self._hub.settings.public_url)
        await request.respond(200, msgspec.json.encode(server_metadata(base)))

    async def _given(self, grant_type: str, asking: _Asking) -> Issued | OAuthError:
        uow, client, fields, digests = asking.uow, asking.client, asking.fields, self._hub.digests
        if grant_type == CODE_GRANT:
            code, redirect_uri, verifier = fields.get("code"), fields.find("redirect_uri"), fields.find("code_verifier")
            return await grants.redeem_code(uow, digests, client, code, redirect_uri, verifier, asking.asked)
        if grant_type == REFRESH_GRANT:
            return await grants.refresh(uow, digests, client, fields.get("refresh_token"), asking.asked)
        found = await devices.poll(uow, digests, fields.get("device_code"), client.client_id)
        return found if isinstance(found, OAuthError) else await grants.redeem_grant(uow, digests, client, found, asking.asked)

    async def _introspected(self, connection: AsyncConnection, request: Request, client: Client, token: str) -> dict[str, Any]:
        found = await grants.find_token(connection, self._hub.digests, token)
        if found is None or found.client_id != client.client_id or found.expires_at <= self._hub.clock.time() or found.spent_at is not None:
            return {"active": False}
        base = request.base_url(self._hub.settings.public_url)
        return {
            "active": True,
            "client_id": found.client_id,
            "scope": " ".join(found.scopes),
            "sub": public_id("user", found.person_id),
            "aud": found.resource or base,
            "iss": base,
            "exp": int(found.expires_at),
            "iat": int(found.created_at),
            **({"token_type": "Bearer"} if found.kind == "access" else {}),
        }

    async def _client(self, request: Request, presented: Presented) -> Client:
        """The client of a request; each wrong secret counts as an attempt of its address. Raises InvalidClient, RateLimited."""
        try:
            async with self._hub.database.read() as connection:
                return await authenticate(connection, self._hub.digests, presented)
        except InvalidClient:
            if presented.secret is not None:
                await self._count(request)
            raise

    async def _count(self, request: Request) -> None:
        await count_attempt(request, self._hub)

    def _target(self, request: Request, fields: Fields) -> Target:
        return read_target(fields.all("resource"), request.base_url(self._hub.settings.public_url))


def server_metadata(base: str) -> dict[str, Any]:
    """RFC 8414; `base` is the issuer."""
    methods = list(AUTH_METHODS)
    return {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        "registration_endpoint": f"{base}/oauth/register",
        "revocation_endpoint": f"{base}/oauth/revoke",
        "introspection_endpoint": f"{base}/oauth/introspect",
        "device_authorization_endpoint": f"{base}/oauth/device_authorization",
        "scopes_supported": sorted(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": [method for method in methods if method != "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
        "service_documentation": f"{base}/api/openapi.json",
    }


def _scopes(fields: Fields) -> frozenset[str] | None:
    text = fields.find("scope")
    return None if text is None else read_scopes(text, Target(), SCOPES)


async def _answer(request: Request, data: Any, status: int = 200) -> None:
    await request.respond(status, msgspec.json.encode(data), extra=[NO_STORE, _PRAGMA])


def routes(hub: Hub) -> list[Route]:
    """The rows."""
    door = OAuthDoor(hub)
    named = shapes.TokenNamed

    def row(path: str, handler: Any, summary: str, given: Any, output: Any, status: int = 200) -> Route:
        return Route("POST", path, PUBLIC, handler, summary, "OAuth", "oauth", status, hot=True, input=given, output=output, secret=True)

    return [
        row("/oauth/token", door.token, "Tokens", shapes.TokenIn, shapes.TokenOut),
        row("/oauth/revoke", door.revoke, "Revoke a token", named, dict),
        row("/oauth/introspect", door.introspect, "What a token is good for", named, shapes.Introspection),
        row("/oauth/register", door.register, "Register a client", shapes.RegistrationIn, shapes.RegistrationOut, 201),
        row("/oauth/device_authorization", door.device_authorization, "Begin on a device", shapes.DeviceIn, shapes.DeviceOut),
        Route(
            "GET",
            "/.well-known/oauth-authorization-server",
            PUBLIC,
            door.metadata,
            "Authorization server metadata",
            "OAuth",
            hot=True,
            output=shapes.ServerMetadata,
        ),
    ]
