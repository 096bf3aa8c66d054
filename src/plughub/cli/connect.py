"""`plughub connect`: the hub as a STDIO server, for clients that only run commands."""

from typing import Annotated

import typer

from plughub.cli.exits import ExitCode
from plughub.cli.servers import server_id
from plughub.cli.session import Session, segment


def connect(
    session: Session,
    server: Annotated[str | None, typer.Argument(metavar="[SERVER]", help="One server under its own tool names; else all.")] = None,
) -> None:
    """Speak MCP on stdin and stdout, passing everything to the hub. Ends with the end of stdin."""
    from plughub.cli.bridge import serve_stdio

    path = "/mcp" if server is None else f"/servers/{segment(server_id(session, server))}/mcp"
    if not serve_stdio(session.url + path, session.key):
        raise typer.Exit(ExitCode.BROKEN_PIPE)
