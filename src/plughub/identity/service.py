"""Rules of organisations: how one comes to be, and what it may do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import ORGANIZATION_CREATED, Deed
from plughub.db.tables import organization
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import ORGANIZATION_UPDATED, OrganizationChanged
from plughub.identity import store
from plughub.kit.caller import NUMBERED_TIER, NUMBERS, SCOPES, TIERS, Caller, Environment, Tier, tier_with
from plughub.kit.errors import Invalid, OrganizationNotFound
from plughub.kit.ids import new_id
from plughub.kit.pagination import Page

OPERATOR_TIER = "enterprise"
_SLUG = 40
# An organisation's own limits by their names in `kit.caller.NUMBERS`: a number, or None for the tier's; what is left out stays.
Numbers = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Organization:
    """An organisation with its two spaces and the default profile of each. Its own numbers (`…_limit`) stand in for its tier's."""

    id: str
    name: str
    slug: str
    tier: str
    operator: bool
    stdio_allowed: bool
    created_at: float
    description: str
    hourly_limit: int | None
    burst_limit: int | None
    concurrency_limit: int | None
    live_space_id: str
    live_profile_id: str
    test_space_id: str
    test_profile_id: str

    def space_id(self, environment: Environment) -> str:
        """The space of an environment."""
        return self.live_space_id if environment == "live" else self.test_space_id

    def allowance(self) -> Tier:
        """What it may use."""
        return tier_with(self.tier, self.hourly_limit, self.burst_limit, self.concurrency_limit)

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
            tier=self.allowance(),
            operator=self.operator,
            stdio_allowed=self.operator or self.stdio_allowed,
        )


async def ensure_operator(uow: UnitOfWork) -> Organization | None:
    """Make the operator's organisation if there is none; None when it was there already."""
    await store.lock_hub(uow)
    if await store.has_operator(uow.connection):
        return None
    return await _create(uow, "Operator", OPERATOR_TIER, operator=True, stdio_allowed=True)


async def create_organization(
    uow: UnitOfWork, name: str, tier: str = "free", *, stdio_allowed: bool = False, limits: Numbers | None = None, by: str | None = None
) -> Organization:
    """Make an organisation with both spaces, each with a default project and profile; the audit of `by` tells of it too. Raises Invalid."""
    made = await _create(uow, name, tier, operator=False, stdio_allowed=stdio_allowed, limits=limits)
    _audit_by(uow, by, ORGANIZATION_CREATED, None, made)
    return made


async def get_organization(connection: AsyncConnection, organization_id: str) -> Organization:
    """Raises OrganizationNotFound."""
    found = await store.find_organization(connection, organization_id)
    if found is None:
        raise OrganizationNotFound
    return Organization(**{name: found[name] for name in Organization.__slots__})


async def list_organizations(connection: AsyncConnection, *, limit: int, offset: int) -> Page[Organization]:
    """Every organisation of the hub, oldest first: for its operator."""
    ids, total = await store.list_organization_ids(connection, limit, offset)
    return Page([await get_organization(connection, id_) for id_ in ids], total, limit, offset)


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
    limits: Numbers | None = None,
    by: str | None = None,
) -> Organization:
    """Change what an organisation may use; its callers feel it from the next request on. `limits`: see `Numbers`. The audit of the
    organisation `by` tells of it too.

    Raises OrganizationNotFound, Invalid.
    """
    before = await get_organization(uow.connection, organization_id)
    wanted: dict[str, Any] = {"tier": tier, "stdio_allowed": stdio_allowed}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    return await _change(uow, before, wanted | _numbers(tier or before.tier, limits), by)


async def describe_organization(
    uow: UnitOfWork, organization_id: str, *, name: str | None = None, description: str | None = None
) -> Organization:
    """Change how an organisation is called. Raises OrganizationNotFound."""
    before = await get_organization(uow.connection, organization_id)
    wanted = {"name": name, "description": description}
    return await _change(uow, before, {column: text for column, text in wanted.items() if text is not None})


async def _change(uow: UnitOfWork, before: Organization, wanted: Mapping[str, Any], by: str | None = None) -> Organization:
    changes = {name: value for name, value in wanted.items() if value != getattr(before, name)}
    if not changes:
        return before
    await uow.execute(update(organization).where(organization.c.id == before.id).values(**changes))
    data: OrganizationChanged = {"organization_id": before.id}
    for space_id in (before.live_space_id, before.test_space_id):
        uow.emit(ORGANIZATION_UPDATED, space_id=space_id, data=data)
    now = replace(before, **changes)
    uow.audit(_deed(ORGANIZATION_UPDATED, before, now))
    _audit_by(uow, by, ORGANIZATION_UPDATED, before, now)
    return now


def _numbers(tier: str, limits: Numbers | None) -> dict[str, int | None]:
    """The columns to set. A tier whose numbers are fixed takes an organisation's own away. Raises Invalid."""
    if tier not in TIERS:
        raise Invalid("tier", f"The 'tier' must be one of {', '.join(TIERS)}", tier)
    if tier != NUMBERED_TIER:
        if any(number is not None for number in (limits or {}).values()):
            raise Invalid("limits", f"The 'limits' are set for the tier {NUMBERED_TIER} alone: those of {tier} are fixed")
        return {f"{name}_limit": None for name in NUMBERS}
    return {f"{name}_limit": number for name, number in (limits or {}).items()}


async def _create(
    uow: UnitOfWork, name: str, tier: str, *, operator: bool, stdio_allowed: bool, limits: Numbers | None = None
) -> Organization:
    numbers = _numbers(tier, limits)
    organization_id = new_id()
    slug = await _free_slug(uow, name)
    values = {"id": organization_id, "name": name, "slug": slug, "tier": tier, "operator": operator, "stdio_allowed": stdio_allowed}
    await store.insert_organization(uow, {**values, **numbers})
    for environment in ("live", "test"):
        await store.insert_space(uow, organization_id, environment)
    made = await get_organization(uow.connection, organization_id)
    uow.audit(_deed(ORGANIZATION_CREATED, None, made))
    return made


def _deed(action: str, before: Organization | None, after: Organization) -> Deed:
    return Deed(action, "organization", after.id, after.name, organization_id=after.id, before=_audited(before), after=_audited(after))


def _audit_by(uow: UnitOfWork, by: str | None, action: str, before: Organization | None, after: Organization) -> None:
    if by is not None and by != after.id:
        uow.audit(replace(_deed(action, before, after), organization_id=by))


def _audited(found: Organization | None) -> dict[str, Any]:
    names = ("name", "description", "slug", "tier", "operator", "stdio_allowed", *(f"{name}_limit" for name in NUMBERS))
    return {} if found is None else {name: getattr(found, name) for name in names}


async def _free_slug(uow: UnitOfWork, name: str) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG].rstrip("-") or "organization"
    taken = await store.list_slugs(uow.connection, base)
    slug, number = base, 1
    while slug in taken:
        number += 1
        slug = f"{base}-{number}"
    return slug
