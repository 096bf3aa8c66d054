"""The organisations of the hub, for its operator (CONTRACT section 3, "operator"): tiers, limits, who may run commands on the host."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.admin_shapes import OperatedOrganization, OperatedOrganizationCreated, OperatedOrganizationList
from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import Offset, PageLimit, public_or_404, reply
from plughub.door.routes import Route
from plughub.identity import service
from plughub.identity.service import Organization
from plughub.keys.schemas import KeyCreate, RateLimit
from plughub.keys.service import create_key
from plughub.kit.caller import OPERATOR
from plughub.kit.clock import rfc3339
from plughub.kit.errors import OrganizationNotFound
from plughub.kit.ids import public_id

TierName = Literal["free", "pro", "business", "enterprise"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class OperatedOrganizationCreate(BaseModel):
    """`limits`: numbers in the place of the tier's, for enterprise alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    tier: TierName = "free"
    # Factories: they may not be null, and a plain default would be shown as one.
    stdio_allowed: bool = False
    limits: RateLimit = Field(default_factory=RateLimit)


class OperatedOrganizationUpdate(BaseModel):
    """What is not given stays; so does a number of `limits`. Null = the tier's own, for all of them or for one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tier: TierName | None = None
    stdio_allowed: bool | None = None
    limits: RateLimit | None = None


async def list_organizations(connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """Every organisation of the hub, oldest first."""
    page = await service.list_organizations(connection, limit=limit, offset=offset)
    return reply({"organizations": [_shown(found) for found in page.items], "total": page.total, "limit": limit, "offset": offset})


async def create_organization(caller: CallerDep, uow: UowDep, hub: HubDep, body: OperatedOrganizationCreate) -> Response:
    """Make an organisation, and a first key in it with `admin`: whoever gets it makes all others. It is in this answer and nowhere else."""
    limits = body.limits.model_dump(exclude_unset=True)
    made = await service.create_organization(
        uow, body.name, body.tier, stdio_allowed=body.stdio_allowed, limits=limits, by=caller.organization_id
    )
    first = KeyCreate(name="First key", scopes=["admin"], description="Made with the organisation by the hub's operator")
    _, secret = await create_key(uow, made.founder(), first, hub.peppers)
    return reply({**_shown(made), "key": secret}, 201)


async def get_organization(connection: ReadDep, organization_id: str) -> Response:
    """One organisation."""
    return reply(_shown(await service.get_organization(connection, _id(organization_id))))


async def update_organization(caller: CallerDep, uow: UowDep, organization_id: str, body: OperatedOrganizationUpdate) -> Response:
    """Change what an organisation may use: its keys feel it from the next request on, on every process."""
    limits: dict[str, int | None] = {}
    if "limits" in body.model_fields_set:
        limits = dict.fromkeys(RateLimit.model_fields) if body.limits is None else body.limits.model_dump(exclude_unset=True)
    found = await service.update_organization(
        uow, _id(organization_id), tier=body.tier, stdio_allowed=body.stdio_allowed, limits=limits, by=caller.organization_id
    )
    return reply(_shown(found))


def _shown(found: Organization) -> dict[str, Any]:
    allowed = found.allowance()
    return {
        "id": public_id("org", found.id),
        "name": found.name,
        "slug": found.slug,
        "tier": found.tier,
        "limits": {"hourly": allowed.hourly, "burst": allowed.burst, "concurrency": allowed.concurrency},
        "operator": found.operator,
        "stdio_allowed": found.operator or found.stdio_allowed,
        "created_at": rfc3339(found.created_at),
    }


def _id(text: str) -> str:
    return public_or_404("org", text, OrganizationNotFound.message)


_PATH, _TAG = "/api/admin/organizations", "Operator"
_ONE = _PATH + "/{organization_id}"
_row = partial(Route, scope=OPERATOR, tag=_TAG)
ROUTES = [
    _row("GET", _PATH, handler=list_organizations, summary="List organisations", output=OperatedOrganizationList),
    _row(
        "POST",
        _PATH,
        handler=create_organization,
        summary="Make an organisation",
        status=201,
        output=OperatedOrganizationCreated,
        secret=True,
    ),
    _row("GET", _ONE, handler=get_organization, summary="Get an organisation", output=OperatedOrganization),
    _row("PATCH", _ONE, handler=update_organization, summary="Change what an organisation may use", output=OperatedOrganization),
]
