"""Clients: who asks for a person's consent. Registered by an administrator (`app`) or by themselves (`dynamic`, RFC 7591), or known by
the URL of a document about them (`document`, Client ID Metadata Documents)."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from sqlalchemy import Row, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import oauth_client, oauth_grant
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.caller import SCOPES
from plughub.kit.ids import new_id, parse_public_id, public_id
from plughub.oauth.errors import InvalidClient
from plughub.oauth.secret import SECRET, Digests, generate, has_form

ClientKind = Literal["app", "dynamic", "document"]
AuthMethod = Literal["none", "client_secret_basic", "client_secret_post"]
CODE_GRANT, REFRESH_GRANT = "authorization_code", "refresh_token"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = (CODE_GRANT, REFRESH_GRANT, DEVICE_GRANT)
AUTH_METHODS: tuple[AuthMethod, ...] = ("none", "client_secret_basic", "client_secret_post")
PREFIX = "client"
# A client that registered itself and that nobody has allowed anything is forgotten after so long.
UNUSED_S = 30 * 86_400.0
MAX_URL = 2000


@dataclass(frozen=True, slots=True)
class Client:
    """`client_id` is the one on the wire; `id` the row's, empty for a document. `scopes` None: whatever there is."""

    id: str
    client_id: str
    kind: ClientKind
    name: str
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...] = GRANT_TYPES
    scopes: frozenset[str] | None = None
    auth_method: AuthMethod = "none"
    secret_digest: bytes | None = None
    organization_id: str | None = None
    description: str = ""
    client_uri: str | None = None
    created_at: float = 0.0

    @property
    def public(self) -> bool:
        """Whether it can keep no secret."""
        return self.auth_method == "none"

    @property
    def needs_pkce(self) -> bool:
        """All but those that an administrator has given a secret to: the documented flow knows no PKCE."""
        return self.public or self.kind != "app"

    @property
    def most(self) -> frozenset[str]:
        """The scopes that it may ask for."""
        return SCOPES if self.scopes is None else self.scopes


@dataclass(frozen=True, slots=True)
class Presented:
    """How a client says who it is."""

    client_id: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a new client is made with."""

    kind: Literal["app", "dynamic"]
    name: str
    redirect_uris: Sequence[str]
    auth_method: AuthMethod
    grant_types: Sequence[str] = GRANT_TYPES
    scopes: frozenset[str] | None = None
    organization_id: str | None = None
    description: str = ""
    client_uri: str | None = None
    created_by: str | None = None


def is_document_url(client_id: str) -> bool:
    """Whether a client id is the URL of a document (draft-ietf-oauth-client-id-metadata-document)."""
    return client_id.startswith(("https://", "http://"))


def document_host(client_id: str) -> str:
    """The host that speaks for a client of that id."""
    return urlsplit(client_id).netloc.lower()


async def register(uow: UnitOfWork, digests: Digests, given: Registration) -> tuple[Client, str | None]:
    """A new client, and its secret when it has one: kept as a digest, told once."""
    secret = None if given.auth_method == "none" else generate(SECRET)
    id_, now = new_id(), uow.clock.time()
    made = Client(
        id=id_,
        client_id=public_id(PREFIX, id_),
        kind=given.kind,
        name=given.name,
        redirect_uris=tuple(given.redirect_uris),
        grant_types=tuple(given.grant_types),
        scopes=given.scopes,
        auth_method=given.auth_method,
        secret_digest=None if secret is None else digests.new(secret),
        organization_id=given.organization_id,
        description=given.description,
        client_uri=given.client_uri,
        created_at=now,
    )
    values = {
        **{name: getattr(made, name) for name in Client.__slots__},
        "redirect_uris": list(made.redirect_uris),
        "grant_types": list(made.grant_types),
        "scopes": None if made.scopes is None else sorted(made.scopes),
        "created_by": given.created_by,
    }
    await uow.execute(insert(oauth_client).values(**values))
    return made, secret


async def find_client(connection: AsyncConnection, client_id: str) -> Client | None:
    """The registered client of an id on the wire."""
    if parse_public_id(PREFIX, client_id) is None:
        return None
    row = (await connection.execute(select(oauth_client).where(oauth_client.c.client_id == client_id))).first()
    return None if row is None else _client(row)


async def authenticate(connection: AsyncConnection, digests: Digests, presented: Presented) -> Client:
    """The client that presents itself. Raises InvalidClient, whatever is wrong.

    One that is known by a document has no secret: who has its code, and the verifier of it, is the client; nothing is fetched for that.
    """
    if is_document_url(presented.client_id):
        if presented.secret is not None or len(presented.client_id) > MAX_URL:
            raise InvalidClient
        return Client("", presented.client_id, "document", "", ())
    client = await find_client(connection, presented.client_id)
    if client is None or client.public != (presented.secret is None):
        raise InvalidClient
    if presented.secret is not None and not _proves(client, presented.secret, digests):
        raise InvalidClient
    return client


async def list_apps(connection: AsyncConnection, organization_id: str, limit: int, offset: int) -> tuple[list[Client], int]:
    """The apps of an organisation, oldest first, and how many there are."""
    conditions = (oauth_client.c.organization_id == organization_id, oauth_client.c.kind == "app")
    total = (await connection.execute(select(func.count()).select_from(oauth_client).where(*conditions))).scalar_one()
    query = select(oauth_client).where(*conditions).order_by(oauth_client.c.created_at, oauth_client.c.id).limit(limit).offset(offset)
    return [_client(row) for row in await connection.execute(query)], total


async def find_app(connection: AsyncConnection, organization_id: str, id_: str) -> Client | None:
    """An app of an organisation."""
    query = select(oauth_client).where(
        oauth_client.c.id == id_, oauth_client.c.organization_id == organization_id, oauth_client.c.kind == "app"
    )
    row = (await connection.execute(query)).first()
    return None if row is None else _client(row)


async def update_client(uow: UnitOfWork, id_: str, values: dict[str, Any]) -> None:
    """Change columns of one client."""
    if values:
        await uow.execute(update(oauth_client).where(oauth_client.c.id == id_).values(**values))


async def delete_client(uow: UnitOfWork, id_: str) -> None:
    """Remove a client; its grants are the caller's to end."""
    await uow.execute(delete(oauth_client).where(oauth_client.c.id == id_))


async def prune_clients(uow: UnitOfWork) -> None:
    """Forget those that registered themselves and that nobody allows anything (any more)."""
    old = (oauth_client.c.kind == "dynamic", oauth_client.c.created_at < uow.clock.time() - UNUSED_S)
    allowed = exists().where(oauth_grant.c.client_id == oauth_client.c.client_id)
    await uow.execute(delete(oauth_client).where(*old, ~allowed))


def _proves(client: Client, secret: str, digests: Digests) -> bool:
    kept = client.secret_digest
    return kept is not None and has_form(secret, SECRET) and any(hmac.compare_digest(kept, digest) for digest in digests.all(secret))


def _client(row: Row[Any]) -> Client:
    values = {name: getattr(row, name) for name in Client.__slots__}
    return Client(
        **{
            **values,
            "redirect_uris": tuple(row.redirect_uris),
            "grant_types": tuple(row.grant_types),
            "scopes": None if row.scopes is None else frozenset(row.scopes),
        }
    )
