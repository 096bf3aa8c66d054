"""What people allow clients: a grant is one consent, and the family of all tokens that come of it.

A refresh token or code that comes a second time was stolen or is being guarded badly, so the family ends (RFC 9700 sections 4.5, 4.14). A
refusal that changes something is given back, not raised: raised, it would take the change along with the unit of work.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import oauth_code, oauth_grant, oauth_grant_server, oauth_token, organization, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import GRANT_CREATED, GRANT_REVOKED, GrantChanged
from plughub.keys.store import list_known_servers
from plughub.kit.caller import Caller
from plughub.kit.errors import Invalid
from plughub.kit.ids import new_id
from plughub.oauth.clients import CODE_GRANT, DEVICE_GRANT, REFRESH_GRANT, Client
from plughub.oauth.deeds import allowed_deed, ended_deed
from plughub.oauth.errors import InvalidGrant, InvalidScope, OAuthError, UnauthorizedClient
from plughub.oauth.resources import Target, narrowed
from plughub.oauth.secret import ACCESS, CODE, REFRESH, Digests, generate, has_form

ACCESS_S = 3600.0
# Unused for so long a refresh token is worth nothing; whatever happens, the person is asked again after the grant's time.
REFRESH_S = 30 * 86_400.0
GRANT_S = 90 * 86_400.0
CODE_S = 60.0
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class Consent:
    """What somebody says yes to. `servers` None: all, now and later."""

    client_id: str
    client_name: str
    scopes: frozenset[str]
    servers: Sequence[str] | None
    target: Target


@dataclass(frozen=True, slots=True)
class Grant:
    """A consent that is in force, as its person sees it. Times are epoch seconds."""

    id: str
    client_id: str
    client_name: str
    organization_id: str
    organization_name: str
    scopes: tuple[str, ...]
    servers: tuple[str, ...] | None
    resource: str | None
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token request gives."""

    access_token: str
    refresh_token: str
    scopes: tuple[str, ...]
    expires_in: int


@dataclass(frozen=True, slots=True)
class TokenAsked:
    """The parameters of a token request that concern what it gives: `scopes` None = as granted."""

    scopes: frozenset[str] | None
    target: Target


def is_challenge(text: str) -> bool:
    """Whether it may be the S256 challenge of RFC 7636."""
    return _CHALLENGE.fullmatch(text) is not None


async def allow(uow: UnitOfWork, caller: Caller, consent: Consent) -> str:
    """Keep a person's consent; the grant's id. Raises Invalid for a server that they do not have."""
    assert caller.user_id is not None
    now, id_ = uow.clock.time(), new_id()
    servers = None if consent.servers is None else sorted(set(consent.servers))
    if servers is not None and await list_known_servers(uow.connection, caller.space_id, servers) != set(servers):
        raise Invalid("server", "A server of the list was not found")
    values = {
        "id": id_,
        "client_id": consent.client_id,
        "client_name": consent.client_name,
        "person_id": caller.user_id,
        "organization_id": caller.organization_id,
        "scopes": sorted(consent.scopes),
        "all_servers": servers is None,
        "resource": consent.target.resource,
        "audience": consent.target.audience,
        "created_at": now,
        "expires_at": now + GRANT_S,
    }
    await uow.execute(insert(oauth_grant).values(**values))
    if servers:
        await uow.execute(insert(oauth_grant_server), [{"grant_id": id_, "server_id": server_id} for server_id in servers])
    data: GrantChanged = {"client_id": consent.client_id, "client_name": consent.client_name, "user_id": caller.user_id}
    uow.emit(GRANT_CREATED, space_id=caller.space_id, key_id=id_, data=data)
    uow.audit(allowed_deed(GRANT_CREATED, values, servers))
    return id_


async def make_code(uow: UnitOfWork, digests: Digests, grant_id: str, redirect_uri: str | None, challenge: str | None) -> str:
    """An authorization code for a grant. `redirect_uri` as the request named it, None when it did not."""
    code = generate(CODE)
    values = {"grant_id": grant_id, "redirect_uri": redirect_uri, "challenge": challenge, "expires_at": uow.clock.time() + CODE_S}
    await uow.execute(insert(oauth_code).values(digest=digests.new(code), **values))
    return code


async def redeem_code(
    uow: UnitOfWork, digests: Digests, client: Client, code: str, redirect_uri: str | None, verifier: str | None, asked: TokenAsked
) -> Issued | OAuthError:
    """Tokens for a code, once. Raises InvalidScope, InvalidTarget, UnauthorizedClient; gives InvalidGrant."""
    _require_grant_type(client, CODE_GRANT)
    if not has_form(code, CODE):
        return InvalidGrant()
    now = uow.clock.time()
    spent = update(oauth_code).where(oauth_code.c.digest.in_(digests.all(code)), oauth_code.c.spent_at.is_(None))
    row = (await uow.execute(spent.values(spent_at=now).returning(*oauth_code.c))).first()
    if row is None:
        query = select(oauth_code.c.grant_id).where(oauth_code.c.digest.in_(digests.all(code)))
        if (known := (await uow.execute(query)).scalar()) is not None:
            await revoke(uow, known, "code_used_again")
        return InvalidGrant()
    grant = await _find(uow.connection, row.grant_id, now)
    # Whoever has a code and not what belongs to it may be anybody: the code is used up, and nothing comes of it.
    if grant is None or row.expires_at <= now or grant.client_id != client.client_id or not _fits(row, redirect_uri, verifier):
        await revoke(uow, row.grant_id, "code_refused")
        return InvalidGrant()
    return await issue(uow, digests, grant, asked)


