"""`plughub serve`: listens, says how to use the hub, and stops in order."""

import asyncio
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

import structlog
import uvicorn
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from plughub import __version__
from plughub.app import Application, create_app
from plughub.data_dir import DataDir, load_secrets
from plughub.db.engine import DATABASE_FILE, Database, database_url
from plughub.db.migrate import HEAD, SchemaUnknown, migrate, revision
from plughub.door.dispatch import STOPPING
from plughub.first_start import FirstStart, SecretsLost
from plughub.http_protocol import protocol_of
from plughub.kit.clock import SystemClock
from plughub.kit.errors import Invalid, Unavailable
from plughub.settings import Settings

BACKLOG = 2048
# What the kernel takes for a client that does not read; by itself it takes some 3 MB before anybody learns how slow the client is.
UNSENT_BYTES = 128 * 1024
_KEEP_ALIVE_S = 75
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_FREE_PORT_TRIES = 20


class CannotServe(Exception):
    """The hub cannot start, in words for the user."""


class Server(uvicorn.Server):
    """uvicorn, saying how to use the hub once it listens."""

    def __init__(self, config: uvicorn.Config, application: Application, settings: Settings, out: TextIO) -> None:
        super().__init__(config)
        self._application = application
        self._settings = settings
        self._out = out

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print. What the start raises comes out here, where uvicorn's lifespan would write a trace and go on."""
        await self._application.start()
        try:
            await super().startup(sockets)
        except BaseException:
            await self._application.stop()
            raise
        if self.started and sockets and self._application.first is not None:
            url = base_url(self._settings, sockets[0].getsockname()[1])
            hand_over(self._application.first, url, self._settings, self._out)
            settle_memory()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop. Streams that rest end at once, others that are still open after the grace just before uvicorn cancels what still runs;
        each with a frame that says why."""
        self._application.hub.streams.stop_all(Unavailable(STOPPING), resting_only=True)
        ending = asyncio.get_running_loop().call_later(
            self.config.timeout_graceful_shutdown or 0, self._application.hub.streams.stop_all, Unavailable(STOPPING)
        )
        await super().shutdown(sockets)
        ending.cancel()


def serve(settings: Settings, out: TextIO = sys.stdout) -> int:
    """Run until SIGINT or SIGTERM. Gives the exit code. Raises CannotServe, DataDirInUse, OSError, ValueError."""
    configure_logging(settings.log_level)
    if not settings.insecure_http and not settings.trusted_proxies and not _is_loopback(settings.host):
        raise CannotServe(
            f"{settings.host} is not a loopback address and there is no TLS: put a TLS proxy in front and name it in"
            f" PLUGHUB_TRUSTED_PROXIES, or add --insecure-http"
        )
    # Before anything is made: what lies in an open data directory is private nevertheless.
    os.umask(0o077)
    database = database_name(settings)
    secrets_file = settings.secrets_file or settings.data_dir / "secrets.json"
    if settings.operator_key_file is not None and not secrets_file.exists():
        check_writable(settings.operator_key_file)
    data_dir = DataDir(settings.data_dir)
    data_dir.open()
    try:
        secrets = load_secrets(secrets_file)
        sockets = listen(settings.host, settings.port)
        if not settings.database_url and not (settings.data_dir / DATABASE_FILE).exists():
            upgrade_apart(settings)
        application = create_app(settings, secrets)
        config = uvicorn.Config(
            application.asgi,
            loop="uvloop",
            http=protocol_of(settings.request_timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        )
        server = Server(config, application, settings, out)
        # uvicorn ends in order, then raises the signal again for whoever had a handler before: nobody had, and nothing more happens.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server.run(sockets)
        return 0 if server.started else 1
    except SecretsLost as error:
        raise CannotServe(
            f"{secrets_file} does not hold the secrets that this database was made with ({error}). A file that was lost is made anew: "
            f"restore the old one from a backup"
        ) from error
    except Invalid as error:
        raise CannotServe(f"PLUGHUB_OPERATOR_EMAIL and PLUGHUB_OPERATOR_PASSWORD make no account: {error.text}") from error
    except SchemaUnknown as error:
        raise CannotServe(str(error)) from error
    except SQLAlchemyError as error:
        raise CannotServe(f"The database {database} cannot be used: {database_reason(error, settings)}") from error
    finally:
        data_dir.close()


def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to the newest schema and go. Gives the revision before (None: empty) and after.

    Raises CannotServe, DataDirInUse, OSError.
    """
    os.umask(0o077)
    name = database_name(settings)
    data_dir = DataDir(settings.data_dir)
    data_dir.open()
    try:
        return asyncio.run(_upgrade(settings))
    except SchemaUnknown as error:
        raise CannotServe(str(error)) from error
    except SQLAlchemyError as error:
        raise CannotServe(f"The database {name} cannot be used: {database_reason(error, settings)}") from error
    finally:
        data_dir.close()


async def _upgrade(settings: Settings) -> tuple[str | None, str]:
    database = Database(database_url(settings), SystemClock())
    try:
        before = await revision(database)
        await migrate(database)
        return before, HEAD
    finally:
        await database.aclose()


