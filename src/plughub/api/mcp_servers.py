"""The documents' flat way to register a server: `POST /api/mcp-servers` is `POST /api/servers` with `config` spread out."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from plughub.api.framework import CallerDep, HubDep, UowDep
from plughub.api.models import ServerOut
from plughub.api.reply import reply
from plughub.api.servers import shown
from plughub.door.routes import Route
from plughub.kit.errors import Invalid
from plughub.servers import service
from plughub.servers.client_files import TRANSPORTS, transport_of
from plughub.servers.schemas import ServerCreate, checked

_OF_CONFIG = ("command", "args", "env", "url", "headers")


class McpServerCreate(BaseModel):
    """`transport`: stdio, sse or http (`type` is the same); without it a `command` means stdio and a `url` http."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    transport: Annotated[str | None, Field(validation_alias=AliasChoices("transport", "type"))] = None
    command: str | None = None
    args: list[str] | None = None
    url: str | None = None
    env: dict[str, str] | None = None
    headers: dict[str, str] | None = None
    notes: str | None = None


async def create_mcp_server(caller: CallerDep, uow: UowDep, hub: HubDep, body: McpServerCreate) -> Response:
    """Register a server from the flat form. `notes` becomes its description."""
    given = body.model_dump(exclude_none=True)
    transport = transport_of(given.get("transport"), given)
    if transport is None:
        words = ", ".join(TRANSPORTS)
        raise Invalid("transport", f"The 'transport' field must be one of {words}, or left out beside a command or a url", body.transport)
    fields = {
        "name": body.name,
        "type": transport,
        "config": {name: given[name] for name in _OF_CONFIG if name in given},
        "description": body.notes,
    }
    try:
        server = await service.create_server(uow, caller, checked(ServerCreate, fields), hub.sealer)
    except Invalid as error:
        raise _in_flat_words(error) from error
    return reply(shown(server, hub.board.get(server.id)), 201)


def _in_flat_words(error: Invalid) -> Invalid:
    """The same error about the fields that the caller wrote."""
    errors = [_renamed(problem) for problem in error.errors]
    return Invalid(errors[0]["field"], errors[0]["message"], errors=errors)


def _renamed(problem: Mapping[str, Any]) -> dict[str, Any]:
    field: str = problem["field"]
    flat = "notes" if field == "description" else field.removeprefix("config.")
    return {"field": flat, "message": problem["message"].replace(f"'{field}'", f"'{flat}'")}


ROUTES = [
    Route(
        "POST",
        "/api/mcp-servers",
        "write:servers",
        create_mcp_server,
        "Register a server, flat",
        "Servers",
        status=201,
        output=ServerOut,
    )
]
