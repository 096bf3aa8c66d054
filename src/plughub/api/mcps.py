"""The same servers in the PlexMCP dialect: "MCPs", reached over HTTP or run as commands."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import Invoke, Invoked, McpDeleted, McpDetail, McpOut, Success, SuccessPage
from plughub.api.reply import PageNumber, PerPage, public_or_404, success
from plughub.api.tools import ToolDoor
from plughub.door.routes import Route
from plughub.events.server_figures import Called, ServerFigures, count_calls, read_figures
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.clock import rfc3339
from plughub.kit.errors import HubError, Invalid
from plughub.kit.ids import public_id
from plughub.servers import service
from plughub.servers.config import masked_url
from plughub.servers.schemas import Server, ServerCreate, checked

MISSING = "MCP not found"
_NEVER = Called()
Text = Annotated[str, StringConstraints(max_length=2000)]
Filled = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Status = Literal["active", "inactive"]
Health = Literal["healthy", "unhealthy"]


class McpCreate(BaseModel):
    """The body of `POST /v1/mcps`. How the hub signs in to the server: not at all, or by a header made of the given parts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Filled
    endpoint_url: Filled
    description: Text | None = None
    auth_type: Literal["none", "bearer", "api_key", "basic"] = "none"
    auth_token: Text | None = None
    auth_header: Text | None = None
    auth_username: Text | None = None
    auth_password: Text | None = None


class McpUpdate(BaseModel):
    """The body of `PATCH /v1/mcps/{id}`: what is not given stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Text | None = None
    description: Text | None = None
    endpoint_url: Text | None = None
    status: Status | None = None


async def list_mcps(
    caller: CallerDep,
    connection: ReadDep,
    hub: HubDep,
    page: PageNumber = 1,
    per_page: PerPage = 20,
    status: Annotated[Literal["active", "inactive", "all"], Query()] = "all",
    health: Annotated[Health | None, Query()] = None,
) -> Response:
    """The servers that the key may use, in pages."""
    if status == "all" and health is None:
        found = await service.list_servers(connection, caller, hub.sealer, limit=per_page, offset=(page - 1) * per_page)
        return success(await _counted(connection, hub, found.items), page=page, per_page=per_page, total=found.total)
    everything = (await service.list_servers(connection, caller, hub.sealer, limit=1000, offset=0)).items
    kept = [s for s in everything if status in ("all", _status(s)) and health in (None, _health(hub, s))]
    wanted = kept[(page - 1) * per_page : page * per_page]
    return success(await _counted(connection, hub, wanted), page=page, per_page=per_page, total=len(kept))


async def create_mcp(caller: CallerDep, uow: UowDep, hub: HubDep, body: McpCreate) -> Response:
    """Register a Streamable HTTP server."""
    config = {"url": body.endpoint_url, "headers": _auth_headers(body)}
    try:
        fields = {"name": body.name, "type": "STREAMABLE_HTTP", "config": config, "description": body.description}
        create = checked(ServerCreate, fields)
        server = await service.create_server(uow, caller, create, hub.sealer)
    except Invalid as error:
        raise _in_v1_words(error) from error
    return success(shown(hub, server), 201)


async def get_mcp(caller: CallerDep, connection: ReadDep, hub: HubDep, mcp_id: str) -> Response:
    """One server with its figures and its tools; `tools` is null when the server does not tell them."""
    server = await service.get_server(connection, caller, _id(mcp_id), hub.sealer)
    figures = await read_figures(connection, server.id, hub.clock.time())
    calls, checked_at = sum(day.calls for day in figures.days), hub.board.get(server.id).checked_at
    more = {
        "health_checked_at": rfc3339(checked_at) if checked_at is not None else None,
        "stats": _stats(figures, calls),
        "tools": await _tools(hub, caller, server),
    }
    return success({**shown(hub, server, Called(calls, figures.last_at)), **more})


async def update_mcp(caller: CallerDep, uow: UowDep, hub: HubDep, mcp_id: str, body: McpUpdate) -> Response:
    """Change a server; `status: inactive` switches it off."""
    given = body.model_dump(exclude_unset=True)
    patch: dict[str, Any] = {name: given[name] for name in ("name", "description") if name in given}
    if "endpoint_url" in given:
        patch["config"] = {"url": given["endpoint_url"]}
    if given.get("status") is not None:
        patch["enabled"] = given["status"] == "active"
    try:
        server = await service.update_server(uow, caller, _id(mcp_id), patch, hub.sealer)
    except Invalid as error:
        raise _in_v1_words(error) from error
    return success((await _counted(uow.connection, hub, [server]))[0])


async def delete_mcp(caller: CallerDep, uow: UowDep, mcp_id: str) -> Response:
    """Remove a server."""
    server_id = _id(mcp_id)
    await service.delete_server(uow, caller, server_id)
    return success({"deleted": True, "mcp_id": public_id("mcp", server_id)})


def shown(hub: Hub, server: Server, called: Called = _NEVER) -> dict[str, Any]:
    """The server in the documents' words; a STDIO server has no `endpoint_url`."""
    url = server.config.get("url")
    return {
        "id": public_id("mcp", server.id),
        "name": server.name,
        "endpoint_url": masked_url(url) if url else None,
        "description": server.description,
        "status": _status(server),
        "health": _health(hub, server),
        "created_at": rfc3339(server.created_at),
        "updated_at": rfc3339(server.updated_at),
        "last_active": rfc3339(called.last_at) if called.last_at is not None else None,
        "request_count": called.calls,
    }


