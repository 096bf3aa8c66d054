"""`plughub events`: what happened, and with --follow what happens."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from plughub.cli.exits import ExitCode, Failure, failure_of
from plughub.cli.servers import server_id
from plughub.cli.session import Session

_PATH = "/api/event-log"
_STREAM = "/api/events"
_PAGE = 100
# Between two attempts at a hub that is away; the first follows at once.
_PAUSES_S = (0.0, 1.0, 2.0, 5.0)
_AWAY = (ExitCode.UNREACHABLE, ExitCode.LATER)


def events(
    session: Session,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", "-t", metavar="NAME", help="server.created, tool.*, or the documents' mcp.*; repeatable.")
    ] = None,
    server: Annotated[str | None, typer.Option("--server", "-s", help="Of this server alone: a slug, a name or an id.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many of the last events.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, also when the hub was away.")] = False,
) -> None:
    """Print the last events, oldest first; with -f what happens from then on, none left out and none twice, until Ctrl+C."""
    query: dict[str, Any] = {"type": kinds} if kinds else {}
    if server is not None:
        query["server"] = server_id(session, server)
    last, position = _last(session, query, lines)
    for event in reversed(last):
        _print(session, event)
    if follow:
        _follow(session, query, position)


def _last(session: Session, query: Mapping[str, Any], lines: int) -> tuple[Sequence[Any], str]:
    """The newest events, and where a stream goes on after them."""
    found: list[Any] = []
    page = session.ask("GET", _PATH, query={**query, "limit": min(lines, _PAGE) or 1})
    position = str(page["last_event_id"])
    while lines:
        found += page["events"]
        if len(found) >= lines or page["next_cursor"] is None:
            break
        page = session.ask("GET", _PATH, query={**query, "limit": min(lines - len(found), _PAGE), "cursor": page["next_cursor"]})
    return found[:lines], position


def _follow(session: Session, query: Mapping[str, Any], position: str) -> None:
    failed = 0
    while True:
        try:
            for event in session.stream("GET", _STREAM, query={**query, "mirror": "0", "last_event_id": position}):
                failed = 0
                if event.name == "answer":
                    raise failure_of(event.data)
                if event.id is not None:
                    position = event.id
                if event.name == "stream.gap":
                    session.screen.note(f"(events up to {event.data.get('missed_to')} are not kept any more)")
                elif event.name != "stream.closed":
                    _print(session, event.data)
        except Failure as failure:
            if failure.code not in _AWAY:
                raise
            session.screen.note(f"({failure.text}; going on when it is back)")
        time.sleep(_PAUSES_S[min(failed, len(_PAUSES_S) - 1)])
        failed += 1


def _print(session: Session, event: Any) -> None:
    if session.screen.as_json:
        session.screen.json_line(event)
        return
    data = event["data"]
    words = [event["timestamp"], event["event"]]
    words += [str(data[name]) for name in ("slug", "name", "tool", "email", "client_name") if data.get(name)]
    if data.get("error") or data.get("outcome", "ok") != "ok":
        words.append(str(data.get("error") or data["outcome"]))
    session.screen.text("  ".join(words))
