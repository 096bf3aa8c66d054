"""Fixtures around `tests.serving`: one hub a module and database, because a hub is dearer than what most tests do with it."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving import Served, serving


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def hub_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def both_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty, migrated database that lasts for a module."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("both") / "plughub.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="module")
def lite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, embedded only: for tests in which the database does not matter."""
    path = tmp_path_factory.mktemp("lite") / "plughub.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
async def served(both_url: str, hub_dir: Path, anyio_backend: str) -> AsyncIterator[Served]:
    """A running hub, once on each database."""
    async with serving(both_url, hub_dir) as found:
        yield found


@pytest.fixture(scope="module")
async def lite(lite_url: str, hub_dir: Path, anyio_backend: str) -> AsyncIterator[Served]:
    """A running hub on the embedded database."""
    async with serving(lite_url, hub_dir) as found:
        yield found
