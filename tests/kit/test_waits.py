"""Waits behind one timer."""

import asyncio

import pytest

from plughub.kit.waits import Waits

pytestmark = pytest.mark.anyio


async def test_each_wait_ends_at_its_time_and_what_was_called_off_never() -> None:
    waits: Waits[str] = Waits()
    loop = asyncio.get_running_loop()
    began, over, done = loop.time(), list[tuple[str, float]](), asyncio.Event()

    def end(key: str) -> None:
        over.append((key, loop.time() - began))
        if key == "last":
            done.set()

    for key, after_s in (("last", 0.12), ("called off", 0.03), ("first", 0.02), ("second", 0.06)):
        waits.add(key, began + after_s, end)
    waits.discard("called off")
    waits.discard("unknown")
    assert len(waits) == 3
    async with asyncio.timeout(5):
        await done.wait()
    assert [key for key, _ in over] == ["first", "second", "last"]
    assert all(after_s <= at < after_s + 1 for (_, at), after_s in zip(over, (0.019, 0.059, 0.119), strict=True))
    assert len(waits) == 0


async def test_a_wait_may_be_put_off_and_begun_by_another() -> None:
    waits: Waits[int] = Waits()
    loop, over = asyncio.get_running_loop(), list[int]()
    done = asyncio.Event()

    def again(key: int) -> None:
        over.append(key)
        if key < 3:
            waits.add(key + 1, loop.time() + 0.005, again)
        else:
            done.set()

    waits.add(0, loop.time() + 0.005, again)
    waits.add(9, loop.time() + 0.005, over.append)
    waits.add(9, loop.time() + 3600, over.append)
    async with asyncio.timeout(5):
        await done.wait()
    assert over == [0, 1, 2, 3]
    waits.close()
    assert len(waits) == 0
