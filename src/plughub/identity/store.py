"""SQL of organisations, spaces, projects and profiles."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import hub, organization, profile, project, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.ids import new_id


async def lock_hub(uow: UnitOfWork) -> None:
    """Whoever holds this row makes the first organisation; on SQLite the transaction itself is the lock."""
    await uow.execute(select(hub.c.id).with_for_update())


async def has_operator(connection: AsyncConnection) -> bool:
    """Whether the operator's organisation exists."""
    return (await connection.execute(select(organization.c.id).where(organization.c.operator).limit(1))).scalar() is not None


async def list_slugs(connection: AsyncConnection, base: str) -> set[str]:
    """The organisation slugs that begin with `base`."""
    query = select(organization.c.slug).where(organization.c.slug.startswith(base, autoescape=True))
    return set((await connection.execute(query)).scalars())


async def list_organization_ids(connection: AsyncConnection, limit: int, offset: int) -> tuple[Sequence[str], int]:
    """A page of organisations in the order they were made, and how many there are."""
    total = (await connection.execute(select(func.count()).select_from(organization))).scalar_one()
    query = select(organization.c.id).order_by(organization.c.created_at, organization.c.id).limit(limit).offset(offset)
    return (await connection.execute(query)).scalars().all(), total


async def insert_organization(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """One row."""
    await uow.execute(insert(organization).values(**values, created_at=uow.clock.time()))


async def insert_space(uow: UnitOfWork, organization_id: str, environment: str) -> tuple[str, str]:
    """A space with its default project and profile; the ids of space and profile."""
    space_id, project_id, profile_id = new_id(), new_id(), new_id()
    now = uow.clock.time()
    await uow.execute(
        insert(space).values(id=space_id, organization_id=organization_id, environment=environment, seq=0, epoch=secrets.token_hex(4))
    )
    await uow.execute(
        insert(project).values(
            id=project_id,
            organization_id=organization_id,
            space_id=space_id,
            name="Default",
            description="",
            is_default=True,
            created_at=now,
            updated_at=now,
        )
    )
    await uow.execute(
        insert(profile).values(
            id=profile_id,
            project_id=project_id,
            space_id=space_id,
            name="Default",
            slug="default",
            description="",
            is_default=True,
            created_at=now,
            updated_at=now,
        )
    )
    return space_id, profile_id


async def find_organization(connection: AsyncConnection, organization_id: str) -> Mapping[str, Any] | None:
    """The organisation's row with its spaces and their default profiles, one key a column, or None."""
    row = (await connection.execute(select(organization).where(organization.c.id == organization_id))).mappings().first()
    if row is None:
        return None
    found: dict[str, Any] = dict(row)
    query = (
        select(space.c.environment, space.c.id, profile.c.id)
        .join(profile, (profile.c.space_id == space.c.id) & profile.c.is_default)
        .join(project, (project.c.id == profile.c.project_id) & project.c.is_default)
        .where(space.c.organization_id == organization_id)
    )
    for environment, space_id, profile_id in await connection.execute(query):
        found[f"{environment}_space_id"] = space_id
        found[f"{environment}_profile_id"] = profile_id
    return found
