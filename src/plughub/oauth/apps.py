"""Rules of an organisation's own apps: clients that an administrator has registered and vouches for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import APP_CREATED, APP_DELETED, APP_UPDATED, AppChanged
from plughub.keys.service import permitted_scopes
from plughub.kit.caller import Caller
from plughub.kit.errors import AppNotFound, Conflict, Invalid
from plughub.kit.ids import parse_public_id
from plughub.oauth import clients
from plughub.oauth.clients import PREFIX, Client, Registration
from plughub.oauth.deeds import app_deed
from plughub.oauth.grants import revoke_client
from plughub.oauth.redirects import defect_of
from plughub.oauth.secret import SECRET, Digests, generate


async def create_app(
    uow: UnitOfWork, digests: Digests, caller: Caller, given: Registration, scopes: Sequence[str] | None
) -> tuple[Client, str | None]:
    """An app and its secret, which is told once. Raises Invalid, Forbidden for scopes that the caller has not."""
    check_redirects(given.redirect_uris)
    most = None if scopes is None else permitted_scopes(caller, scopes)
    made = replace(given, organization_id=caller.organization_id, scopes=most, created_by=caller.user_id or caller.key_id)
    client, secret = await clients.register(uow, digests, made)
    _emit(uow, APP_CREATED, caller, client)
    uow.audit(app_deed(APP_CREATED, caller.organization_id, None, client))
    return client, secret


async def get_app(connection: AsyncConnection, caller: Caller, text: str) -> Client:
    """An app of the caller's organisation by its client id. Raises AppNotFound."""
    id_ = parse_public_id(PREFIX, text)
    found = None if id_ is None else await clients.find_app(connection, caller.organization_id, id_)
    if found is None:
        raise AppNotFound
    return found


async def update_app(uow: UnitOfWork, caller: Caller, text: str, values: dict[str, Any]) -> Client:
    """Change name, description, redirect URIs or scopes; what people have allowed already stays. Raises AppNotFound, Invalid, Forbidden."""
    app = await get_app(uow.connection, caller, text)
    if "redirect_uris" in values:
        check_redirects(values["redirect_uris"])
    if values.get("scopes") is not None:
        values["scopes"] = sorted(permitted_scopes(caller, values["scopes"]))
    await clients.update_client(uow, app.id, values)
    _emit(uow, APP_UPDATED, caller, app, sorted(values))
    changed = await get_app(uow.connection, caller, text)
    if changed != app:
        uow.audit(app_deed(APP_UPDATED, caller.organization_id, app, changed))
    return changed


async def new_secret(uow: UnitOfWork, digests: Digests, caller: Caller, text: str) -> tuple[Client, str]:
    """Another secret in the place of the old one. Raises AppNotFound, Conflict for an app without a secret."""
    app = await get_app(uow.connection, caller, text)
    if app.public:
        raise Conflict("The app has no secret: it can keep none")
    secret = generate(SECRET)
    digest = digests.new(secret)
    await clients.update_client(uow, app.id, {"secret_digest": digest})
    _emit(uow, APP_UPDATED, caller, app, ["client_secret"])
    uow.audit(app_deed(APP_UPDATED, caller.organization_id, app, replace(app, secret_digest=digest)))
    return app, secret


async def delete_app(uow: UnitOfWork, caller: Caller, text: str) -> None:
    """Remove an app; every token that it has is refused from the next request on. Raises AppNotFound."""
    app = await get_app(uow.connection, caller, text)
    await revoke_client(uow, app.client_id, caller.organization_id)
    await clients.delete_client(uow, app.id)
    _emit(uow, APP_DELETED, caller, app)
    uow.audit(app_deed(APP_DELETED, caller.organization_id, app, None))


def check_redirects(uris: Sequence[str]) -> None:
    """Raise Invalid for a redirect URI that may not be registered."""
    for uri in uris:
        if (defect := defect_of(uri)) is not None:
            raise Invalid("redirect_uris", f"A redirect URI is not allowed: {defect}", uri)


def _emit(uow: UnitOfWork, name: str, caller: Caller, app: Client, changed: list[str] | None = None) -> None:
    data: AppChanged = {"client_id": app.client_id, "name": app.name}
    if changed:
        data["changed"] = changed
    uow.emit(name, space_id=caller.space_id, key_id=caller.key_id or None, data=data)
