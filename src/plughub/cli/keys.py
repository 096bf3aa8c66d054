"""`plughub key …`: making and ending API keys. A key is printed once, where it is made."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.servers import server_id
from plughub.cli.session import Session, hub_command, segment

_PATH = "/api/auth/keys"
_PAGE = 100
_SPAN = re.compile(r"(\d{1,5})([hdw])")
_SECONDS = re.compile(r"\d{1,6}")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do, repeated; without it all but admin and keys.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="A server that it may use, repeated; without it all.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="WHEN", help="12h, 30d, 8w, or a time such as 2030-01-01T00:00:00Z.")] = None,
    kind: Annotated[Literal["public", "secret"], typer.Option(help="A secret key is refused from browsers.")] = "public",
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the key there (mode 0600) instead of the screen.")] = None,
) -> None:
    """Make a key. It is printed this once; alone on stdout, so that KEY=$(plughub key create NAME) holds it."""
    body: dict[str, Any] = {"name": name, "kind": kind}
    if scope:
        body["scopes"] = [one for word in scope for one in re.split(r"[\s,]+", word) if one]
    if server:
        body["servers"] = [server_id(session, word) for word in server]
    if expires is not None:
        body["expires_at"] = _time(expires)
    made = _with_secret(session, _PATH, body, save)
    if not session.screen.as_json:
        session.screen.note(f"{made['id']}: {', '.join(made['scopes'])}; expires {made['expires_at'] or 'never'}")
    _hand_over(session, made, save)


def rotate(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `key list` shows it.")],
    overlap: Annotated[str, typer.Option(metavar="TIME", help="So long the old secret works: 12h, 1d, 1w, or seconds.")] = "1d",
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the key there (mode 0600) instead of the screen.")] = None,
) -> None:
    """Give a key a new secret. It is printed this once, alone on stdout; the old one works for the overlap."""
    made = _with_secret(session, f"{_PATH}/{segment(key_id)}/rotate", {"overlap_seconds": _seconds(overlap)}, save)
    if not session.screen.as_json:
        session.screen.note(
            f"{made['id']}: the secret before, {made['previous']['prefix']}…, works until {made['previous']['valid_until']}"
        )
    _hand_over(session, made, save)


def _with_secret(session: Session, path: str, body: dict[str, Any], save: Path | None) -> Any:
    """The answer that holds a new secret; written to the file, which must not be there yet, when there is one."""
    handle = _open(save) if save is not None else None
    try:
        made = session.ask("POST", path, body)
    except Failure:
        if handle is not None and save is not None:
            os.close(handle)
            save.unlink()
        raise
    if handle is not None:
        with os.fdopen(handle, "w") as file:
            file.write(made["key"] + "\n")
        made["key"] = None
    return made


def _hand_over(session: Session, made: Any, save: Path | None) -> None:
    if session.screen.as_json:
        session.screen.json(made)
    else:
        session.screen.text(f"The key is in {save}" if save is not None else made["key"])


def list_keys(session: Session) -> None:
    """List the keys, revoked ones too, without their secrets."""
    keys: list[dict[str, Any]] = []
    total = 1
    while len(keys) < total:
        page = session.ask("GET", _PATH, query={"limit": _PAGE, "offset": len(keys)})
        keys, total = keys + page["keys"], page["total"] if page["keys"] else 0
    if session.screen.as_json:
        session.screen.json(keys)
        return
    rows = [
        [key["id"], key["name"], f"{key['prefix']}…{key['last4']}", key["status"], _count(key["servers"]), key["expires_at"]]
        for key in keys
    ]
    session.screen.table(("ID", "NAME", "KEY", "STATUS", "SERVERS", "EXPIRES"), rows)


def revoke(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `key list` shows it.")]) -> None:
    """Revoke a key for good: it is refused from the next request on."""
    done = session.ask("DELETE", f"{_PATH}/{segment(key_id)}")
    if session.screen.as_json:
        session.screen.json(done)
    else:
        session.screen.text(f"{done['id']} revoked at {done['revoked_at']}")


def _count(servers: Any) -> str:
    return "all" if servers == "*" else str(len(servers))


def _time(text: str) -> str:
    span = _SPAN.fullmatch(text)
    if span is None:
        return text
    at = datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds(text: str) -> int:
    span = _SPAN.fullmatch(text)
    if span is not None:
        return int(timedelta(**{_UNITS[span[2]]: int(span[1])}).total_seconds())
    if _SECONDS.fullmatch(text) is None:
        raise Failure(ExitCode.USAGE, f"'{text[:50]}' is no time: write 12h, 1d, 1w, or seconds")
    return int(text)


def _open(path: Path) -> int:
    """A new private file, made before the key is: a key that cannot be kept is not made."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{path} cannot be made: {error.strerror}") from error


app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")
app.command()(hub_command(create))
app.command("list")(hub_command(list_keys))
app.command()(hub_command(rotate))
app.command()(hub_command(revoke))
