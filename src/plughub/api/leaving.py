"""Who leaves, and what they take along (CONTRACT section 6)."""

from dataclasses import asdict

from fastapi import Response

from plughub.api import leaving_shapes as shapes
from plughub.api.auth import AskedDep
from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep, UowDep
from plughub.api.reply import public_or_404, reply
from plughub.db.audit import Deed
from plughub.door.routes import SIGNED_IN, Route
from plughub.identity.people import find_role
from plughub.identity.showing import get_own
from plughub.kit.errors import OrganizationNotFound
from plughub.leaving import export, importing
from plughub.leaving.organization import delete_organization
from plughub.leaving.person import Farewell, delete_person
from plughub.leaving.schemas import OrganizationDocument


async def export_organization(caller: CallerDep, connection: ReadDep, actor: ActorDep, hub: HubDep) -> Response:
    """The configuration of the organization in the caller's environment: projects, profiles, servers, keys, collections. No secret is
    in it: those of servers are names in double braces, those of keys are left out. That it was exported is itself audited."""
    found = await export.export_organization(connection, caller, hub.sealer, hub.clock.time())
    counted = {name: len(found[name]) for name in ("servers", "keys", "collections")}
    name = found["organization"]["name"]
    async with hub.database.unit_of_work(actor) as uow:
        told = Deed(export.ORGANIZATION_EXPORTED, "organization", caller.organization_id, name, caller.space_id, note=counted)
        uow.audit(told)
    return reply(found)


async def import_organization(caller: CallerDep, uow: UowDep, hub: HubDep, body: shapes.ImportIn) -> Response:
    """Make what an export holds, beside what is there: projects, profiles, servers and collections, all of them or none. The default
    project and profile are the organization's own. Each placeholder without a value is asked for by its name (400); keys are left out."""
    return reply(asdict(await importing.import_organization(uow, caller, hub.sealer, body.document, body.values)))


async def export_account(caller: CallerDep, connection: ReadDep, hub: HubDep) -> Response:
    """What the hub knows of the person who is logged in."""
    person, shown = await get_own(connection, caller.user_id or "")
    return reply(await export.export_person(connection, person, shown, hub.clock.time()))


async def remove_account(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.FarewellIn) -> Response:
    """Remove the account of the person who is logged in, and whatever names them. The password is asked for again, and a code where
    there is a second factor. A 409 says what has to be decided first: keys they have made, organizations that only they are in or own."""
    accounts = hub.accounts
    person = await accounts.prove(caller, asked.visit, body.password, forgive=False)
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        person = await accounts.prove_again(uow, person, body.code)
        await accounts.attempts.forgive(uow, asked.visit.address, person.email)
        await delete_person(uow, person, Farewell(body.keys, body.organizations))
    return asked.signed_out(Response(status_code=204))


async def remove_organization(caller: CallerDep, hub: HubDep, asked: AskedDep, organization_id: str, body: shapes.GoodbyeIn) -> Response:
    """Remove an organization that the person owns, with all that is in it, in both environments, for good. The password is asked for
    again, and a code where there is a second factor. The operator's own stays (409)."""
    wanted = public_or_404("org", organization_id, OrganizationNotFound.message)
    async with hub.database.read() as connection:
        if await find_role(connection, wanted, caller.user_id or "") is None:
            raise OrganizationNotFound
    person = await hub.accounts.prove(caller, asked.visit, body.password, forgive=False)
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        person = await hub.accounts.prove_again(uow, person, body.code)
        await hub.accounts.attempts.forgive(uow, asked.visit.address, person.email)
        await delete_organization(uow, wanted, person.id)
    return Response(status_code=204)


_TAG, _ACCOUNT = "Accounts", "/api/settings/account"
ROUTES = [
    Route("GET", "/api/export", "admin", export_organization, "Export it all", "Organizations", output=OrganizationDocument, secret=True),
    Route("POST", "/api/import", "admin", import_organization, "Import it all", "Organizations", output=shapes.SettledOut),
    Route("GET", _ACCOUNT + "/export", SIGNED_IN, export_account, "Export my data", _TAG, output=shapes.PersonExport, secret=True),
    Route("DELETE", _ACCOUNT, SIGNED_IN, remove_account, "Remove my account", _TAG, status=204, secret=True),
    Route("DELETE", "/api/organizations/{organization_id}", SIGNED_IN, remove_organization, "Remove an organization", _TAG, status=204),
]
