"""`plughub import` and `plughub export`: the files in which MCP clients list their servers."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plughub.cli.apply import export_hub
from plughub.cli.exits import ExitCode, Failure
from plughub.cli.servers import pairs
from plughub.cli.session import Session

# A client's file may hold much else, secrets too, that is none of the hub's business.
_SENT = ("mcpServers", "servers", "inputs")
_STRING = r'"(?:\\.|[^"\\])*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)


def import_file(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="mcp.json, claude_desktop_config.json, …; - for stdin.")],
    on_conflict: Annotated[Literal["skip", "rename", "error"], typer.Option(help="What to do with names that exist.")] = "skip",
    value: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Fills ${NAME} in the file; NAME alone takes it from the environment."),
    ] = None,
) -> None:
    """Register the servers of a client's file: all of them, or none."""
    document = _servers_of(_read(file), file)
    if values := pairs("--value", value, os.environ):
        document["values"] = values
    done = session.ask("POST", "/api/servers/import", document, query={"on_conflict": on_conflict})
    if session.screen.as_json:
        session.screen.json(done)
        return
    for warning in done["warnings"]:
        session.screen.note(f"{warning['field']}: {warning['message']}")
    rows = [[server["slug"], "imported" if server["enabled"] else "imported, switched off"] for server in done["imported"]]
    session.screen.table(("SERVER", "WHAT HAPPENED"), [*rows, *([name, "skipped: the name exists"] for name in done["skipped"])])


def export(
    session: Session,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there instead of stdout.")] = None,
    form: Annotated[
        Literal["client", "hub"], typer.Option("--as", help="client: the servers as an mcp.json; hub: the hub for apply.")
    ] = "client",
) -> None:
    """Print the servers as an mcp.json, or the hub as a file for `apply`; every secret is a placeholder ${NAME}."""
    if form == "hub":
        text = export_hub(session)
    else:
        text = json.dumps(session.ask("GET", "/api/servers/export"), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{output} cannot be written: {error.strerror}") from error


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(ExitCode.USAGE, f"{file} is not UTF-8 text") from error


def _servers_of(text: str, file: str) -> dict[str, Any]:
    """What of the file is about servers."""
    try:
        document = parse_commented(text)
    except ValueError as error:
        raise Failure(ExitCode.USAGE, f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Failure(ExitCode.USAGE, f"{file} holds no JSON object")
    found = {name: document[name] for name in _SENT if name in document}
    if isinstance(mcp := document.get("mcp"), dict):
        found |= {name: mcp[name] for name in ("servers", "inputs") if name in mcp}
    if "mcpServers" not in found and "servers" not in found:
        raise Failure(ExitCode.USAGE, f"{file} lists no servers: it has neither `mcpServers` nor `servers`")
    return found


def parse_commented(text: str) -> Any:
    """JSON in which comments and a comma before the end of a list are no error, as VS Code writes it. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        bare = _COMMENT.sub(lambda match: match[1] or " ", text)
        return json.loads(_LAST_COMMA.sub(lambda match: match[1] or "", bare))
