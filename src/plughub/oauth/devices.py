"""Devices without a browser: a code is shown there, typed by a person here, and fetched for by the device until somebody has decided.

Two kinds: those of RFC 8628, which get tokens, and the documented command line, which gets a key of the person's own. Nothing secret
waits in the database: tokens and key are made when the device comes for them.
"""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import membership, oauth_device, organization, profile, project, server, space
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.deeds import act_as
from plughub.identity.roles import PERMISSIONS
from plughub.keys.schemas import KeyCreate
from plughub.keys.service import Peppers, create_key
from plughub.kit.caller import TIERS, Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import Conflict, DeviceNotFound, ProjectNotFound
from plughub.kit.ids import new_id, parse_uuid
from plughub.oauth.deeds import DEVICE_APPROVED, DEVICE_DENIED, device_deed
from plughub.oauth.errors import AccessDenied, AuthorizationPending, ExpiredToken, InvalidGrant, OAuthError, SlowDown
from plughub.oauth.resources import Target
from plughub.oauth.secret import DEVICE, Digests, generate, generate_cli_device, generate_user_code, has_form, is_cli_device

DEVICE_S = 300
INTERVAL_S = 5
_SLOWER_S = 5
# One that has run out is still told so for a while.
_KEPT_S = 3600.0
CLI = "cli"
DECIDED = "Somebody has decided about this code already"
CLI_NAME = "Command line"
Decision = Literal["approved", "denied"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A device that waits for a decision."""

    id: str
    kind: str
    client_id: str
    scopes: frozenset[str]
    target: Target


@dataclass(frozen=True, slots=True)
class Begun:
    """What a device is told: its own code, and the one to show."""

    device_code: str
    user_code: str


@dataclass(frozen=True, slots=True)
class CliState:
    """What a poll of a command line finds; `key` once."""

    status: Literal["authorization_pending", "approved", "denied", "expired"]
    key: str | None = None


async def begin(uow: UnitOfWork, digests: Digests, client_id: str, scopes: frozenset[str], target: Target) -> Begun:
    """A new device of a client."""
    return await _insert(uow, digests, "oauth", generate(DEVICE), client_id, scopes, target)


async def begin_cli(uow: UnitOfWork, digests: Digests) -> Begun:
    """A new command line."""
    return await _insert(uow, digests, CLI, generate_cli_device(), CLI, frozenset(), Target())


async def find_waiting(
    connection: AsyncConnection, digests: Digests, user_code: str, now: float, *, kind: str | None = None
) -> Waiting | None:
    """The device that shows this code, of that kind if need be. Raises Conflict when somebody has decided about it already."""
    query = select(oauth_device).where(oauth_device.c.user_digest.in_(digests.all(user_code)), oauth_device.c.expires_at > now)
    row = (await connection.execute(query)).first()
    if row is None or kind not in (None, row.kind):
        return None
    if row.status != "pending":
        raise Conflict(DECIDED)
    return Waiting(row.id, row.kind, row.client_id, frozenset(row.scopes), Target(row.resource, row.audience))


async def decide(uow: UnitOfWork, caller: Caller, waiting: Waiting, decision: Decision, grant_id: str | None = None) -> None:
    """Keep what the person says about a device. Raises Conflict when somebody else was faster."""
    values = {"status": decision, "person_id": caller.user_id, "organization_id": caller.organization_id, "grant_id": grant_id}
    await _settle(uow, waiting, values)


async def decide_cli(uow: UnitOfWork, caller: Caller, waiting: Waiting, decision: Decision, project_uuid: str | None = None) -> None:
    """Keep what the person says about a command line: with a project its key has the servers of that alone.

    Raises Conflict, ProjectNotFound, Forbidden for whoever may make no keys.
    """
    values: dict[str, Any] = {"status": decision, "person_id": caller.user_id, "organization_id": caller.organization_id}
    if decision == "approved":
        caller.require("write:keys")
        if project_uuid is not None:
            values["project_id"] = await _project(uow.connection, caller, project_uuid)
    await _settle(uow, waiting, values)


async def poll(uow: UnitOfWork, digests: Digests, device_code: str, client_id: str) -> str | OAuthError:
    """The grant that a device may have tokens of, once (RFC 8628 section 3.5); else what it must be told."""
    now = uow.clock.time()
    row = await _lock(uow, digests, device_code, "oauth") if has_form(device_code, DEVICE) else None
    if row is None or row.client_id != client_id or row.status == "done":
        return InvalidGrant()
    if row.status == "denied":
        return AccessDenied()
    if row.expires_at <= now:
        return ExpiredToken()
    if await _too_soon(uow, row, now):
        return SlowDown()
    if row.status == "pending" or row.grant_id is None:
        return AuthorizationPending()
    await uow.execute(update(oauth_device).where(oauth_device.c.id == row.id).values(status="done"))
    grant_id: str = row.grant_id
    return grant_id


async def poll_cli(uow: UnitOfWork, digests: Digests, peppers: Peppers, device_code: str) -> CliState | int:
    """What became of a command line; a number: the seconds to wait when it asks too often. Raises DeviceNotFound.

    The key is made here, with the rights that the person has now, and told this once.
    """
    now = uow.clock.time()
    row = await _lock(uow, digests, device_code, CLI) if is_cli_device(device_code) else None
    if row is None:
        raise DeviceNotFound
    if row.status == "done":
        return CliState("approved")
    if row.status == "denied":
        return CliState("denied")
    if row.expires_at <= now:
        return CliState("expired")
    if await _too_soon(uow, row, now):
        return INTERVAL_S
    if row.status == "pending":
        return CliState("authorization_pending")
    caller = await _person(uow.connection, row.person_id, row.organization_id)
    if caller is None or "write:keys" not in caller.scopes:  # not any more
        return CliState("denied")
    act_as(uow, row.person_id)  # the key is theirs, whoever fetches it
    await uow.execute(update(oauth_device).where(oauth_device.c.id == row.id).values(status="done"))
    servers = None if row.project_id is None else await _servers_of(uow.connection, row.project_id)
    body = KeyCreate(name=f"{CLI_NAME} {rfc3339(now)[:10]}", servers="*" if servers is None else servers)
    _, secret = await create_key(uow, caller, body, peppers)
    return CliState("approved", secret)


async def prune_devices(uow: UnitOfWork) -> None:
    """Forget those whose time is over."""
    await uow.execute(delete(oauth_device).where(oauth_device.c.expires_at < uow.clock.time() - _KEPT_S))


async def _insert(
    uow: UnitOfWork, digests: Digests, kind: str, device_code: str, client_id: str, scopes: frozenset[str], target: Target
) -> Begun:
    user_code, now = generate_user_code(), uow.clock.time()
    values = {
        "id": new_id(),
        "kind": kind,
        "digest": digests.new(device_code),
        "user_digest": digests.new(user_code),
        "client_id": client_id,
        "scopes": sorted(scopes),
        "resource": target.resource,
        "audience": target.audience,
        "status": "pending",
        "created_at": now,
        "expires_at": now + DEVICE_S,
        "interval_s": INTERVAL_S,
    }
    await uow.execute(insert(oauth_device).values(**values))
    return Begun(device_code, user_code)


async def _lock(uow: UnitOfWork, digests: Digests, device_code: str, kind: str) -> Row[Any] | None:
    query = select(oauth_device).where(oauth_device.c.digest.in_(digests.all(device_code)), oauth_device.c.kind == kind)
    return (await uow.execute(query.with_for_update())).first()


async def _too_soon(uow: UnitOfWork, row: Row[Any], now: float) -> bool:
    """Note the poll. Whoever does not wait has to wait longer from then on (RFC 8628 section 3.5)."""
    soon = row.polled_at is not None and now - row.polled_at < row.interval_s
    longer = row.interval_s + (_SLOWER_S if soon and row.kind != CLI else 0)
    await uow.execute(update(oauth_device).where(oauth_device.c.id == row.id).values(polled_at=now, interval_s=min(longer, DEVICE_S)))
    return soon


async def _settle(uow: UnitOfWork, waiting: Waiting, values: dict[str, Any]) -> None:
    statement = update(oauth_device).where(
        oauth_device.c.id == waiting.id, oauth_device.c.status == "pending", oauth_device.c.expires_at > uow.clock.time()
    )
    if (await uow.execute(statement.values(**values).returning(oauth_device.c.id))).first() is None:
        raise Conflict(DECIDED)
    action = DEVICE_APPROVED if values["status"] == "approved" else DEVICE_DENIED
    told = {name: values[name] for name in ("status", "grant_id", "project_id") if values.get(name) is not None}
    name = CLI_NAME if waiting.kind == CLI else waiting.client_id
    uow.audit(device_deed(action, waiting.id, name, values["organization_id"], told))


async def _project(connection: AsyncConnection, caller: Caller, text: str) -> str:
    id_ = parse_uuid(text)
    query = select(project.c.id).where(project.c.id == id_, project.c.space_id == caller.space_id)
    if id_ is None or (await connection.execute(query)).first() is None:
        raise ProjectNotFound
    return id_


async def _servers_of(connection: AsyncConnection, project_id: str) -> list[str]:
    query = select(server.c.id).join(profile, profile.c.id == server.c.profile_id).where(profile.c.project_id == project_id)
    return list((await connection.execute(query)).scalars())


async def _person(connection: AsyncConnection, person_id: str, organization_id: str) -> Caller | None:
    """Somebody as they may act now, in the live environment."""
    query = (
        select(membership.c.role, organization.c.tier, organization.c.operator, organization.c.stdio_allowed, space.c.id.label("space_id"))
        .join(organization, organization.c.id == membership.c.organization_id)
        .join(space, space.c.organization_id == organization.c.id)
        .where(membership.c.person_id == person_id, membership.c.organization_id == organization_id, space.c.environment == "live")
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return Caller(
        organization_id=organization_id,
        space_id=row.space_id,
        environment="live",
        key_id="",
        kind="public",
        scopes=PERMISSIONS[row.role],
        servers=None,
        tier=TIERS[row.tier],
        operator=row.operator,
        stdio_allowed=row.operator or row.stdio_allowed,
        credential="session",
        user_id=person_id,
    )
