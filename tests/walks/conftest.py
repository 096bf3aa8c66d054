import pytest
import structlog

from tests.serving_fixtures import anyio_backend, both_url, hub_dir, lite, lite_url, served

__all__ = ["anyio_backend", "both_url", "hub_dir", "lite", "lite_url", "served"]


@pytest.fixture(autouse=True)
def without_a_log(logging_as_it_comes: None) -> None:
    """Walks make many faults, and the trace of each takes seconds to be written with all its values."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