async def _counted(connection: AsyncConnection, hub: Hub, servers: Sequence[Server]) -> list[dict[str, Any]]:
    """The servers with how often they were called."""
    called = await count_calls(connection, [server.id for server in servers], hub.clock.time())
    return [shown(hub, server, called.get(server.id, _NEVER)) for server in servers]


def _status(server: Server) -> str:
    return "active" if server.enabled else "inactive"


def _health(hub: Hub, server: Server) -> str:
    state = hub.board.get(server.id)
    return {"connected": "healthy", "error": "unhealthy"}.get(state.status, "unknown") if server.enabled else "unknown"


def _stats(figures: ServerFigures, calls: int) -> dict[str, Any]:
    times = figures.durations_us
    return {
        "total_requests": calls,
        "requests_today": figures.days[-1].calls,
        "error_rate": round(sum(day.errors for day in figures.days) / calls, 4) if calls else 0.0,
        "avg_latency_ms": round(sum(times) / len(times) / 1000, 3) if times else None,
    }


async def _tools(hub: Hub, caller: Caller, server: Server) -> list[dict[str, Any]] | None:
    try:
        target = await hub.exchange.target(caller, server.id)
        listed = (await hub.catalog.tools(caller, target)).items
    except HubError:
        # The server's own state is what was asked for; that its tools cannot be had shows as null and in `health`.
        return None
    read = [msgspec.json.decode(tool.raw) for tool in listed]
    return [{"name": t.get("name"), "description": t.get("description") or "", "input_schema": t.get("inputSchema") or {}} for t in read]


def _auth_headers(body: McpCreate) -> dict[str, str]:
    if body.auth_type == "none":
        return {}
    if body.auth_type == "basic":
        pair = f"{_needed(body, 'auth_username')}:{_needed(body, 'auth_password')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    token = _needed(body, "auth_token")
    if body.auth_type == "bearer":
        return {body.auth_header or "Authorization": f"Bearer {token}"}
    return {body.auth_header or "X-API-Key": token}


def _needed(body: McpCreate, field: str) -> str:
    value: str | None = getattr(body, field)
    if value is None:
        raise Invalid(field, f"The '{field}' field is required for auth_type {body.auth_type}")
    return value


_WORDS = {"config.url": "endpoint_url", "config.headers": "auth_header"}


def _in_v1_words(error: Invalid) -> Invalid:
    """The same error about the fields that the caller of `/v1` wrote."""
    errors = [
        {"field": _WORDS.get(e["field"], e["field"]), "message": e["message"].replace(e["field"], _WORDS.get(e["field"], e["field"]))}
        for e in error.errors
    ]
    return Invalid(errors[0]["field"], errors[0]["message"], errors=errors)


def _id(text: str) -> str:
    return public_or_404("mcp", text, MISSING)


_PATH = "/v1/mcps"


def routes(tools: ToolDoor) -> list[Route]:
    """The rows; `tools` answers the hot one."""
    return [
        Route("GET", _PATH, "read:servers", list_mcps, "List MCPs", "MCPs (v1)", "v1", output=SuccessPage[McpOut]),
        Route("POST", _PATH, "write:servers", create_mcp, "Register an MCP", "MCPs (v1)", "v1", status=201, output=Success[McpOut]),
        Route(
            "GET",
            _PATH + "/{mcp_id}",
            "read:servers",
            get_mcp,
            "Get an MCP",
            "MCPs (v1)",
            "v1",
            reaching=True,
            output=Success[McpDetail],
        ),
        Route("PATCH", _PATH + "/{mcp_id}", "write:servers", update_mcp, "Change an MCP", "MCPs (v1)", "v1", output=Success[McpOut]),
        Route("DELETE", _PATH + "/{mcp_id}", "delete:servers", delete_mcp, "Remove an MCP", "MCPs (v1)", "v1", output=Success[McpDeleted]),
        Route(
            "POST",
            "/v1/mcp/invoke",
            "execute:tools",
            tools.invoke,
            "Invoke a tool",
            "Tools",
            "v1",
            hot=True,
            input=Invoke,
            output=Success[Invoked],
        ),
    ]
