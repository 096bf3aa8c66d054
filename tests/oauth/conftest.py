import shutil
from pathlib import Path

import pytest

from tests.serving_fixtures import anyio_backend, both_url, hub_dir, lite, lite_url, served

__all__ = ["anyio_backend", "both_url", "fresh_url", "hub_dir", "lite", "lite_url", "served"]


@pytest.fixture
def fresh_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of an empty database for a hub of a test's own."""
    path = tmp_path / "plughub.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"
