"""The keys that somebody has made, in both environments of an organisation: what is left when they go."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import api_key, person
from plughub.db.unit_of_work import UnitOfWork
from plughub.keys.schemas import Key
from plughub.keys.service import get_key, revoke_key
from plughub.kit.caller import SCOPES, TIERS, Caller, Environment


async def list_keys_of(uow: UnitOfWork, organization_id: str, person_id: str) -> Sequence[Key]:
    """Those that are not revoked, the oldest first."""
    query = select(api_key.c.id, api_key.c.space_id, api_key.c.environment).where(
        api_key.c.organization_id == organization_id, api_key.c.created_by == person_id, api_key.c.status != "revoked"
    )
    rows = (await uow.execute(query.order_by(api_key.c.created_at, api_key.c.id))).all()
    return [await get_key(uow.connection, _anybody(organization_id, row.space_id, row.environment), row.id) for row in rows]


async def email_of_maker(connection: AsyncConnection, key: Key) -> str | None:
    """Whoever made the key; None when another key made it, or nobody did."""
    found: str | None = await connection.scalar(select(person.c.email).where(person.c.id == key.created_by))
    return found


async def revoke_keys(uow: UnitOfWork, keys: Sequence[Key]) -> None:
    """Revoke them for good, each with its event."""
    for key in keys:
        await revoke_key(uow, _anybody(key.organization_id, key.space_id, key.environment), key.id)


def _anybody(organization_id: str, space_id: str, environment: Environment) -> Caller:
    """Whoever may remove somebody may take their keys along, also from the other environment."""
    return Caller(organization_id, space_id, environment, "", "secret", SCOPES, None, TIERS["free"], operator=False, stdio_allowed=False)
