"""`plughub server …`: registering servers and looking after them."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from plughub.cli.exits import ExitCode, Failure, failure_of
from plughub.cli.session import Session, hub_command
from plughub.kit.ids import parse_public_id

_PAGE = 1000
_PATH = "/api/servers"
_TYPES = {"http": "STREAMABLE_HTTP", "sse": "SSE"}

ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="A slug, a name, a uuid or an mcp_… id.")]


@dataclass(frozen=True, slots=True)
class Reach:
    """The options that say how a server is reached."""

    url: Annotated[str | None, typer.Option("--url", help="A server reached over HTTP.")] = None
    kind: Annotated[Literal["http", "sse"], typer.Option("--type", help="How the url is spoken to.")] = "http"
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="NAME alone takes it from the environment.")
    ] = None
    header: Annotated[list[str] | None, typer.Option("--header", "-H", metavar="NAME=VALUE", help="Also NAME: VALUE.")] = None

    def config(self, command: Sequence[str]) -> dict[str, Any]:
        """`type` and `config` as the hub wants them. Raises Failure."""
        if bool(command) == (self.url is not None):
            raise Failure(ExitCode.USAGE, "A server has either a command, after --, or a --url")
        if (self.header and command) or (self.env and not command):
            raise Failure(ExitCode.USAGE, "--header goes with --url, --env with a command")
        if command:
            stdio = {"command": command[0], "args": list(command[1:]), "env": pairs("--env", self.env, os.environ)}
            return {"type": "STDIO", "config": stdio}
        return {"type": _TYPES[self.kind], "config": {"url": self.url, "headers": pairs("--header", self.header)}}


def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it; its slug is made of this.")],
    reach: Reach,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="After --: the command of a STDIO server, with its arguments.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Register a server: `plughub server add NAME -- npx -y @modelcontextprotocol/server-memory`, or `--url URL`."""
    made = session.ask("POST", _PATH, {"name": name, "description": description, **reach.config(command or [])})
    if session.screen.as_json:
        session.screen.json(made)
    else:
        session.screen.text(f"{made['slug']}  {made['uuid']}")


def list_servers(session: Session) -> None:
    """List the servers that the key may use."""
    servers = list(every_server(session))
    if session.screen.as_json:
        session.screen.json(servers)
        return
    rows = [[s["slug"], s["name"], s["type"], s["status"], s["tools_count"], s["last_error"]] for s in servers]
    session.screen.table(("SLUG", "NAME", "TYPE", "STATUS", "TOOLS", "LAST ERROR"), rows)


def show(session: Session, server: ServerArgument) -> None:
    """Show one server; its secrets are ***."""
    _print(session, session.ask("GET", f"{_PATH}/{server_id(session, server)}"))


def remove(session: Session, server: ServerArgument) -> None:
    """Remove a server and end its process."""
    id_ = server_id(session, server)
    session.ask("DELETE", f"{_PATH}/{id_}")
    _print(session, {"uuid": id_, "removed": True})


def test(session: Session, server: ServerArgument) -> None:
    """Connect to a server anew and say what it is."""
    found = session.ask("POST", f"{_PATH}/{server_id(session, server)}/test")
    _print(session, found)
    if isinstance(found, Mapping) and any(found.get(word) is False for word in ("success", "ok", "reachable")):
        raise Failure(ExitCode.TOOL_ERROR, "The test failed")


def restart(session: Session, server: ServerArgument) -> None:
    """End a server's process or session, and begin another."""
    _print(session, session.ask("POST", f"{_PATH}/{server_id(session, server)}/restart"))


def logs(
    session: Session,
    server: ServerArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
) -> None:
    """Print the end of a server's log; with -f what is added to it, until Ctrl+C."""
    path, query = f"{_PATH}/{server_id(session, server)}/logs", {"limit": lines}
    if not follow:
        _log_lines(session, session.ask("GET", path, query=query))
        return
    for event in session.stream("GET", path, query=query):
        if event.name == "log":
            _log_lines(session, {"logs": [event.data]})
        elif event.name == "dropped":
            session.screen.note(f"({event.data.get('lines')} lines came too fast)")
        elif event.name == "end":
            session.screen.note(f"The log ended: {event.data.get('reason')}")
            return
        elif event.name == "error":
            raise failure_of(event.data)
        elif event.name == "answer":
            raise Failure(ExitCode.HUB, "This hub does not stream logs")
    raise Failure(ExitCode.UNREACHABLE, "The stream broke off")


def _log_lines(session: Session, answer: Any) -> None:
    for entry in answer["logs"]:
        if session.screen.as_json:
            session.screen.json_line(entry)
        elif isinstance(entry, Mapping) and "line" in entry:
            session.screen.text(f"{entry.get('at', '')} {entry['line']}".strip())
        else:
            session.screen.text(str(entry))


def _print(session: Session, value: Any) -> None:
    if session.screen.as_json:
        session.screen.json(value)
    else:
        session.screen.fields(value if isinstance(value, Mapping) else {"result": value})


def every_server(session: Session) -> Iterator[dict[str, Any]]:
    """All servers of the key, page by page."""
    offset, total = 0, 1
    while offset < total:
        page = session.ask("GET", _PATH, query={"offset": offset})
        yield from page["servers"]
        offset, total = offset + _PAGE, page["total"]


def server_id(session: Session, word: str) -> str:
    """The uuid of the server that the user means. Raises Failure when there is none, or more than one."""
    if (id_ := parse_public_id("mcp", word)) is not None:
        return id_
    servers = list(every_server(session))
    by_slug = [server for server in servers if server["slug"] == word]
    found = by_slug or [server for server in servers if server["name"].casefold() == word.casefold()]
    if len(found) == 1:
        id_ = found[0]["uuid"]
        return str(id_)
    if found:
        raise Failure(ExitCode.USAGE, f"Several servers are called {word}:", *[f"  {s['slug']}  {s['uuid']}" for s in found])
    near = difflib.get_close_matches(word, [server["slug"] for server in servers], n=1)
    raise Failure(ExitCode.NOT_FOUND, f"No server is called {word}" + (f". Did you mean {near[0]}?" if near else ""))


def pairs(option: str, given: Sequence[str] | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`NAME=VALUE` of a repeated option; with `environ` NAME alone is looked up there. Raises Failure."""
    found: dict[str, str] = {}
    for text in given or ():
        name, mark, value = text.partition("=")
        if environ is None and (not mark or ":" in name):
            name, mark, value = text.partition(":")
            value = value.strip()
        if not mark and environ is not None:
            if name not in environ:
                raise Failure(ExitCode.USAGE, f"{option} {name}: the environment has no such variable; write {name}=VALUE")
            value = environ[name]
        elif not mark or not name.strip():
            raise Failure(ExitCode.USAGE, f"{option} takes NAME=VALUE")
        found[name.strip()] = value
    return found


app = typer.Typer(no_args_is_help=True, help="Register servers, look at them, look after them.")
app.command()(hub_command(add))
app.command("list")(hub_command(list_servers))
for _command in (show, remove, test, logs, restart):
    app.command()(hub_command(_command))
