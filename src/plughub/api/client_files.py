"""Servers out of and into the files of MCP clients: `mcp.json`, `claude_desktop_config.json` and their kin (CONTRACT section 5)."""

from typing import Annotated, Any

from fastapi import Body, Query, Response

from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep
from plughub.api.models import ClientFileOut, ImportedOut
from plughub.api.reply import reply
from plughub.api.servers import shown
from plughub.door.routes import Route
from plughub.servers.client_files import read_client_file, write_client_file
from plughub.servers.importing import OnConflict, import_servers
from plughub.servers.service import list_every_server

ClientDocument = Annotated[
    dict[str, Any],
    Body(
        description="A client's file as it is: `mcpServers`, or `servers` (and `inputs`) of VS Code. "
        'Beside them `values`: `{"NAME": "…"}` for the placeholders `${NAME}`, `${env:NAME}`, `${input:NAME}` in it'
    ),
]
ConflictRule = Annotated[OnConflict, Query(description="What to do with names that exist: skip them, rename the new one, or refuse all")]


async def export_servers(caller: CallerDep, connection: ReadDep, hub: HubDep) -> Response:
    """The servers that the key may use, as a client's `mcp.json`. No secret is in it: each is a placeholder `${NAME}`."""
    return reply(write_client_file(await list_every_server(connection, caller, hub.sealer)))


async def import_client_file(
    caller: CallerDep, uow: UowDep, hub: HubDep, document: ClientDocument, on_conflict: ConflictRule = "skip"
) -> Response:
    """Register every server of a client's file, or none. What the hub has no use for is left out, with a warning.

    A server whose placeholders have no value is made switched off.
    """
    file = read_client_file(document)
    done = await import_servers(uow, caller, file, on_conflict, hub.sealer)
    return reply(
        {
            "imported": [shown(server, hub.board.get(server.id)) for server in done.servers],
            "skipped": done.skipped,
            "renamed": done.renamed,
            "on_conflict": on_conflict,
            "warnings": file.warnings,
        }
    )


_PATH = "/api/servers"
ROUTES = [
    Route("GET", _PATH + "/export", "read:servers", export_servers, "Export servers", "Servers", output=ClientFileOut),
    Route("POST", _PATH + "/import", "write:servers", import_client_file, "Import servers", "Servers", output=ImportedOut),
]
