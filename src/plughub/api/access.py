"""Why a key may call a tool, or may not (CONTRACT section 3, scope admin)."""

from typing import Annotated, Any

from fastapi import Query, Response

from plughub.api.audit_shapes import AccessExplained
from plughub.api.framework import CallerDep, HubDep
from plughub.api.reply import public_or_404, reply
from plughub.door.routes import Route
from plughub.gateway.explaining import SCOPE, explain
from plughub.keys.service import get_key
from plughub.kit.errors import KeyNotFound, NotPermitted
from plughub.kit.ids import parse_public_id, public_id
from plughub.servers.store import find_server

_KeyId = Annotated[str, Query(description="The id of a key of this organisation and environment")]
_ServerId = Annotated[str, Query(description="The server's uuid or `mcp_` id")]
_Tool = Annotated[str | None, Query(max_length=256, description="Without it: any tool")]


async def explain_access(caller: CallerDep, hub: HubDep, key: _KeyId, server: _ServerId, tool: _Tool = None) -> Response:
    """Which grant, scope, limit or status decides when this key calls a tool of this server now; nothing is called or counted.

    The checks stand in the order of a call, and are asked of the same rules.
    """
    key_id, server_id = public_or_404("key", key, KeyNotFound.message), parse_public_id("mcp", server)
    # Not a dependency: no connection is held while a server is asked for its tools.
    async with hub.database.read() as connection:
        about = await get_key(connection, caller, key_id)
        if server_id is not None and not caller.granted(server_id) and await find_server(connection, server_id, caller.space_id):
            # Whoever asks with a server list learns nothing of the other servers.
            raise NotPermitted
    entry = await hub.keys.find_by_id(key_id, caller.space_id)
    if entry is None:
        raise KeyNotFound
    found = await explain(hub, entry, server_id, tool)
    decides = found.decides
    checks: list[dict[str, Any]] = [
        {"check": check.name, "passed": check.passed, "reason": check.reason, "status": check.status, "code": check.code}
        for check in found.checks
    ]
    return reply(
        {
            "allowed": decides is None,
            "decided_by": decides.name if decides is not None else None,
            "status": decides.status if decides is not None else 200,
            "code": decides.code if decides is not None else None,
            "key": {"id": public_id("key", about.id), "name": about.name, "prefix": about.prefix, "environment": about.environment},
            "server": server,
            "tool": tool,
            "scope": SCOPE,
            "checks": checks,
        }
    )


# Not counted: an administrator may ask why when the limit is what decides.
ROUTES = [
    Route("GET", "/api/access/explain", "admin", explain_access, "Why a call is allowed or not", "Access", cost=0, output=AccessExplained)
]
