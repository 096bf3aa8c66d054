"""The documented way of a command line to a key: it shows a code, a person types it in a browser, it fetches its key."""

from typing import Annotated

from fastapi import Query, Response

from plughub.api import oauth_shapes as shapes
from plughub.api.auth import Asked, AskedDep
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep
from plughub.api.reply import reply
from plughub.door.routes import PUBLIC, SIGNED_IN, Route
from plughub.gateway.hub import Hub
from plughub.kit.errors import CodeExpired, DeviceNotFound, Forbidden, RateLimited
from plughub.oauth import devices
from plughub.oauth.devices import CLI, Waiting
from plughub.oauth.secret import normal_user_code

DeviceCode = Annotated[str, Query(pattern="^[0-9A-Za-z]{48}$")]


async def initiate(hub: HubDep, asked: AskedDep, base: BaseUrlDep) -> Response:
    """Begin: a code to show, and one to ask with."""
    await asked.count()
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        begun = await devices.begin_cli(uow, hub.digests)
    return reply(
        {
            "device_code": begun.device_code,
            "user_code": begun.user_code,
            "verification_url": f"{base}/cli/authorize?code={begun.user_code}",
            "expires_in": devices.DEVICE_S,
            "interval": devices.INTERVAL_S,
        }
    )


async def poll(hub: HubDep, asked: AskedDep, device_code: DeviceCode) -> Response:
    """What became of it; every five seconds at most. A denial is a 403, a code that has run out a 410. The key comes once."""
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        found = await devices.poll_cli(uow, hub.digests, hub.peppers, device_code)
    if isinstance(found, int):
        raise RateLimited(policy="poll", limit=1, retry_after=found, headers={"retry-after": str(found)})
    if found.status == "denied":
        raise Forbidden("The request was denied", status="denied")
    if found.status == "expired":
        raise CodeExpired(status="expired")
    return reply({"status": found.status, **({"api_key": found.key} if found.key is not None else {})})


async def approve(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.CliApproveIn) -> Response:
    """Let the command line that shows this code have a key of the person's."""
    waiting = await _waiting(hub, asked, body.user_code)
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        await devices.decide_cli(uow, caller, waiting, "approved", body.project_uuid)
    return reply({"status": "approved"})


async def deny(caller: CallerDep, hub: HubDep, asked: AskedDep, body: shapes.CliDenyIn) -> Response:
    """Let it have nothing."""
    waiting = await _waiting(hub, asked, body.user_code)
    async with hub.database.unit_of_work(asked.visit.actor) as uow:
        await devices.decide_cli(uow, caller, waiting, "denied")
    return reply({"status": "denied"})


async def _waiting(hub: Hub, asked: Asked, typed: str) -> Waiting:
    """The command line of a code; a wrong code is an attempt. Raises DeviceNotFound, Conflict, RateLimited."""
    user_code = normal_user_code(typed)
    async with hub.database.read() as connection:
        found = await devices.find_waiting(connection, hub.digests, user_code, hub.clock.time(), kind=CLI) if user_code else None
    if found is None:
        await asked.count()
        raise DeviceNotFound
    return found


_PATH, _TAG = "/api/cli/auth", "Command line"
ROUTES = [
    Route("POST", f"{_PATH}/initiate", PUBLIC, initiate, "Begin on a command line", _TAG, output=shapes.CliBegun, secret=True),
    Route("GET", f"{_PATH}/poll", PUBLIC, poll, "Ask for the key", _TAG, output=shapes.CliPolled, secret=True),
    Route("POST", f"{_PATH}/approve", SIGNED_IN, approve, "Let a command line in", _TAG, output=shapes.CliDecided, secret=True),
    Route("POST", f"{_PATH}/deny", SIGNED_IN, deny, "Refuse a command line", _TAG, output=shapes.CliDecided, secret=True),
]
