"""What people say of themselves, and what of it others see: nothing, until they say so."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.collection_tables import collection, collection_server, person_profile
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.deeds import PROFILE_CHANGED, user_deed
from plughub.identity.people import Person, find_person, lock_person, update_person
from plughub.identity.usernames import likeness, normal_username
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, Forbidden, Invalid, UserNotFound


@dataclass(frozen=True, slots=True)
class Showing:
    """What somebody says of themselves. `is_public`: everybody may see it, but for the name and the address of their account."""

    username: str | None = None
    bio: str = ""
    avatar_url: str | None = None
    social_links: Mapping[str, str] = field(default_factory=dict)
    is_public: bool = False


_COLUMNS = tuple(person_profile.c[name] for name in Showing.__slots__)


async def get_own(connection: AsyncConnection, person_id: str) -> tuple[Person, Showing]:
    """The account of somebody, and what they say of themselves. Raises UserNotFound."""
    person = await find_person(connection, person_id=person_id)
    if person is None:
        raise UserNotFound
    return person, await _showing(connection, person_id)


async def change_own(uow: UnitOfWork, caller: Caller, changes: Mapping[str, Any]) -> tuple[Person, Showing]:
    """Set what is given of `name` and the fields of `Showing`; null takes one back.

    Raises Forbidden (a key is nobody), Invalid, Conflict (the name is taken, or looks like one that is).
    """
    if caller.user_id is None:
        raise Forbidden("A key belongs to an organization, and has no profile", reason="person_required")
    person = await lock_person(uow, caller.user_id)
    if person is None:
        raise UserNotFound
    before = await _showing(uow.connection, person.id)
    given = {name: _EMPTY[name] if value is None else value for name, value in changes.items() if name in Showing.__slots__}
    if given.get("username") is not None:
        given["username"] = normal_username(given["username"])
    after = replace(before, **given)
    if after.is_public and after.username is None:
        raise Invalid("username", "The 'username' field is required: what is public is shown under it")
    renamed = replace(person, name=changes.get("name") or person.name)
    if after != before:
        await _keep(uow, person.id, after)
    if renamed != person:
        await update_person(uow, person.id, {"name": renamed.name})
    if (after, renamed) != (before, person):
        told = user_deed(PROFILE_CHANGED, person, caller.organization_id, before=_audited(person, before), after=_audited(renamed, after))
        uow.audit(told)
    return renamed, after


async def get_public(connection: AsyncConnection, username: str) -> tuple[Showing, int]:
    """What somebody shows to everybody, and how many servers stand in the public collections that they have made.

    Raises UserNotFound: whoever shows nothing is as somebody who is not there.
    """
    query = select(person_profile.c.person_id, *_COLUMNS).where(person_profile.c.username == username.lower(), person_profile.c.is_public)
    row = (await connection.execute(query)).first()
    if row is None:
        raise UserNotFound
    made = (collection.c.created_by == row.person_id, collection.c.is_public)
    servers = select(func.count(collection_server.c.server_id.distinct())).join(collection).where(*made)
    return Showing(*tuple(row)[1:]), (await connection.execute(servers)).scalar_one()


async def is_free(connection: AsyncConnection, name: str) -> bool:
    """Whether nobody has a name that looks like this one, which is in its normal form."""
    query = select(person_profile.c.person_id).where(person_profile.c.likeness == likeness(name))
    return (await connection.execute(query)).first() is None


async def _showing(connection: AsyncConnection, person_id: str) -> Showing:
    row = (await connection.execute(select(*_COLUMNS).where(person_profile.c.person_id == person_id))).first()
    return Showing() if row is None else Showing(*row)


async def _keep(uow: UnitOfWork, person_id: str, now_is: Showing) -> None:
    values: dict[str, Any] = {name: getattr(now_is, name) for name in Showing.__slots__}
    values |= {"likeness": None if now_is.username is None else likeness(now_is.username), "updated_at": uow.clock.time()}
    try:
        changed = await uow.execute(update(person_profile).where(person_profile.c.person_id == person_id).values(**values))
        if not changed.rowcount:
            await uow.execute(insert(person_profile).values(person_id=person_id, **values))
    except IntegrityError as error:
        raise Conflict("This username is taken, or looks like one that is", hint="Choose another") from error


_EMPTY: Mapping[str, Any] = {"username": None, "bio": "", "avatar_url": None, "social_links": {}, "is_public": False}


def _audited(person: Person, shown: Showing) -> dict[str, Any]:
    return {"name": person.name, **{name: getattr(shown, name) for name in Showing.__slots__}}