def upgrade_apart(settings: Settings) -> None:
    """Make a new database in a process of its own: Alembic and what it leaves behind would stay in this one's memory, 10 MB for good.

    When that fails it is tried again where errors can be told, in `Application.start`.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(_upgrade(settings))
            code = 0
        finally:
            os._exit(code)
    os.waitpid(child, 0)


def settle_memory() -> None:
    """What was loaded stays for good: the collector need not look at it again, and may look less often at the rest.

    A call makes some fifty objects and no cycles; with the default thresholds the collector ran every fifteen calls.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def database_name(settings: Settings) -> str:
    """The database as it may be told: without user and password. Raises CannotServe when the setting is no address of one."""
    if not settings.database_url:
        return str(settings.data_dir / DATABASE_FILE)
    try:
        url = make_url(settings.database_url)
        place = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}" if url.host or not url.database else url.database
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername.partition("+")[0] not in ("sqlite", "postgresql", "postgres"):
        # Not repeated, nor what the parser says of it: it may hold a password.
        raise CannotServe("PLUGHUB_DATABASE_URL is no address of a database: postgresql://user:password@host:5432/name")
    return place


def database_reason(error: SQLAlchemyError, settings: Settings) -> str:
    """What the driver says, in one line, without anything secret of the address."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    if settings.database_url:
        url = make_url(settings.database_url)
        for secret in (url.password, *url.normalized_query.get("password", ())):
            text = text.replace(str(secret), "***") if secret else text
    return text


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets; `localhost` means both loopback addresses, on one port. Raises CannotServe.

    A machine without IPv6 serves on IPv4 alone. But when somebody else has the port on ::1, a client that is told `localhost` might
    send its key there.
    """
    if host != "localhost":
        return [_bound(host, port)]
    for _ in range(_FREE_PORT_TRIES):
        sockets = [_bound("127.0.0.1", port)]
        try:
            sockets.append(_bound("::1", sockets[0].getsockname()[1]))
        except CannotServe as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                return sockets
            sockets[0].close()
            if port == 0:
                continue
            raise
        return sockets
    raise CannotServe("No port is free on both 127.0.0.1 and ::1")


def _bound(address: str, port: int) -> socket.socket:
    bound = None
    try:
        bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # every connection has it from here
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        bound.bind((address, port))
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        if isinstance(error, UnicodeError | socket.gaierror):
            reason = "no such address"
        else:
            reason = os.strerror(error.errno or 0)
        raise CannotServe(f"Cannot listen on {address} port {port}: {reason}") from error
    bound.setblocking(False)
    return bound


def base_url(settings: Settings, port: int) -> str:
    """The address to tell users."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def hand_over(first: FirstStart, url: str, settings: Settings, out: TextIO) -> None:
    """Say where the hub is, and on the first start give its key: to the file that was named, else to the screen."""
    key_file = settings.operator_key_file if first.operator_key is not None else None
    if first.operator_key is not None and key_file is not None:
        try:
            write_private(key_file, first.operator_key + "\n")
        except OSError as error:
            # It is stored nowhere else and not made again.
            print(f"\nThe operator's key could not be written to {key_file}: {error.strerror}", file=out)
            key_file = None
    print("\n".join(banner(first, url, key_file)), file=out, flush=True)


def banner(first: FirstStart, url: str, key_file: Path | None) -> list[str]:
    """What the screen says."""
    lines = ["", f"Plughub {__version__} is ready at {url}", ""]
    if first.operator_key is None:
        shown, bearer = "<your API key>", "<your API key>"
        lines += ["The operator's key was shown at the first start.", ""]
    elif key_file is not None:
        shown, bearer = "<the key in the file>", f"$(cat {key_file})"
        lines += [f"Operator key: in {key_file} (readable by you alone)", ""]
    else:
        shown = bearer = first.operator_key
        lines += [f"Operator key, shown this once: {first.operator_key}", ""]
    if first.setup_code is not None:
        lines += [f"Your own account: open {url}/setup and give this code, shown this once: {first.setup_code}", ""]
    if first.demo_id is not None:
        lines += [
            "Call a tool:",
            "",
            f"  curl -s {url}/api/servers/{first.demo_id}/tools/get_weather/execute \\",
            f'    -H "Authorization: Bearer {bearer}" -H "Content-Type: application/json" \\',
            """    -d '{"parameters":{"location":"San Francisco, CA"}}'""",
            "",
        ]
    snippet = {"mcpServers": {"plughub": {"type": "http", "url": f"{url}/mcp", "headers": {"Authorization": f"Bearer {shown}"}}}}
    lines += ["Connect an MCP client (mcp.json):", "", *("  " + line for line in json.dumps(snippet, indent=2).splitlines()), ""]
    lines += ["STDIO servers run as this user, without a sandbox: register only commands that you trust.", "Stop with Ctrl+C.", ""]
    return lines


def check_writable(path: Path) -> None:
    """Raise CannotServe when the operator's key could not be written there; leaves no file behind."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not there:
            path.unlink()
    except OSError as error:
        raise CannotServe(f"The operator's key cannot be written to {path}: {error.strerror}") from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def configure_logging(level: str) -> None:
    """One JSON object a line on stderr."""
    number = logging.getLevelName(level.upper())
    logging.basicConfig(level=max(number, logging.WARNING), format="%(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