async def refresh(uow: UnitOfWork, digests: Digests, client: Client, token: str, asked: TokenAsked) -> Issued | OAuthError:
    """New tokens in the place of a refresh token. Raises InvalidScope, InvalidTarget, UnauthorizedClient; gives InvalidGrant."""
    _require_grant_type(client, REFRESH_GRANT)
    if not has_form(token, REFRESH):
        return InvalidGrant()
    now = uow.clock.time()
    query = select(oauth_token).where(oauth_token.c.digest.in_(digests.all(token)), oauth_token.c.kind == "refresh")
    row = (await uow.execute(query.with_for_update())).first()
    if row is None:
        return InvalidGrant()
    grant = await _find(uow.connection, row.grant_id, now)
    if grant is None or grant.client_id != client.client_id:
        return InvalidGrant()
    if row.spent_at is not None:
        await revoke(uow, row.grant_id, "refresh_token_used_again")
        return InvalidGrant()
    if row.expires_at <= now:
        return InvalidGrant()
    issued = await issue(uow, digests, grant, asked)
    await uow.execute(update(oauth_token).where(oauth_token.c.digest == row.digest).values(spent_at=now))
    return issued


async def redeem_grant(uow: UnitOfWork, digests: Digests, client: Client, grant_id: str, asked: TokenAsked) -> Issued | OAuthError:
    """The first tokens of a grant that a device waited for. Gives InvalidGrant when it is gone."""
    _require_grant_type(client, DEVICE_GRANT)
    grant = await _find(uow.connection, grant_id, uow.clock.time())
    return InvalidGrant() if grant is None else await issue(uow, digests, grant, asked)


async def issue(uow: UnitOfWork, digests: Digests, grant: Row[Any], asked: TokenAsked) -> Issued:
    """An access and a refresh token of the grant. Raises InvalidScope, InvalidTarget for more than it allows."""
    now = uow.clock.time()
    target = narrowed(Target(grant.resource, grant.audience), asked.target)
    granted = frozenset(grant.scopes)
    scopes = granted if asked.scopes is None else asked.scopes
    if not scopes <= granted:
        raise InvalidScope
    access, fresh = generate(ACCESS), generate(REFRESH)
    rows = [
        {
            "digest": digests.new(token),
            "grant_id": grant.id,
            "kind": kind,
            # A refresh token stays as wide as the grant, whatever was asked for this time (RFC 6749 section 6).
            "scopes": sorted(scopes if kind == "access" else granted),
            "resource": target.resource,
            "audience": target.audience,
            "created_at": now,
            "expires_at": min(now + lifetime_s, grant.expires_at),
        }
        for token, kind, lifetime_s in ((access, "access", ACCESS_S), (fresh, "refresh", REFRESH_S))
    ]
    await uow.execute(insert(oauth_token), rows)
    return Issued(access, fresh, tuple(sorted(scopes)), int(min(ACCESS_S, grant.expires_at - now)))


async def find_token(connection: AsyncConnection, digests: Digests, token: str) -> Row[Any] | None:
    """A token of either kind with its grant, in whatever state."""
    if not (has_form(token, ACCESS) or has_form(token, REFRESH)):
        return None
    columns = (oauth_grant.c.client_id, oauth_grant.c.person_id, oauth_grant.c.organization_id)
    query = select(oauth_token, *columns).join(oauth_grant, oauth_grant.c.id == oauth_token.c.grant_id)
    row: Row[Any] | None = (await connection.execute(query.where(oauth_token.c.digest.in_(digests.all(token))))).first()
    return row


async def revoke_token(uow: UnitOfWork, digests: Digests, client: Client, token: str) -> None:
    """End the family of a token (RFC 7009); one that there is not is ended already. Raises UnauthorizedClient for another client's."""
    found = await find_token(uow.connection, digests, token)
    if found is None:
        return
    if found.client_id != client.client_id:
        raise UnauthorizedClient("The token was given to another client")
    await revoke(uow, found.grant_id, "revoked_by_client")


