"""Rules of organisations: how one comes to be, and what it may do."""

import re
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import organization, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import ORGANIZATION_UPDATED, OrganizationChanged
from plughub.identity import store
from plughub.kit.caller import SCOPES, TIERS, Caller, Environment
from plughub.kit.errors import Invalid, NotFound
from plughub.kit.ids import new_id

OPERATOR_TIER = "enterprise"
_SLUG = 40


@dataclass(frozen=True, slots=True)
class Organization:
    """An organisation with its two spaces and the default profile of each."""

    id: str
    name: str
    slug: str
    tier: str
    operator: bool
    stdio_allowed: bool
    live_space_id: str
    live_profile_id: str
    test_space_id: str
    test_profile_id: str
    description: str
    created_at: float

    def space_id(self, environment: Environment) -> str:
        """The space of an environment."""
        return self.live_space_id if environment == "live" else self.test_space_id

    def founder(self, environment: Environment = "live") -> Caller:
        """A caller with every right in the organisation, of nobody's key: it makes the first key and the demo server."""
        return Caller(
            organization_id=self.id,
            space_id=self.space_id(environment),
            environment=environment,
            key_id="",
            kind="secret",
            scopes=SCOPES,
            servers=None,
            tier=TIERS[self.tier],
            operator=self.operator,
            stdio_allowed=self.operator or self.stdio_allowed,
        )


async def ensure_operator(uow: UnitOfWork) -> Organization | None:
    """Make the operator's organisation if there is none; None when it was there already."""
    await store.lock_hub(uow)
    if await store.has_operator(uow.connection):
        return None
    return await _create(uow, "Operator", OPERATOR_TIER, operator=True, stdio_allowed=True)


async def create_organization(uow: UnitOfWork, name: str, tier: str = "free", *, stdio_allowed: bool = False) -> Organization:
    """Make an organisation with both spaces, each with a default project and profile. Raises Invalid."""
    return await _create(uow, name, tier, operator=False, stdio_allowed=stdio_allowed)


async def get_organization(connection: AsyncConnection, organization_id: str) -> Organization:
    """Raises NotFound."""
    found = await store.find_organization(connection, organization_id)
    if found is None:
        raise NotFound
    return Organization(**{name: found[name] for name in Organization.__slots__})


async def get_operator_id(connection: AsyncConnection) -> str:
    """The operator's organisation, which the first start has made."""
    found: str = (await connection.execute(select(organization.c.id).where(organization.c.operator))).scalar_one()
    return found


async def update_organization(
    uow: UnitOfWork,
    organization_id: str,
    *,
    tier: str | None = None,
    stdio_allowed: bool | None = None,
    name: str | None = None,
    description: str | None = None,
) -> Organization:
    """Change what an organisation may use or how it is called; its callers feel it from the next request on. Raises NotFound, Invalid."""
    if tier is not None and tier not in TIERS:
        raise Invalid("tier", f"The 'tier' must be one of {', '.join(TIERS)}", tier)
    given = {"tier": tier, "stdio_allowed": stdio_allowed, "name": name, "description": description}
    changes = {column: value for column, value in given.items() if value is not None}
    if changes:
        await uow.execute(update(organization).where(organization.c.id == organization_id).values(**changes))
    now = await get_organization(uow.connection, organization_id)
    if changes:
        data: OrganizationChanged = {"organization_id": organization_id}
        for space_id in (await uow.execute(select(space.c.id).where(space.c.organization_id == organization_id))).scalars():
            uow.emit(ORGANIZATION_UPDATED, space_id=space_id, data=data)
    return now


async def _create(uow: UnitOfWork, name: str, tier: str, *, operator: bool, stdio_allowed: bool) -> Organization:
    if tier not in TIERS:
        raise Invalid("tier", f"The 'tier' must be one of {', '.join(TIERS)}", tier)
    organization_id = new_id()
    slug = await _free_slug(uow, name)
    await store.insert_organization(
        uow,
        {"id": organization_id, "name": name, "slug": slug, "tier": tier, "operator": operator, "stdio_allowed": stdio_allowed},
    )
    live_space_id, live_profile_id = await store.insert_space(uow, organization_id, "live")
    test_space_id, test_profile_id = await store.insert_space(uow, organization_id, "test")
    return Organization(
        organization_id,
        name,
        slug,
        tier,
        operator,
        stdio_allowed,
        live_space_id,
        live_profile_id,
        test_space_id,
        test_profile_id,
        "",
        uow.clock.time(),
    )


async def _free_slug(uow: UnitOfWork, name: str) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG].rstrip("-") or "organization"
    taken = await store.list_slugs(uow.connection, base)
    slug, number = base, 1
    while slug in taken:
        number += 1
        slug = f"{base}-{number}"
    return slug
