"""What an organisation and a person take along: configuration without secrets, and a person's own data. Ids of the hub's own are left out
of an organisation's; its parts name each other by slug."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.collections.service import list_collections
from plughub.collections.snapshots import write_servers
from plughub.db.collection_tables import collection
from plughub.db.tables import api_key, membership, organization
from plughub.identity.people import Person
from plughub.identity.service import get_organization
from plughub.identity.showing import Showing
from plughub.keys.schemas import Key
from plughub.keys.service import list_keys
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.crypto import Sealer
from plughub.kit.errors import Forbidden
from plughub.kit.ids import public_id
from plughub.oauth.grants import list_grants
from plughub.profiles.projects import list_projects
from plughub.profiles.schemas import Profile
from plughub.profiles.service import list_profiles
from plughub.servers.schemas import Server
from plughub.servers.service import list_every_server

FORM, VERSION = "organization", 1
ORGANIZATION_EXPORTED = "organization.exported"
# Of each kind; far more than an organisation has.
_ALL = 100_000


async def export_organization(connection: AsyncConnection, caller: Caller, sealer: Sealer, now: float) -> dict[str, Any]:
    """The configuration of the caller's organisation in one environment: projects with their profiles, servers, keys without secrets,
    collections. Raises Forbidden for a key with a server list."""
    if caller.servers is not None:
        raise Forbidden("A key with a server list does not see its whole organization", reason="server_list")
    here = await get_organization(connection, caller.organization_id)
    servers = await list_every_server(connection, caller, sealer)
    profiles = (await list_profiles(connection, caller, limit=_ALL, offset=0)).items
    projects = (await list_projects(connection, caller, limit=_ALL, offset=0)).items
    keys = (await list_keys(connection, caller, limit=_ALL, offset=0)).items
    collections = (await list_collections(connection, caller, limit=_ALL, offset=0)).items
    slugs = {server.id: server.slug for server in servers}
    profile_slugs = {profile.id: profile.slug for profile in profiles}
    written, placeholders = _servers(servers, profile_slugs)
    return {
        "plughub": FORM,
        "version": VERSION,
        "exported_at": rfc3339(now),
        "environment": caller.environment,
        "organization": {"name": here.name, "description": here.description},
        "projects": [
            {
                "name": project.name,
                "description": project.description,
                "is_default": project.is_default,
                "profiles": [_profile(profile) for profile in profiles if profile.project_id == project.id],
            }
            for project in projects
        ],
        "servers": written,
        "keys": [_key(key, slugs) for key in keys if key.status != "revoked"],
        "collections": [
            {
                "name": found.name,
                "description": found.description,
                "profile": profile_slugs.get(found.profile_id or ""),
                "servers": [slugs[id_] for id_ in found.server_ids if id_ in slugs],
                "is_public": found.is_public,
            }
            for found in collections
        ],
        "placeholders": placeholders,
    }


async def export_person(connection: AsyncConnection, person: Person, shown: Showing, now: float) -> dict[str, Any]:
    """What the hub knows of somebody: their account, where they are in, what they have made and what they allow."""
    query = select(organization.c.id, organization.c.name, membership.c.role, membership.c.created_at)
    query = query.join(membership, membership.c.organization_id == organization.c.id).where(membership.c.person_id == person.id)
    places = await connection.execute(query.order_by(membership.c.created_at))
    keys = select(api_key).where(api_key.c.created_by == person.id).order_by(api_key.c.created_at)
    made = select(collection).where(collection.c.created_by == person.id).order_by(collection.c.created_at)
    grants = (await list_grants(connection, person.id, now, _ALL, 0))[0]
    return {
        "plughub": "person",
        "version": VERSION,
        "exported_at": rfc3339(now),
        "user": {
            "id": public_id("user", person.id),
            "email": person.email,
            "name": person.name,
            "verified_at": _time(person.verified_at),
            "two_factor_since": _time(person.totp_confirmed_at),
            "password_set_at": rfc3339(person.password_at),
            "created_at": rfc3339(person.created_at),
        },
        "profile": {name: getattr(shown, name) for name in Showing.__slots__},
        "organizations": [
            {"id": public_id("org", row.id), "name": row.name, "role": row.role, "joined_at": rfc3339(row.created_at)} for row in places
        ],
        "keys": [
            {
                "id": public_id("key", row.id),
                "organization_id": public_id("org", row.organization_id),
                "name": row.name,
                "prefix": row.prefix,
                "environment": row.environment,
                "status": row.status,
                "created_at": rfc3339(row.created_at),
            }
            for row in await connection.execute(keys)
        ],
        "collections": [
            {"uuid": row.id, "name": row.name, "created_at": rfc3339(row.created_at)} for row in await connection.execute(made)
        ],
        "grants": [
            {
                "id": public_id("grant", found.id),
                "client": found.client_name,
                "scopes": list(found.scopes),
                "created_at": rfc3339(found.created_at),
            }
            for found in grants
        ],
    }


def _servers(servers: list[Server], profile_slugs: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    written, placeholders = write_servers(servers)
    placed = [
        {"slug": server.slug, **entry, "enabled": server.enabled, "profile": profile_slugs[server.profile_id]}
        for server, entry in zip(servers, written, strict=True)
    ]
    return placed, placeholders


def _profile(found: Profile) -> dict[str, Any]:
    return {
        "slug": found.slug,
        "name": found.name,
        "description": found.description,
        "is_default": found.is_default,
        "servers": [
            {"server": member.slug, "home": member.home, "enabled": member.enabled, "tools": member.overrides.shown()}
            for member in found.members.values()
        ],
    }


def _key(key: Key, slugs: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": key.name,
        "description": key.description,
        "kind": key.kind,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "servers": "*" if key.servers is None else [slugs[id_] for id_ in key.servers if id_ in slugs],
        "allowed_ips": None if key.allowed_ips is None else list(key.allowed_ips),
        "labels": dict(key.labels),
        "rate_limit": key.rate_limit,
        "status": key.status,
        "expires_at": _time(key.expires_at),
    }


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
