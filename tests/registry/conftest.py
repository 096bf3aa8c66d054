from tests.serving_fixtures import anyio_backend, both_url, hub_dir, lite, lite_url, served

__all__ = ["anyio_backend", "both_url", "hub_dir", "lite", "lite_url", "served"]
