"""What is done to a server and what is told of its life: test, restart, health, statistics (CONTRACT section 5)."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api.framework import ActorDep, CallerDep, HubDep, ReadDep
from plughub.api.log_shapes import HealthHistory, HealthOfServer, McpTest, ServerStats, ServerTest
from plughub.api.mcps import MISSING
from plughub.api.models import ServerOut, Success
from plughub.api.reply import Offset, PageLimit, public_or_404, reply, success, uuid_or_404
from plughub.api.servers import shown
from plughub.db.audit import Deed
from plughub.door.routes import Route
from plughub.events.server_figures import DAYS, percentile, read_figures
from plughub.gateway.hub import Hub
from plughub.gateway.operations import count_resources, restart_server, try_server
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import HubError
from plughub.registry.activity import figures_of, rank_of, seen
from plughub.registry.service import scopes_of
from plughub.servers import service
from plughub.servers.health import list_seen

# An action of the audit alone: caches and streams need not know.
RESTARTED = "server.restarted"
_NOT_TRIED = dict.fromkeys(
    ("connect_ms", "latency_ms", "tools_count", "protocol_version", "era", "capabilities", "server_info"),
)


async def test_server(caller: CallerDep, hub: HubDep, uuid: str) -> Response:
    """Connect now, without waiting for a back-off, and list the tools: does the server work? What is wrong is no error of this call."""
    target = await hub.exchange.target(caller, uuid_or_404(uuid))
    try:
        tried = await try_server(hub, caller, target)
    except HubError as error:
        return reply({"success": False, **_NOT_TRIED, "error": {"code": error.code, "message": error.text, "hint": error.hint}})
    facts = tried.facts
    return reply(
        {
            "success": True,
            "connect_ms": tried.connect_us // 1000,
            "latency_ms": tried.latency_us // 1000,
            "tools_count": tried.tools_count,
            "protocol_version": facts.version,
            "era": facts.era,
            "capabilities": msgspec.Raw(facts.capabilities),
            "server_info": msgspec.Raw(facts.server_info),
            "error": None,
        }
    )


async def test_mcp(caller: CallerDep, hub: HubDep, mcp_id: str) -> Response:
    """Connect now and list the tools and resources: is the MCP reachable?"""
    target = await hub.exchange.target(caller, public_or_404("mcp", mcp_id, MISSING))
    found: dict[str, Any] = dict.fromkeys(("latency_ms", "protocol_version", "tools_count", "resources_count", "error"))
    try:
        tried = await try_server(hub, caller, target)
    except HubError as error:
        return success({"reachable": False, **found, "error": error.text})
    found |= {"latency_ms": tried.latency_us // 1000, "protocol_version": tried.facts.version, "tools_count": tried.tools_count}
    return success({"reachable": True, **found, "resources_count": await count_resources(hub, caller, target)})


async def restart(caller: CallerDep, hub: HubDep, actor: ActorDep, uuid: str) -> Response:
    """End the process or the connections and start anew, at once; the answer is the server as it is then. Its calls under way fail."""
    target = await hub.exchange.target(caller, uuid_or_404(uuid))
    await restart_server(hub, caller, target)
    async with hub.database.unit_of_work(actor) as uow:
        server = await service.get_server(uow.connection, caller, target.server_id, hub.sealer)
        uow.audit(Deed(RESTARTED, "server", server.id, server.name, server.space_id))
    return reply(shown(server, hub.board.get(server.id)))


async def health(caller: CallerDep, hub: HubDep, uuid: str) -> Response:
    """How the server is. Looked at anew when the last look is older than 30 s; a command that rests is not started for it."""
    target = await hub.exchange.target(caller, uuid_or_404(uuid))
    now = await hub.probes.health(caller, target)
    return reply(
        {
            "status": now.status,
            "checked_at": rfc3339(now.checked_at) if now.checked_at is not None else None,
            "latency_ms": _ms(now.latency_us),
            "uptime_24h": round(now.uptime_24h, 4) if now.uptime_24h is not None else None,
            "last_error": now.last_error,
        }
    )


async def health_history(
    caller: CallerDep, connection: ReadDep, hub: HubDep, uuid: str, limit: PageLimit = 20, offset: Offset = 0
) -> Response:
    """Changes of the server's state and the hub's own looks, newest first."""
    server = await service.get_server(connection, caller, uuid_or_404(uuid), hub.sealer)
    page = await list_seen(connection, server.id, limit, offset)
    entries = [
        {"at": rfc3339(seen.at), "kind": seen.kind, "status": seen.status, "latency_ms": _ms(seen.latency_us), "error": seen.error}
        for seen in page.items
    ]
    return reply({"history": entries, "total": page.total, "limit": page.limit, "offset": page.offset})


async def stats(caller: CallerDep, connection: ReadDep, hub: HubDep, uuid: str) -> Response:
    """The calls of the last 30 days, today included, counted from the log; the percentiles are of the newest 10,000 answered ones."""
    server = await service.get_server(connection, caller, uuid_or_404(uuid), hub.sealer)
    found = await read_figures(connection, server.id, hub.clock.time())
    calls, errors = sum(day.calls for day in found.days), sum(day.errors for day in found.days)
    latency = {f"p{share}": _ms(percentile(found.durations_us, share)) for share in (50, 95, 99)}
    return reply(
        {
            "window_days": DAYS,
            "calls": calls,
            "errors": errors,
            "error_rate": round(errors / calls, 4) if calls else 0.0,
            "latency": {**latency, "sample": len(found.durations_us)},
            "last_called_at": rfc3339(found.last_at) if found.last_at is not None else None,
            "days": [
                {"date": datetime.fromtimestamp(day.begin, UTC).date().isoformat(), "calls": day.calls, "errors": day.errors}
                for day in found.days
            ],
            "last_activity": rfc3339(max(found.last_at or 0.0, server.updated_at)),
            **await _of_registry(caller, connection, hub, server.id),
        }
    )


async def _of_registry(caller: Caller, connection: AsyncConnection, hub: Hub, server_id: str) -> dict[str, Any]:
    """What is counted of that server of the registry which this one came from; nulls when it came from elsewhere."""
    origin = await figures_of(connection, server_id, hub.clock.time())
    if origin is None:
        return {"installations": None, "daily_installs": None, "trending_rank": None}
    scope, name, figures = origin
    busy = seen(await hub.registry.trends.get("7d"), scopes_of(caller))
    return {"installations": figures.installations, "daily_installs": figures.daily, "trending_rank": rank_of(busy, scope, name)}


def _ms(duration_us: int | None) -> float | None:
    return duration_us / 1000 if duration_us is not None else None


_PATH = "/api/servers/{uuid}"
ROUTES = [
    Route("POST", _PATH + "/test", "write:servers", test_server, "Try a server out", "Servers", output=ServerTest),
    Route("POST", "/v1/mcps/{mcp_id}/test", "write:servers", test_mcp, "Try an MCP out", "MCPs (v1)", "v1", output=Success[McpTest]),
    Route("POST", _PATH + "/restart", "write:servers", restart, "Start a server anew", "Servers", output=ServerOut),
    Route("GET", _PATH + "/health", "read:servers", health, "How a server is", "Servers", output=HealthOfServer),
    Route("GET", _PATH + "/health/history", "read:servers", health_history, "How a server was", "Servers", output=HealthHistory),
    Route("GET", _PATH + "/stats", "read:servers", stats, "Calls to a server in figures", "Servers", output=ServerStats),
]
