"""One hub, one set of installed packages, one registration of each real server for all flow tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import packages as installer
from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub

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
    """The three real servers, registered through the API, and the demo server."""
    memory_file: Path = tmp_path_factory.mktemp("memory") / "memory.json"
    return {
        "memory": hub.register("memory", packages.node, [packages.memory_script], {"MEMORY_FILE_PATH": str(memory_file)}),
        "everything": hub.register("everything", packages.node, [packages.everything_script, "stdio"]),
        "time": hub.register("time", packages.time_python, ["-m", "mcp_server_time"]),
        "demo": hub.demo(),
    }
