"""A refused body is gone with its refusal, without the help of the garbage collector."""

import gc
import tracemalloc

import pytest

from tests.serving import Served

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


@pytest.mark.requirement("json.refused-bodies-are-freed")
@pytest.mark.parametrize(
    "body",
    [b'{"name":"' + b"x" * MIB, b"[" * MIB, b'{"surprise":"' + b"x" * MIB + b'"}', b'{"name":' + b"9" * MIB + b"}"],
    ids=["cut", "deep", "unknown-field", "long-number"],
)
async def test_refused_bodies_leave_nothing_behind(lite: Served, body: bytes) -> None:
    await lite.call("POST", "/api/servers", body)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(8):
            assert (await lite.call("POST", "/api/servers", body)).status_code == 400
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < 2 * MIB
