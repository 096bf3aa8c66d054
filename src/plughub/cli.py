"""The command line. Heavy parts are imported by the command that needs them, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from plughub import __version__

app = typer.Typer(
    name="plughub", no_args_is_help=True, add_completion=False, help="The self-hosted hub for MCP servers.", pretty_exceptions_enable=False
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"plughub {__version__}")
        raise typer.Exit


@app.callback()
def plughub(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """The self-hosted hub for MCP servers."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [PLUGHUB_HOST; localhost].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [PLUGHUB_PORT; 12005].")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept [PLUGHUB_DATA_DIR; ./data].")] = None,
    operator_key_file: Annotated[Path | None, typer.Option(help="Write the operator's first key here instead of the screen.")] = None,
    insecure_http: Annotated[bool | None, typer.Option("--insecure-http", help="Allow a non-loopback address without TLS.")] = None,
) -> None:
    """Start the hub. Every other setting is an environment variable PLUGHUB_*: see docs/settings.md."""
    from plughub.data_dir import DataDirInUse
    from plughub.serve import CannotServe
    from plughub.serve import serve as run
    from plughub.settings import load_settings

    try:
        settings = load_settings(host=host, port=port, data_dir=data_dir, operator_key_file=operator_key_file, insecure_http=insecure_http)
        code = run(settings)
    except (CannotServe, DataDirInUse, OSError, ValueError) as error:
        typer.echo(f"plughub: {error}", err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(code)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
