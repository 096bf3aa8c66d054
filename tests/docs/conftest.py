"""One hub for each page: what a page makes is what its reader would find."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import FIRST_RUN_S, packages
from tests.flows.packages import Packages
from tests.flows.running_hub import RunningHub

__all__ = ["packages"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "packages" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(FIRST_RUN_S))


@pytest.fixture
def hub(tmp_path: Path, packages: Packages) -> Iterator[RunningHub]:
    """A fresh hub, on a machine where `npx` starts the memory server that the tests have installed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    npx = tools / "npx"
    npx.write_text(f'#!/bin/sh\nexec "{packages.node}" "{packages.memory_script}"\n')
    npx.chmod(0o755)
    # The page about webhooks receives them on this machine.
    settings = {"PATH": os.pathsep.join([str(tools), os.environ["PATH"]]), "PLUGHUB_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/8"}
    with RunningHub(tmp_path / "data", settings=settings) as running:
        yield running
