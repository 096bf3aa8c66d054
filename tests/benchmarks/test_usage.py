"""The benchmark of usage runs, and what it measures is far from its target."""

from pathlib import Path

import pytest

from benchmarks.usage import EVERY_S, MOST_SHARE, share_of_a_core
from plughub.settings import Settings


@pytest.mark.anyio
@pytest.mark.requirement("usage.cheap")
async def test_counting_500_calls_a_second_takes_a_small_share_of_a_core(tmp_path: Path) -> None:
    share = await share_of_a_core(f"sqlite:///{tmp_path}/plughub.db", Settings(data_dir=tmp_path), 500, EVERY_S)
    assert 0 < share < 3 * MOST_SHARE
