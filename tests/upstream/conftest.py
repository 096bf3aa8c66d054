"""A pool with impatient settings, on both event loops."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plughub.settings import Settings
from plughub.upstream.pool import Pool
from tests.conftest import FakeClock
from tests.upstream.support import Recorder


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Transports differ between the two loops."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def hooks() -> Recorder:
    return Recorder()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, stop_grace_s=0.3, start_timeout_s=10, max_message_bytes=1024 * 1024, max_in_flight=8)


@pytest.fixture
async def pool(settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    yield opened
    await opened.aclose()
