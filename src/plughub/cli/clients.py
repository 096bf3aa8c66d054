"""`plughub client-config`: what to paste into an MCP client, so that it reaches the hub. A key is never part of it."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.session import KEY, KEY_FILE, URL, Session

_BLANK = "<your API key>"
_NAME = "plughub"


@dataclass(frozen=True, slots=True)
class Client:
    """A client: where its file is, what goes in, and how it takes the key."""

    file: str
    snippet: Callable[[Session], dict[str, Any] | str]
    key: str


def client_config(
    session: Session,
    client: Annotated[str, typer.Argument(help="claude, claude-code, cursor, vscode, windsurf, cline, gemini, codex, stdio.")],
) -> None:
    """Print what to paste into an MCP client. The key stays out: a variable, a question, or --key-file stands for it."""
    found = CLIENTS.get(client)
    if found is None:
        raise Failure(ExitCode.USAGE, f"{client} is not known; known are {', '.join(CLIENTS)}")
    snippet = found.snippet(session)
    if session.screen.as_json:
        session.screen.json({"client": client, "file": found.file, "snippet": snippet})
        return
    session.screen.note(f"Into {found.file}. {found.key}")
    session.screen.text(snippet if isinstance(snippet, str) else json.dumps(snippet, indent=2))


def _over_http(form: str, *, url_name: str = "url", **more: str) -> Callable[[Session], dict[str, Any]]:
    """An entry that reaches `/mcp`, its key as the client spells a variable."""

    def snippet(session: Session) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {form}"}
        return {"mcpServers": {_NAME: {**more, url_name: f"{session.url}/mcp", "headers": headers}}}

    return snippet


def _vscode(session: Session) -> dict[str, Any]:
    question = {"type": "promptString", "id": "plughub-key", "description": "Plughub API key", "password": True}
    headers = {"Authorization": "Bearer ${input:plughub-key}"}
    return {"inputs": [question], "servers": {_NAME: {"type": "http", "url": f"{session.url}/mcp", "headers": headers}}}


def _over_stdio(session: Session) -> dict[str, Any]:
    """For clients that only run commands. The key is in the child's environment, not on its command line."""
    file = session.key_file
    key = {KEY_FILE: str(file.absolute())} if file is not None else {KEY: _BLANK}
    return {"mcpServers": {_NAME: {"command": _program(), "args": ["connect"], "env": {URL: session.url, **key}}}}


def _codex(session: Session) -> str:
    return f'[mcp_servers.{_NAME}]\nurl = {json.dumps(session.url + "/mcp")}\nbearer_token_env_var = "{KEY}"'


def _program() -> str:
    """This program by its whole path: clients with windows have another PATH than a terminal."""
    beside = Path(sys.argv[0])
    return str(beside.absolute()) if beside.name == _NAME and beside.is_file() else shutil.which(_NAME) or _NAME


_FROM_ENVIRONMENT = f"The client takes the key from its environment: export {KEY}."
_WRITE_IT = f"Put the key in place of {_BLANK}, or run this with --key-file."
CLIENTS = {
    "claude": Client("claude_desktop_config.json (Settings > Developer)", _over_stdio, _WRITE_IT),
    "claude-code": Client(".mcp.json", _over_http("${PLUGHUB_KEY}", type="http"), _FROM_ENVIRONMENT),
    "cursor": Client("~/.cursor/mcp.json", _over_http("${env:PLUGHUB_KEY}"), _FROM_ENVIRONMENT),
    "vscode": Client(".vscode/mcp.json", _vscode, "VS Code asks for the key."),
    "windsurf": Client("~/.codeium/windsurf/mcp_config.json", _over_http("${env:PLUGHUB_KEY}", url_name="serverUrl"), _FROM_ENVIRONMENT),
    "cline": Client("cline_mcp_settings.json", _over_http(_BLANK, type="streamableHttp"), f"Put the key in place of {_BLANK}."),
    "gemini": Client("~/.gemini/settings.json", _over_http("$PLUGHUB_KEY", url_name="httpUrl"), _FROM_ENVIRONMENT),
    "codex": Client("~/.codex/config.toml", _codex, _FROM_ENVIRONMENT),
    "stdio": Client("the file of any client that runs commands", _over_stdio, _WRITE_IT),
}
