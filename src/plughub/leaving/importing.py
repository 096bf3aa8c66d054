"""An exported configuration in another organisation, or hub: all of it is made anew beside what is there, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plughub.collections.schemas import CollectionCreate
from plughub.collections.service import create_collection
from plughub.collections.snapshots import read_servers
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import Invalid
from plughub.leaving.schemas import DocumentedProject, OrganizationDocument
from plughub.profiles import members, store
from plughub.profiles.projects import create_project
from plughub.profiles.schemas import MemberPatch, ProfileCreate, ProjectCreate
from plughub.profiles.service import create_profile, require_all_servers
from plughub.servers.schemas import checked
from plughub.servers.service import create_server


@dataclass(slots=True)
class Settled:
    """What was made: the ids of profiles and servers by their slugs in the document, how many collections. Keys cannot be made without
    their secrets: `keys_left_out` are their names."""

    profiles: dict[str, str] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)
    collections: int = 0
    keys_left_out: list[str] = field(default_factory=list)


async def import_organization(
    uow: UnitOfWork, caller: Caller, sealer: Sealer, document: OrganizationDocument, values: Mapping[str, str]
) -> Settled:
    """Make projects, profiles, servers and collections. The document's default project and profile are the caller's own.

    Raises Invalid (a placeholder without a value, a slug that nothing has or two have), Forbidden as `create_server` does.
    """
    require_all_servers(caller)
    _check_slugs(document)
    creates = read_servers(document.servers, values, None, "document.servers")
    settled = Settled(keys_left_out=[key.name for key in document.keys])
    for project in document.projects:
        await _make_profiles(uow, caller, project, settled)
    for entry, create in zip(document.servers, creates, strict=True):
        placed = create.model_copy(update={"enabled": entry.enabled, "profile_uuid": settled.profiles[entry.profile]})
        settled.servers[entry.slug] = (await create_server(uow, caller, placed, sealer)).id
    for at, project in enumerate(document.projects):
        await _put_members(uow, caller, project, f"document.projects.{at}", settled)
    for found in document.collections:
        body = CollectionCreate(
            name=found.name,
            description=found.description,
            profileUuid=None if found.profile is None else settled.profiles[found.profile],
            serverUuids=[settled.servers[slug] for slug in found.servers],
            isPublic=found.is_public,
        )
        await create_collection(uow, caller, body)
    settled.collections = len(document.collections)
    return settled


async def _make_profiles(uow: UnitOfWork, caller: Caller, project: DocumentedProject, settled: Settled) -> None:
    if project.is_default:
        project_id, default_id = None, await store.default_profile_id(uow.connection, caller.space_id)
    else:
        made = await create_project(uow, caller, ProjectCreate(name=project.name, description=project.description))
        project_id, default_id = made.id, made.default_profile_id
    for profile in project.profiles:
        if profile.is_default:
            settled.profiles[profile.slug] = default_id
        else:
            body = ProfileCreate(name=profile.name, description=profile.description, project_uuid=project_id)
            settled.profiles[profile.slug] = (await create_profile(uow, caller, body)).id


async def _put_members(uow: UnitOfWork, caller: Caller, project: DocumentedProject, place: str, settled: Settled) -> None:
    for at, profile in enumerate(project.profiles):
        for n, member in enumerate(profile.servers):
            if member.home and member.enabled and not member.tools:
                continue  # a server at home says nothing more by itself
            told = checked(MemberPatch, {"enabled": member.enabled, "tools": member.tools}, f"{place}.profiles.{at}.servers.{n}")
            patch = told.model_dump(exclude_unset=True)
            await members.put_member(uow, caller, settled.profiles[profile.slug], settled.servers[member.server], patch, ())


def _check_slugs(document: OrganizationDocument) -> None:
    """Raise Invalid naming every slug that two have, and every one that nothing has."""
    errors: list[dict[str, str]] = []
    profiles = [profile.slug for project in document.projects for profile in project.profiles]
    servers = [server.slug for server in document.servers]
    for place, slugs in (("projects", profiles), ("servers", servers)):
        errors += [
            _told(f"document.{place}", f"holds the slug '{slug}' twice") for slug in sorted({s for s in slugs if slugs.count(s) > 1})
        ]
    wanted: list[tuple[str, str, Sequence[str]]] = [
        (f"document.servers.{at}.profile", server.profile, profiles) for at, server in enumerate(document.servers)
    ]
    for at, found in enumerate(document.collections):
        wanted += [(f"document.collections.{at}.servers", slug, servers) for slug in found.servers]
        wanted += [(f"document.collections.{at}.profile", found.profile, profiles)] if found.profile is not None else []
    for at, project in enumerate(document.projects):
        for n, profile in enumerate(project.profiles):
            wanted += [(f"document.projects.{at}.profiles.{n}.servers", member.server, servers) for member in profile.servers]
    errors += [_told(place, f"names '{slug}', which the document does not hold") for place, slug, known in wanted if slug not in known]
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], errors=[dict(error) for error in errors])


def _told(place: str, what: str) -> dict[str, str]:
    return {"field": place, "message": f"The '{place}' field {what}"}
