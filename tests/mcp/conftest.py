from collections.abc import AsyncIterator

import pytest

from tests.serving import FakeMcp, Json, Served, upstream
from tests.serving_fixtures import anyio_backend, both_url, hub_dir, lite, lite_url, served

__all__ = ["anyio_backend", "both_url", "fake", "hub_dir", "lite", "lite_url", "served"]


@pytest.fixture(params=["legacy", "modern"])
async def fake(request: pytest.FixtureRequest, lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    """An upstream of one era."""
    behind = FakeMcp(era=request.param)
    async with upstream(lite, behind) as made:
        yield behind, made
