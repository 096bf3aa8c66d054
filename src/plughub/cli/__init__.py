"""The command line. Heavy parts are imported by the command that needs them, so that `--help` is quick."""

import sys
from typing import Annotated

import typer

from plughub import __version__
from plughub.cli import apply, audit, clients, connect, events, explain, files, keys, local, servers, tools
from plughub.cli.session import Given, JsonOption, KeyFileOption, KeyOption, UrlOption, hub_command

app = typer.Typer(name="plughub", no_args_is_help=True, help="The self-hosted hub for MCP servers.", pretty_exceptions_enable=False)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"plughub {__version__}")
        raise typer.Exit


@app.callback()
def plughub(
    context: typer.Context,
    hub_url: UrlOption = None,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """The self-hosted hub for MCP servers. Commands but `serve`, `migrate` and `audit` talk to a running hub."""
    context.obj = Given(hub_url, key, key_file, as_json)


app.command()(local.serve)
app.command()(local.migrate)
app.add_typer(servers.app, name="server")
app.command("tools")(hub_command(tools.tools))
app.command("call")(hub_command(tools.call))
app.add_typer(keys.app, name="key")
app.add_typer(audit.app, name="audit")
app.command("import")(hub_command(files.import_file))
app.command("export")(hub_command(files.export))
app.command("apply")(hub_command(apply.apply))
app.command("connect")(hub_command(connect.connect))
app.command("client-config")(hub_command(clients.client_config))
app.command("events")(hub_command(events.events))
app.command("explain")(hub_command(explain.explain))


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()
