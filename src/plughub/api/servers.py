"""Servers and their tools in the Plugged.in dialect (CONTRACT section 5)."""

from typing import Annotated, Any

from fastapi import Body, Response

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import Execute, Executed, ServerList, ServerOut
from plughub.api.reply import Limit, Offset, reply, uuid_or_404
from plughub.api.tools import ToolDoor
from plughub.door.routes import Route
from plughub.gateway.hub import Hub
from plughub.kit.clock import rfc3339
from plughub.servers import service
from plughub.servers.config import masked
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.status import ServerState

_ALL = 1000
Patch = Annotated[
    dict[str, Any], Body(description="RFC 7386 merge: objects merge, null removes, lists replace; `***` keeps the stored secret")
]


async def list_servers(caller: CallerDep, connection: ReadDep, hub: HubDep, limit: Limit = None, offset: Offset = 0) -> Response:
    """The servers that the key may use, oldest first; without `limit` all, up to 1,000."""
    page = await service.list_servers(connection, caller, hub.sealer, limit=limit or _ALL, offset=offset)
    return reply(
        {"servers": [_shown(hub, server) for server in page.items], "total": page.total, "limit": page.limit, "offset": page.offset}
    )


async def create_server(caller: CallerDep, uow: UowDep, hub: HubDep, body: ServerCreate) -> Response:
    """Register a server. Nothing is dialled before the answer: what is wrong shows as `status` and `last_error`."""
    return reply(_shown(hub, await service.create_server(uow, caller, body, hub.sealer)), 201)


async def get_server(caller: CallerDep, connection: ReadDep, hub: HubDep, uuid: str) -> Response:
    """One server with its live status."""
    return reply(_shown(hub, await service.get_server(connection, caller, uuid_or_404(uuid), hub.sealer)))


async def update_server(caller: CallerDep, uow: UowDep, hub: HubDep, uuid: str, body: Patch) -> Response:
    """Merge a change. The slug stays; a changed configuration ends the running connection."""
    return reply(_shown(hub, await service.update_server(uow, caller, uuid_or_404(uuid), body, hub.sealer)))


async def replace_server(caller: CallerDep, uow: UowDep, hub: HubDep, uuid: str, body: Patch) -> Response:
    """The same as PATCH: the documents use both words for a merge."""
    return await update_server(caller, uow, hub, uuid, body)


async def delete_server(caller: CallerDep, uow: UowDep, uuid: str) -> Response:
    """Remove a server, end its process, drop it from every key's grant."""
    await service.delete_server(uow, caller, uuid_or_404(uuid))
    return Response(status_code=204)


def _shown(hub: Hub, server: Server) -> dict[str, Any]:
    return shown(server, hub.board.get(server.id))


def shown(server: Server, state: ServerState) -> dict[str, Any]:
    """The server with its live state, its secrets masked."""
    return {
        "uuid": server.id,
        "slug": server.slug,
        "name": server.name,
        "description": server.description,
        "type": server.transport,
        "config": masked(server.config),
        "enabled": server.enabled,
        "capture": server.capture,
        "status": state.status if server.enabled else "disabled",
        "last_error": state.last_error,
        "profile_uuid": server.profile_id,
        "tools_count": state.tools_count,
        "created_at": rfc3339(server.created_at),
        "updated_at": rfc3339(server.updated_at),
    }


_PATH = "/api/servers"


def routes(tools: ToolDoor) -> list[Route]:
    """The rows; `tools` answers the hot one."""
    return [
        Route("GET", _PATH, "read:servers", list_servers, "List servers", "Servers", output=ServerList),
        Route("POST", _PATH, "write:servers", create_server, "Register a server", "Servers", status=201, output=ServerOut),
        Route("GET", _PATH + "/{uuid}", "read:servers", get_server, "Get a server", "Servers", output=ServerOut),
        Route("PUT", _PATH + "/{uuid}", "write:servers", replace_server, "Change a server", "Servers", output=ServerOut),
        Route("PATCH", _PATH + "/{uuid}", "write:servers", update_server, "Change a server", "Servers", output=ServerOut),
        Route("DELETE", _PATH + "/{uuid}", "delete:servers", delete_server, "Remove a server", "Servers", status=204),
        Route(
            "POST",
            _PATH + "/{uuid}/tools/{tool}/execute",
            "execute:tools",
            tools.execute,
            "Call a tool",
            "Tools",
            hot=True,
            input=Execute,
            output=Executed,
        ),
    ]
