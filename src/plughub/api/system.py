"""Health, readiness, metrics, limits, and what describes the API."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import msgspec
from fastapi import Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from plughub import __version__
from plughub.api.framework import BaseUrlDep, CallerDep, HubDep, door_request
from plughub.api.models import HealthOut, RateLimitOut, ReadyOut, ResourceMetadata, StatusOut
from plughub.api.reply import reply
from plughub.cluster.limits import Left
from plughub.door.routes import AUTHENTICATED, PUBLIC, Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import Tier
from plughub.kit.errors import Forbidden, Unavailable
from plughub.oauth.resources import MCP_SCOPE

# Behind a proxy of the same host every client would look like loopback.
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")

_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Status: {overall}</title><h1>Plughub is {overall}</h1><ul>{rows}</ul></html>"
)
_NO_SCRIPTS = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}


async def health() -> Response:
    """The process answers; nothing is checked."""
    return reply({"status": "ok", "version": __version__})


async def ready(hub: HubDep) -> Response:
    """The database answers and usage records reach the disk; else 503."""
    await _ask_database(hub)
    if hub.writer.failing:
        raise Unavailable("Usage records cannot be written", headers={"retry-after": "5"})
    if hub.writer.full:
        raise Unavailable("Usage records are waiting for the disk")
    return reply({"status": "ready"})


async def status(request: Request, hub: HubDep) -> Response:
    """For anybody: does the hub work? Of no organisation, and no more than that. Browsers get it as a page."""
    database = True
    try:
        await _ask_database(hub)
    except Unavailable:
        database = False
    parts = {"api": True, "database": database, "records": not (hub.writer.failing or hub.writer.full)}
    told = {name: "operational" if well else "down" for name, well in parts.items()}
    overall = "operational" if all(parts.values()) else "degraded"
    headers = {"vary": "Accept", "cache-control": "no-store"}
    if "text/html" not in request.headers.get("accept", ""):
        body = {"status": overall, "components": [{"name": name, "status": how} for name, how in told.items()]}
        return Response(msgspec.json.encode(body), media_type="application/json", headers=headers)
    rows = "".join(f"<li>{name}: {how}</li>" for name, how in told.items())
    return Response(_PAGE.format(overall=overall, rows=rows), media_type="text/html", headers={**headers, **_NO_SCRIPTS})


async def _ask_database(hub: Hub) -> None:
    try:
        async with hub.database.read() as connection:
            await connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError) as error:
        raise Unavailable("The database does not answer") from error


async def metrics(request: Request, hub: HubDep) -> Response:
    """Prometheus text: for loopback addresses that no proxy speaks for, or for the operator's key."""
    client, door = request.client, door_request(request)
    forwarded = any(name in door.headers for name in _FORWARDED)
    if client is None or forwarded or not ip_address(client.host).is_loopback:
        caller = await hub.admission.admit(door, AUTHENTICATED, 0)
        if not caller.operator:
            raise Forbidden
    return Response(generate_latest(request.app.state.metrics), media_type=CONTENT_TYPE_LATEST)


async def rate_limit(caller: CallerDep, hub: HubDep) -> Response:
    """What is left; this call counts nothing."""
    left, own = await hub.admission.left(caller), caller.key_limit
    of_key = None if own is None or left.own is None else _left(own, left.own)
    tier = caller.allowance
    return reply({"tier": tier.name, **_left(tier, left), "key": of_key})


def _left(tier: Tier, left: Left) -> dict[str, dict[str, int]]:
    return {
        "hourly": {"limit": tier.hourly, "remaining": left.hourly, "reset": left.reset},
        "burst": {"limit": tier.burst, "remaining": left.burst},
        "concurrency": {"limit": tier.concurrency, "remaining": left.concurrency},
    }


async def openapi(request: Request) -> Response:
    """The document in `contract/openapi.json`: generated from the routes, compared in CI."""
    return Response(request.app.state.openapi(), media_type="application/json")


async def postman(request: Request) -> Response:
    """The collection in `contract/postman.json`: generated from the routes, with an example body for each."""
    return Response(request.app.state.postman(), media_type="application/json")


async def resource_metadata(base: BaseUrlDep) -> Response:
    """Where a client that was refused learns what the MCP endpoint wants (RFC 9728)."""
    return _metadata(base, "mcp")


async def resource_metadata_of_profile(base: BaseUrlDep, profile_slug: str) -> Response:
    """The same for a profile's endpoint; it says nothing of whether the profile exists."""
    return _metadata(base, f"mcp/{profile_slug}")


async def resource_metadata_of_server(base: BaseUrlDep, uuid: str) -> Response:
    """The same for one server's endpoint; it says nothing of whether the server exists."""
    return _metadata(base, f"servers/{uuid}/mcp")


async def resource_metadata_of_sse(base: BaseUrlDep) -> Response:
    """The same for the older transport."""
    return _metadata(base, "sse")


async def resource_metadata_of_server_sse(base: BaseUrlDep, uuid: str) -> Response:
    """The same for one server over the older transport."""
    return _metadata(base, f"servers/{uuid}/sse")


def _metadata(base: str, path: str) -> Response:
    return reply(
        {
            "resource": f"{base}/{path}",
            "resource_name": "Plughub",
            "authorization_servers": [base],
            "bearer_methods_supported": ["header"],
            "scopes_supported": [MCP_SCOPE],
            "resource_documentation": f"{base}/api/openapi.json",
        }
    )


def _well_known(path: str, handler: Callable[..., Awaitable[Response]], what: str) -> Route:
    path = "/.well-known/oauth-protected-resource" + path
    return Route("GET", path, PUBLIC, handler, "Protected resource metadata" + what, "MCP", output=ResourceMetadata)


ROUTES = [
    Route("GET", "/health", PUBLIC, health, "Is the process alive", "System", cost=0, output=HealthOut),
    Route("GET", "/ready", PUBLIC, ready, "Can the hub serve", "System", cost=0, output=ReadyOut),
    Route("GET", "/status", PUBLIC, status, "Does the hub work", "System", cost=0, output=StatusOut, other_kinds=("text/html",)),
    Route("GET", "/metrics", PUBLIC, metrics, "Prometheus metrics", "System", cost=0, output=str, output_kind="text/plain"),
    Route("GET", "/api/rate-limit", AUTHENTICATED, rate_limit, "What is left of the limits", "System", cost=0, output=RateLimitOut),
    Route("GET", "/api/openapi.json", PUBLIC, openapi, "This description", "System", output=dict),
    Route("GET", "/api/postman.json", PUBLIC, postman, "This API as a Postman collection", "System", output=dict),
    _well_known("", resource_metadata, ""),
    _well_known("/mcp", resource_metadata, " of /mcp"),
    _well_known("/mcp/{profile_slug}", resource_metadata_of_profile, " of one profile"),
    _well_known("/servers/{uuid}/mcp", resource_metadata_of_server, " of one server"),
    _well_known("/sse", resource_metadata_of_sse, " of /sse"),
    _well_known("/servers/{uuid}/sse", resource_metadata_of_server_sse, " of one server over HTTP+SSE"),
]
