"""`plughub tools` and `plughub call`: what the servers can do, and doing it."""

import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from plughub.cli.arguments import typed_arguments, whole_arguments
from plughub.cli.exits import ExitCode, Failure, failure_of
from plughub.cli.servers import ServerArgument, every_server, server_id
from plughub.cli.session import Session, segment

_AT_ONCE = 8
_LINE = 100


def tools(session: Session, server: Annotated[str | None, typer.Argument(metavar="[SERVER]", help="One server; else all.")] = None) -> None:
    """List the tools of a server, or of all that are switched on."""
    if server is not None:
        listed = {server: _tools(session, server_id(session, server))}
    else:
        listed = _of_all(session)
    if session.screen.as_json:
        session.screen.json([{"server": slug, **tool} for slug, found in listed.items() for tool in found])
        return
    rows = [[slug, tool.get("name"), _first_line(tool.get("description"))] for slug, found in listed.items() for tool in found]
    session.screen.table(("SERVER", "TOOL", "DESCRIPTION"), rows)


def call(
    session: Session,
    server: ServerArgument,
    tool: Annotated[str, typer.Argument(help="The tool's own name.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="name=value …, name:=JSON …, one JSON object, or - for stdin.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, max=300, help="Seconds to wait for the tool.")] = None,
) -> None:
    """Call a tool. Its progress goes to stderr, its result to stdout; a tool's own error is exit code 1."""
    id_ = server_id(session, server)
    body: dict[str, Any] = {"parameters": _arguments(session, id_, tool, arguments or [])}
    if timeout is not None:
        body["timeout_ms"] = max(1, round(timeout * 1000))
    answer = None
    for event in session.stream("POST", f"/api/servers/{id_}/tools/{segment(tool)}/execute", body):
        if event.name == "progress":
            session.screen.note(_progress(event.data))
        elif event.name == "error":
            raise failure_of(event.data)
        else:
            answer = event.data
    if answer is None:
        raise Failure(ExitCode.UNREACHABLE, "The answer broke off; the tool may have run")
    _print(session, answer)
    if answer.get("isError"):
        raise Failure(ExitCode.TOOL_ERROR, "The tool reported an error")


def _of_all(session: Session) -> dict[str, list[dict[str, Any]]]:
    """The tools of every server by slug. A server that is down is named on stderr; when all are, that is the answer."""
    servers = [server for server in every_server(session) if server["enabled"]]
    failures: dict[str, Failure] = {}

    def ask(server: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return _tools(session, server["uuid"])
        except Failure as failure:
            failures[server["slug"]] = failure
            return []

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = dict(zip([server["slug"] for server in servers], pool.map(ask, servers), strict=True))
    for slug, failure in failures.items():
        session.screen.note(f"{slug}: {failure.text}")
    if failures and len(failures) == len(servers):
        raise next(iter(failures.values()))
    return listed


def _tools(session: Session, id_: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.ask("GET", f"/api/servers/{id_}/tools")["tools"]
    return found


def _arguments(session: Session, id_: str, tool: str, words: Sequence[str]) -> dict[str, Any]:
    if list(words) == ["-"]:
        return whole_arguments(sys.stdin.read(), "on stdin")
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return whole_arguments(words[0], "given")
    if not words:
        return {}
    described = next((one for one in _tools(session, id_) if one.get("name") == tool), {})
    schema = described.get("inputSchema")
    return typed_arguments(words, schema if isinstance(schema, Mapping) else {})


def _progress(data: Any) -> str:
    if not isinstance(data, Mapping):
        return str(data)
    steps = f"{data.get('progress')}" + (f"/{data['total']}" if data.get("total") is not None else "")
    return f"[{steps}] {data.get('message') or ''}".rstrip()


def _print(session: Session, answer: Mapping[str, Any]) -> None:
    result = answer.get("result")
    if session.screen.as_json:
        session.screen.json(answer)
    elif isinstance(result, str):
        session.screen.text(result)
    else:
        session.screen.text(json.dumps(result, indent=2, ensure_ascii=False))


def _first_line(text: Any) -> str:
    lines = str(text or "").strip().splitlines()
    return lines[0][:_LINE] if lines else ""
