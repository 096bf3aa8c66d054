"""One hub, one set of installed packages, one registration of each real server for all flow tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import packages as installer
from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub

# The package's own command is a script of the environment; this is what it runs.
SQLITE = "import sys; from mcp_server_sqlite import main; main()"
# A first run installs packages, which the limit of one test does not allow for.
FIRST_RUN_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "packages" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(FIRST_RUN_S))


@pytest.fixture(scope="session")
def packages() -> Packages:
    """Node, the real servers and the official clients."""
    return installer.install()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub that the tests share; what they make in it has names of their own."""
    with RunningHub(tmp_path_factory.mktemp("hub") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def real_servers(hub: RunningHub, packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """The seven real servers, registered through the API, and the demo server."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "files").mkdir()
    (folder / "files" / "hello.txt").write_text("hello from a file\n")
    subprocess.run(["git", "init", "-q", str(folder / "repository")], check=True)
    memory_file: Path = folder / "memory.json"
    return {
        "memory": hub.register("memory", packages.node, [packages.memory_script], {"MEMORY_FILE_PATH": str(memory_file)}),
        "everything": hub.register("everything", packages.node, [packages.everything_script, "stdio"]),
        "filesystem": hub.register("filesystem", packages.node, [packages.filesystem_script, str(folder / "files")]),
        "thinking": hub.register("thinking", packages.node, [packages.thinking_script]),
        "time": hub.register("time", packages.python, ["-m", "mcp_server_time"]),
        "git": hub.register("git", packages.python, ["-m", "mcp_server_git", "--repository", str(folder / "repository")]),
        "sqlite": hub.register("sqlite", packages.old_python, ["-c", SQLITE, "--db-path", str(folder / "test.db")]),
        "demo": hub.demo(),
    }
