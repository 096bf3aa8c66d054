"""Who writes next."""

import asyncio

import anyio
import pytest

from plughub.db.write_lock import WriteLock

pytestmark = pytest.mark.anyio


async def test_writers_follow_in_the_order_they_came_and_those_who_go_first_before_them() -> None:
    lock, order = WriteLock(), list[str]()

    async def write(name: str, *, first: bool = False) -> None:
        await lock.acquire(first=first)
        order.append(name)
        lock.release()

    await lock.acquire()
    async with anyio.create_task_group() as tasks:
        for name in ("a", "b"):
            tasks.start_soon(write, name)
        tasks.start_soon(lambda: write("turn", first=True))
        await anyio.lowlevel.checkpoint()
        lock.release()
    assert order == ["turn", "a", "b"]
    assert not lock.locked()


async def test_a_writer_that_is_cut_off_while_it_waits_hands_it_on() -> None:
    lock = WriteLock()
    await lock.acquire()
    waiting = [asyncio.create_task(lock.acquire()) for _ in range(2)]
    await anyio.lowlevel.checkpoint()
    lock.release()  # to the first, which is cut off before it runs
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    with anyio.fail_after(1):
        await waiting[1]
    lock.release()
    assert not lock.locked()
