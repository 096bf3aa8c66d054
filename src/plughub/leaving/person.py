"""The end of an account: memberships, sessions, keys and grants as when somebody is removed, then whatever names them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sqlalchemy import bindparam, delete, func, select, update

from plughub.db.columns import metadata
from plughub.db.tables import audit, audit_head, event, invitation, membership, person, person_link, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import MEMBER_ADDED, MEMBER_INVITED, MEMBER_REMOVED, MEMBER_UNINVITED, MEMBER_UPDATED
from plughub.identity.deeds import home_of, user_deed
from plughub.identity.members import leave_organization
from plughub.identity.people import Person, Place, list_places, update_person
from plughub.identity.service import get_operator_id, get_organization
from plughub.identity.sessions import end_sessions
from plughub.keys.of_people import list_keys_of, revoke_keys
from plughub.keys.schemas import Key
from plughub.kit.errors import Conflict
from plughub.kit.ids import public_id
from plughub.leaving.organization import lock_organizations, remove_organization

USER_DELETED: Final = "user.deleted"
# Events that tell the address of somebody's account.
_NAMING = (MEMBER_ADDED, MEMBER_UPDATED, MEMBER_REMOVED, MEMBER_INVITED, MEMBER_UNINVITED)
_AUDIT = frozenset({audit.name, audit_head.name})
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Farewell:
    """What becomes of the keys that somebody has made, and of the organisations that are theirs alone; None: they are asked."""

    keys: Literal["keep", "revoke"] | None = None
    organizations: Literal["delete"] | None = None


async def delete_person(uow: UnitOfWork, somebody: Person, farewell: Farewell) -> None:
    """Remove an account, whose row is locked, and all that names it; organisations that nobody else is in go along.

    Raises Conflict, naming what stands in the way: `last_owner` of an organisation with other members, or of the operator's;
    `organizations` that would go along and `keys` that were made, when nothing was said of them.
    """
    places = await list_places(uow.connection, somebody.id)
    await lock_organizations(uow, [place.organization_id for place in places])
    alone, shared = await _divided(uow, places)
    if alone and farewell.organizations is None:
        what = "Organizations that nobody else is in go along: say so"
        raise Conflict(what, reason="organizations", organizations=_shown(alone), hint='Send "organizations": "delete", or invite somebody')
    keys = [key for place in shared for key in await list_keys_of(uow, place.organization_id, somebody.id)]
    if keys and farewell.keys is None:
        raise Conflict("You have made keys: say whether to keep or revoke them", reason="keys", keys=[_key(key) for key in keys[:_NAMED]])
    home = await home_of(uow, somebody)
    # From here on whatever is told of them, in the log and the audit, names nobody.
    gone = replace(somebody, email=f"deleted:{somebody.id}", name="Deleted account")
    await update_person(uow, somebody.id, {"email": gone.email, "name": gone.name})
    if farewell.keys == "revoke":
        await revoke_keys(uow, keys)
    for place in shared:
        await leave_organization(uow, place.organization_id, somebody.id)
    await end_sessions(uow, somebody.id)
    for place in alone:
        await remove_organization(uow, await get_organization(uow.connection, place.organization_id))
    uow.audit(user_deed(USER_DELETED, gone, home, before={"organizations": len(places), "keys": len(keys)}))
    await _forget(uow, somebody)


async def _divided(uow: UnitOfWork, places: Sequence[Place]) -> tuple[list[Place], list[Place]]:
    """The organisations that nobody else is in, and the others. Raises Conflict for those that would be left without an owner."""
    ids = [place.organization_id for place in places]
    grouped = select(membership.c.organization_id, membership.c.role, func.count().label("people"))
    grouped = grouped.where(membership.c.organization_id.in_(ids)).group_by(membership.c.organization_id, membership.c.role)
    counted: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    for row in await uow.execute(grouped):
        counted[row.organization_id][row.role] = row.people
    operator_id = await get_operator_id(uow.connection)
    last = [place for place in places if place.role == "owner" and counted[place.organization_id]["owner"] == 1]
    alone = [place for place in last if len(counted[place.organization_id]) == 1 and place.organization_id != operator_id]
    shared = [place for place in places if place not in alone]
    stuck = [place for place in last if place not in alone]
    if stuck:
        raise Conflict("An organization needs an owner: make somebody else one first", reason="last_owner", organizations=_shown(stuck))
    return alone, shared


async def _forget(uow: UnitOfWork, somebody: Person) -> None:
    """Remove what names them: their rows, what they are noted in as the maker, letters and links to them, their address in the log."""
    for table in reversed(metadata.sorted_tables):
        if table.name in _AUDIT or table.name == person.name:
            continue
        for name in ("person_id", "user_id"):
            if name in table.c:
                await uow.execute(delete(table).where(table.c[name] == somebody.id))
        if "created_by" in table.c:
            await uow.execute(update(table).where(table.c.created_by == somebody.id).values(created_by=None))
    await uow.execute(delete(person_link).where(person_link.c.email == somebody.email))
    await uow.execute(delete(invitation).where(invitation.c.email == somebody.email))
    await uow.execute(delete(person).where(person.c.id == somebody.id))
    await _unname_events(uow, somebody.email)


async def _unname_events(uow: UnitOfWork, email: str) -> None:
    told = json.dumps({"email": email}, ensure_ascii=False, separators=(",", ":"))[1:-1]
    # By space, for there is the index; the names are few and their rows too.
    query = select(event.c.space_id, event.c.seq, event.c.data).join(space, space.c.id == event.c.space_id)
    query = query.where(event.c.name.in_(_NAMING), event.c.data.contains(told, autoescape=True))
    rows = [{"in_space": row.space_id, "at_seq": row.seq, "unnamed": _without(row.data)} for row in await uow.execute(query)]
    if rows:
        told_again = update(event).where(event.c.space_id == bindparam("in_space"), event.c.seq == bindparam("at_seq"))
        await uow.execute(told_again.values(data=bindparam("unnamed")), rows)


def _without(data: str) -> str:
    return json.dumps({**json.loads(data), "email": ""}, ensure_ascii=False, separators=(",", ":"))


def _shown(places: Sequence[Place]) -> list[Mapping[str, Any]]:
    return [{"id": public_id("org", place.organization_id), "name": place.name, "role": place.role} for place in places[:_NAMED]]


def _key(key: Key) -> Mapping[str, Any]:
    return {"id": public_id("key", key.id), "name": key.name, "prefix": key.prefix, "environment": key.environment}
