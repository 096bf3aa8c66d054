"""`plughub audit`: the audit on the database itself. What it needs is loaded when it runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.local import DataDirOption
from plughub.cli.screen import Screen, clean
from plughub.cli.session import Given, tell

app = typer.Typer(no_args_is_help=True, help="Who did what: check that it is as it was written, and take it out.")
DatabaseOption = Annotated[str | None, typer.Option(help="postgresql://… [PLUGHUB_DATABASE_URL; SQLite in the data directory].")]


@app.command()
def verify(
    context: typer.Context,
    data_dir: DataDirOption = None,
    database_url: DatabaseOption = None,
    anchor: Annotated[list[str] | None, typer.Option(metavar="ORG:ROW:MAC", help="A last row that was printed earlier.")] = None,
) -> None:
    """Check every row of every organisation's audit. Ends with 1 when one is broken, and names its first row that does not fit."""
    from plughub.audit_desk import verify_audit
    from plughub.serve import CannotServe
    from plughub.settings import load_settings

    try:
        found = verify_audit(load_settings(data_dir=data_dir, database_url=database_url), anchor or [])
    except (CannotServe, OSError, ValueError) as error:
        tell(Failure(ExitCode.USAGE, str(error)))
        raise typer.Exit(ExitCode.USAGE) from error
    told: list[dict[str, Any]] = [
        {
            "organization_id": verdict.organization_id,
            "name": verdict.name,
            "intact": verdict.broken_at is None,
            "rows": verdict.rows,
            "broken_at": verdict.broken_at,
            "reason": verdict.reason,
            "anchor": f"{verdict.organization_id}:{verdict.head[0]}:{verdict.head[1]}" if verdict.head is not None else None,
        }
        for verdict in found
    ]
    screen = Screen(isinstance(context.obj, Given) and context.obj.as_json)
    if screen.as_json:
        screen.json(told)
    else:
        for one in told:
            screen.text(_line(one))
    if not all(one["intact"] for one in told):
        raise typer.Exit(ExitCode.TOOL_ERROR)


@app.command()
def export(
    organization: Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id, as verify lists it.")],
    form: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
    data_dir: DataDirOption = None,
    database_url: DatabaseOption = None,
) -> None:
    """Write every row of an organisation's audit, oldest first."""
    import sys

    from plughub.audit_desk import export_audit
    from plughub.serve import CannotServe, write_private
    from plughub.settings import load_settings

    try:
        if form not in ("jsonl", "csv"):
            raise CannotServe(f"'{form}' is no format: jsonl or csv")
        settings = load_settings(data_dir=data_dir, database_url=database_url)
        if output is None:
            export_audit(settings, organization, form, sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
        else:
            write_private(output, "")
            with output.open("ab") as file:
                export_audit(settings, organization, form, file.write)
    except (CannotServe, OSError, ValueError) as error:
        tell(Failure(ExitCode.USAGE, str(error)))
        raise typer.Exit(ExitCode.USAGE) from error


def _line(one: dict[str, Any]) -> str:
    name = f"{one['organization_id']}  {clean(one['name'] or '(gone)')}"
    if one["intact"]:
        return f"intact  {name}  {one['rows']} rows" + (f", anchor {one['anchor']}" if one["anchor"] else "")
    return f"BROKEN  {name}  row {one['broken_at']}: {one['reason']}; {one['rows']} rows before it are intact"
