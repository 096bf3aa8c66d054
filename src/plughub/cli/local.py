"""Commands that are the hub, or touch its data, instead of talking to one. What they need is loaded when they run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.session import tell

DataDirOption = Annotated[Path | None, typer.Option(help="Where everything is kept [PLUGHUB_DATA_DIR; ./data].")]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [PLUGHUB_HOST; localhost].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [PLUGHUB_PORT; 12005].")] = None,
    data_dir: DataDirOption = None,
    operator_key_file: Annotated[Path | None, typer.Option(help="Write the operator's first key here instead of the screen.")] = None,
    insecure_http: Annotated[bool | None, typer.Option("--insecure-http", help="Allow a non-loopback address without TLS.")] = None,
) -> None:
    """Start the hub. Every other setting is an environment variable PLUGHUB_*: see docs/settings.md."""
    _load_plain_logs()
    from plughub.data_dir import DataDirInUse
    from plughub.serve import CannotServe
    from plughub.serve import serve as run
    from plughub.settings import load_settings

    try:
        settings = load_settings(host=host, port=port, data_dir=data_dir, operator_key_file=operator_key_file, insecure_http=insecure_http)
        code = run(settings)
    except (CannotServe, DataDirInUse, OSError, ValueError) as error:
        tell(Failure(ExitCode.USAGE, str(error)))
        raise typer.Exit(ExitCode.USAGE) from error
    raise typer.Exit(code)


def _load_plain_logs() -> None:
    """structlog without what it loads, where rich is there, for tracebacks in colour: the hub writes JSON, and 4.5 MB stay free."""
    modules: dict[str, Any] = sys.modules
    if "structlog" in modules or "rich" in modules:
        return
    modules["rich"] = None  # to the import system: there is none
    try:
        import structlog  # noqa: F401
    finally:
        del modules["rich"]


def migrate(
    data_dir: DataDirOption = None,
    database_url: Annotated[str | None, typer.Option(help="postgresql://… [PLUGHUB_DATABASE_URL; SQLite in the data directory].")] = None,
) -> None:
    """Bring the database to this version's schema without serving. `serve` does the same at its start."""
    from plughub.data_dir import DataDirInUse
    from plughub.serve import CannotServe, upgrade
    from plughub.settings import load_settings

    try:
        before, after = upgrade(load_settings(data_dir=data_dir, database_url=database_url))
    except (CannotServe, DataDirInUse, OSError, ValueError) as error:
        tell(Failure(ExitCode.USAGE, str(error)))
        raise typer.Exit(ExitCode.USAGE) from error
    typer.echo(f"The schema is {after}" + (", as it was" if before == after else f"; it was {before or 'empty'}"))
