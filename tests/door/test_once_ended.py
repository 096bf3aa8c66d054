"""A process that ends between the record of a keyed call and its answer: the call may have run, and is not run again."""

import asyncio
from pathlib import Path

import pytest

from tests.door.test_once import called, execute, reason, until_called
from tests.serving import FakeMcp, RawCall, Served, serving, text_result, upstream

pytestmark = pytest.mark.anyio
HEADERS = {"content-type": "application/json", "idempotency-key": "ended"}


@pytest.mark.requirement("http.idempotency-recorded-before")
async def test_a_call_whose_hub_has_ended_may_have_run(both_url: str, tmp_path: Path, anyio_backend: str) -> None:
    fake = FakeMcp(held={"echo": asyncio.Event()}, results={"echo": text_result("done")})
    async with serving(both_url, tmp_path / "one") as one, upstream(one, fake) as made:
        running = RawCall(one, "POST", execute(made), HEADERS).piece(b"{}").start()
        await until_called(fake)
        if one.database.kind == "postgresql":
            async with serving(both_url, tmp_path / "two", secrets=one.secrets, clock=one.clock) as two:
                beside = await two.call("POST", execute(made), b"{}", key=one.key, headers=HEADERS)
                assert (reason(beside), beside.headers["retry-after"]) == ("in_progress", "1")
        await ended(one, running)
        async with serving(both_url, tmp_path / "three", secrets=one.secrets, clock=one.clock) as three:
            after = await three.call("POST", execute(made), b"{}", key=one.key, headers=HEADERS)
            assert (reason(after), called(fake)) == ("may_have_run", 1)


async def ended(served: Served, running: asyncio.Task[object]) -> None:
    """The process is gone, and the others know it; what it was doing was cut off."""
    running.cancel()
    await running
    await served.app.hub.follower.aclose()