async def revoke(uow: UnitOfWork, grant_id: str, reason: str, by: str | None = None) -> bool:
    """End a grant: every token of it is refused from the next request on. False when it was ended before.

    `reason` is for the audit, and so is `by`: the organisation of whoever ends it, when that may be another than the grant's.
    """
    row = (await uow.execute(delete(oauth_grant).where(oauth_grant.c.id == grant_id).returning(*oauth_grant.c))).first()
    if row is None:
        return False
    query = select(space.c.id).where(space.c.organization_id == row.organization_id, space.c.environment == "live")
    data: GrantChanged = {"client_id": row.client_id, "client_name": row.client_name, "user_id": row.person_id}
    uow.emit(GRANT_REVOKED, space_id=(await uow.execute(query)).scalar_one(), key_id=row.id, data=data)
    uow.audit(ended_deed(GRANT_REVOKED, row, reason, by))
    return True


async def revoke_client(uow: UnitOfWork, client_id: str, organization_id: str) -> None:
    """End every grant of an app that its organisation removes."""
    for grant_id in (await uow.execute(select(oauth_grant.c.id).where(oauth_grant.c.client_id == client_id))).scalars().all():
        await revoke(uow, grant_id, "app_deleted", organization_id)


async def revoke_own(uow: UnitOfWork, person_id: str, grant_id: str) -> bool:
    """End a grant of that person; false when they have none of that id."""
    query = select(oauth_grant.c.id).where(oauth_grant.c.id == grant_id, oauth_grant.c.person_id == person_id)
    return (await uow.execute(query)).scalar() is not None and await revoke(uow, grant_id, "revoked_by_person")


async def list_grants(connection: AsyncConnection, person_id: str, now: float, limit: int, offset: int) -> tuple[list[Grant], int]:
    """What a person allows, the newest first, and how much that is."""
    used = select(oauth_token.c.grant_id).where(oauth_token.c.grant_id == oauth_grant.c.id).exists()
    conditions = (oauth_grant.c.person_id == person_id, oauth_grant.c.expires_at > now, used)
    total = (await connection.execute(select(func.count()).select_from(oauth_grant).where(*conditions))).scalar_one()
    query = (
        select(oauth_grant, organization.c.name.label("organization_name"))
        .join(organization, organization.c.id == oauth_grant.c.organization_id)
        .where(*conditions)
        .order_by(oauth_grant.c.created_at.desc(), oauth_grant.c.id.desc())
    )
    rows = (await connection.execute(query.limit(limit).offset(offset))).all()
    servers = await list_servers(connection, [row.id for row in rows if not row.all_servers])
    return [_shown(row, servers) for row in rows], total


async def list_servers(connection: AsyncConnection, grant_ids: Sequence[str]) -> dict[str, list[str]]:
    """The servers of each grant that has a list."""
    found: dict[str, list[str]] = {grant_id: [] for grant_id in grant_ids}
    if grant_ids:
        columns = oauth_grant_server.c.grant_id, oauth_grant_server.c.server_id
        for grant_id, server_id in await connection.execute(
            select(*columns).where(oauth_grant_server.c.grant_id.in_(grant_ids)).order_by(*columns)
        ):
            found[grant_id].append(server_id)
    return found


async def prune_grants(uow: UnitOfWork) -> None:
    """Remove codes, tokens and grants whose time is over, and grants that no token was ever fetched for."""
    now = uow.clock.time()
    await uow.execute(delete(oauth_code).where(oauth_code.c.expires_at < now - CODE_S))
    await uow.execute(delete(oauth_token).where(oauth_token.c.expires_at < now))
    left = select(oauth_token.c.grant_id).where(oauth_token.c.grant_id == oauth_grant.c.id).exists()
    await uow.execute(delete(oauth_grant).where((oauth_grant.c.expires_at < now) | ((oauth_grant.c.created_at < now - ACCESS_S) & ~left)))


async def _find(connection: AsyncConnection, grant_id: str, now: float) -> Row[Any] | None:
    query = select(oauth_grant).where(oauth_grant.c.id == grant_id, oauth_grant.c.expires_at > now)
    return (await connection.execute(query)).first()


def _fits(code: Row[Any], redirect_uri: str | None, verifier: str | None) -> bool:
    """Whether who redeems a code is who asked for it."""
    # With PKCE the redirect URI need not be said again (OAuth 2.1); what is said must be right.
    if redirect_uri is None:
        if code.redirect_uri is not None and code.challenge is None:
            return False
    elif redirect_uri != code.redirect_uri:
        return False
    if code.challenge is None:
        return verifier is None  # a verifier for a code without a challenge: somebody took the challenge away on the way (RFC 9700, 2.1.1)
    if verifier is None or _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(digest, code.challenge.encode())


def _require_grant_type(client: Client, grant_type: str) -> None:
    if grant_type not in client.grant_types:
        raise UnauthorizedClient


def _shown(row: Row[Any], servers: dict[str, list[str]]) -> Grant:
    listed = None if row.all_servers else tuple(servers[row.id])
    fields = {name: getattr(row, name) for name in Grant.__slots__ if name not in ("servers", "scopes")}
    return Grant(**fields, scopes=tuple(row.scopes), servers=listed)
