"""People as they show themselves, in the Plugged.in dialect (CONTRACT section 6)."""

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from plughub.api import user_shapes as shapes
from plughub.api.framework import CallerDep, ReadDep, UowDep
from plughub.api.reply import reply
from plughub.door.routes import PUBLIC, Route
from plughub.identity import showing
from plughub.identity.people import Person
from plughub.identity.service import Organization, get_organization
from plughub.identity.showing import Showing
from plughub.identity.usernames import normal_username
from plughub.kit.caller import Caller
from plughub.kit.errors import Invalid
from plughub.kit.ids import public_id

Wanted = Annotated[str, Field(max_length=100), Query(description="The name to look for")]


async def get_profile(caller: CallerDep, connection: ReadDep) -> Response:
    """Who is calling, as they show themselves, and for which organisation; `profile_uuid` is its default profile."""
    person, shown = None, Showing()
    if caller.user_id is not None:
        person, shown = await showing.get_own(connection, caller.user_id)
    return reply(_self(person, shown, await get_organization(connection, caller.organization_id), caller))


async def update_profile(caller: CallerDep, uow: UowDep, body: shapes.ProfileIn) -> Response:
    """Change what the person says of themselves; nothing of it is shown to others unless `is_public`. A key has no profile (403)."""
    person, shown = await showing.change_own(uow, caller, body.model_dump(exclude_unset=True))
    return reply(_self(person, shown, await get_organization(uow.connection, caller.organization_id), caller))


async def get_user(connection: ReadDep, username: str) -> Response:
    """Somebody who shows themselves to everybody."""
    shown, servers_count = await showing.get_public(connection, username)
    return reply({**_shown(shown), "followers_count": 0, "following_count": 0, "servers_count": servers_count})


async def check_username(connection: ReadDep, username: Wanted) -> Response:
    """Whether a name can be had. Names that look alike count as one, and some are kept free."""
    try:
        name = normal_username(username)
    except Invalid as error:
        return reply({"available": False, "message": error.text})
    free = await showing.is_free(connection, name)
    return reply({"available": True} if free else {"available": False, "message": "This username is taken, or looks like one that is"})


def _self(person: Person | None, shown: Showing, here: Organization, caller: Caller) -> dict[str, Any]:
    return {
        "id": None if person is None else public_id("user", person.id),
        "email": None if person is None else person.email,
        "name": None if person is None else person.name,
        **_shown(shown),
        "organization": {"id": public_id("org", here.id), "name": here.name, "slug": here.slug},
        "environment": caller.environment,
        "profile_uuid": here.live_profile_id if caller.environment == "live" else here.test_profile_id,
    }


def _shown(found: Showing) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Showing.__slots__}


_TAG = "Accounts"
_READ, _WRITE = "read:profile", "write:profile"
ROUTES = [
    Route("GET", "/api/profile", _READ, get_profile, "Get my profile", _TAG, output=shapes.ProfileSelf),
    Route("PATCH", "/api/profile", _WRITE, update_profile, "Change my profile", _TAG, output=shapes.ProfileSelf),
    Route("PATCH", "/api/users/profile", _WRITE, update_profile, "Change my profile", _TAG, output=shapes.ProfileSelf),
    Route("GET", "/api/users/{username}", PUBLIC, get_user, "Get a user", _TAG, output=shapes.PublicUser),
    Route("GET", "/api/check-username", PUBLIC, check_username, "Check a username", _TAG, output=shapes.UsernameOut),
]
