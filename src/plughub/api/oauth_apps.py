"""Apps of an organisation, and what a person allows clients (CONTRACT section 3)."""

from functools import partial
from typing import Any

from fastapi import Response

from plughub.api import oauth_shapes as shapes
from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, public_or_404, reply
from plughub.door.routes import SIGNED_IN, Route
from plughub.kit.clock import rfc3339
from plughub.kit.errors import GrantNotFound, SessionEnded
from plughub.kit.ids import public_id
from plughub.oauth import apps, clients, grants
from plughub.oauth.clients import Client, Registration
from plughub.oauth.grants import Grant


async def list_apps(caller: CallerDep, connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The apps of the organisation, oldest first."""
    found, total = await clients.list_apps(connection, caller.organization_id, limit, offset)
    return reply({"apps": [_app(app) for app in found], "total": total, "limit": limit, "offset": offset})


async def create_app(caller: CallerDep, uow: UowDep, hub: HubDep, body: shapes.AppIn) -> Response:
    """Register an app that this organisation vouches for. Anybody with an account here may allow it something."""
    given = Registration(
        kind="app",
        name=body.name,
        redirect_uris=body.redirect_uris,
        auth_method="client_secret_post" if body.confidential else "none",
        description=body.description,
    )
    app, secret = await apps.create_app(uow, hub.digests, caller, given, body.scopes)
    return reply({**_app(app), "client_secret": secret}, 201)


async def get_app(caller: CallerDep, connection: ReadDep, app_id: str) -> Response:
    """One app."""
    return reply(_app(await apps.get_app(connection, caller, app_id)))


async def update_app(caller: CallerDep, uow: UowDep, app_id: str, body: shapes.AppPatch) -> Response:
    """Change an app; what people have allowed it already stays as it is."""
    values = body.model_dump(exclude_unset=True)
    values = {name: value for name, value in values.items() if value is not None or name == "scopes"}
    return reply(_app(await apps.update_app(uow, caller, app_id, values)))


async def delete_app(caller: CallerDep, uow: UowDep, app_id: str) -> Response:
    """Remove an app with every token that it has."""
    await apps.delete_app(uow, caller, app_id)
    return Response(status_code=204)


async def new_secret(caller: CallerDep, uow: UowDep, hub: HubDep, app_id: str) -> Response:
    """Another secret. The old one is refused from now on; tokens that were given stay good."""
    app, secret = await apps.new_secret(uow, hub.digests, caller, app_id)
    return reply({"id": app.client_id, "client_id": app.client_id, "client_secret": secret})


async def list_grants(caller: CallerDep, connection: ReadDep, hub: HubDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """What the person allows which clients, in all of their organisations, the newest first."""
    found, total = await grants.list_grants(connection, _person_id(caller.user_id), hub.clock.time(), limit, offset)
    return reply({"grants": [_grant(grant) for grant in found], "total": total, "limit": limit, "offset": offset})


async def revoke_grant(caller: CallerDep, uow: UowDep, grant_id: str) -> Response:
    """Take it back: every token of it is refused from the next request on."""
    id_ = public_or_404("grant", grant_id, GrantNotFound.message)
    if not await grants.revoke_own(uow, _person_id(caller.user_id), id_):
        raise GrantNotFound
    return Response(status_code=204)


def _app(app: Client) -> dict[str, Any]:
    return {
        "id": app.client_id,
        "client_id": app.client_id,
        "name": app.name,
        "description": app.description,
        "redirect_uris": app.redirect_uris,
        "confidential": not app.public,
        "scopes": None if app.scopes is None else sorted(app.scopes),
        "created_at": rfc3339(app.created_at),
    }


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        "id": public_id("grant", grant.id),
        "client_id": grant.client_id,
        "client_name": grant.client_name,
        "organization_id": public_id("org", grant.organization_id),
        "organization_name": grant.organization_name,
        "scopes": grant.scopes,
        "servers": "*" if grant.servers is None else grant.servers,
        "resource": grant.resource,
        "created_at": rfc3339(grant.created_at),
        "expires_at": rfc3339(grant.expires_at),
    }


def _person_id(user_id: str | None) -> str:
    if user_id is None:
        raise SessionEnded
    return user_id


_APPS, _APP, _GRANTS = "/api/oauth/apps", "/api/oauth/apps/{app_id}", "/api/oauth/grants"
_row = partial(Route, tag="Apps", secret=True)
_own = partial(Route, tag="Accounts", secret=True)
ROUTES = [
    _row("GET", _APPS, "admin", list_apps, "List apps", output=shapes.AppList),
    _row("POST", _APPS, "admin", create_app, "Register an app", status=201, output=shapes.AppCreated),
    _row("GET", _APP, "admin", get_app, "Get an app", output=shapes.AppOut),
    _row("PATCH", _APP, "admin", update_app, "Change an app", output=shapes.AppOut),
    _row("DELETE", _APP, "admin", delete_app, "Remove an app", status=204),
    _row("POST", f"{_APP}/secret", "admin", new_secret, "Another secret", output=shapes.AppSecret),
    _own("GET", _GRANTS, SIGNED_IN, list_grants, "What I allow", output=shapes.GrantList),
    _own("DELETE", f"{_GRANTS}/{{grant_id}}", SIGNED_IN, revoke_grant, "Take it back", status=204),
]
