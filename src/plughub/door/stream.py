"""Answers that take time: cancelled when the client leaves, streamed when something is worth telling before the end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from plughub.door.request import ClientGone, Request
from plughub.gateway.streams import Feed

T = TypeVar("T")
_WATCH_AFTER_S = 1.0
_KEEP_ALIVE_S = 15.0


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`; when the client leaves meanwhile, cancel it and raise ClientGone.

    Watching starts after a second: most calls are over by then, and a watcher costs a task.
    """
    departure = _Departure(request)
    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, departure.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if departure.gone:
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        departure.end()


class _Departure:
    """Watches for the client's leaving on behalf of the task that made it."""

    __slots__ = ("_request", "_task", "_watcher", "gone")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def end(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._task = self._watcher = None

    async def _watch(self) -> None:
        await self._request.disconnected()
        self.gone = True
        if self._task is not None:
            self._task.cancel()


async def streamed(request: Request, feed: Feed, work: Coroutine[Any, Any, T], *, cancel_on_disconnect: bool) -> T:
    """Run `work` while sending what it feeds; the stream starts with the first frame, so a quiet answer can still be plain JSON.

    Closes the feed. Raises what `work` raises, ClientGone when the client left and that means cancel, and why the feed was stopped.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    leaving = loop.create_task(request.disconnected())
    task.add_done_callback(lambda _: feed.wake.set())
    leaving.add_done_callback(lambda _: feed.wake.set())
    timer = loop.call_later(_KEEP_ALIVE_S, feed.wake.set)
    try:
        while True:
            await feed.wake.wait()
            feed.wake.clear()
            if feed.stopped is not None:
                raise feed.stopped
            if leaving.done() and cancel_on_disconnect and not task.done():
                raise ClientGone
            if not leaving.done():
                await _send_all(request, feed, idle=not task.done())
            if task.done():
                return task.result()
            timer.cancel()
            timer = loop.call_later(_KEEP_ALIVE_S, feed.wake.set)
    finally:
        feed.close()
        timer.cancel()
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: when the client has left, nobody is there to hear it


async def followed(request: Request, feed: Feed, lost: Callable[[int], bytes]) -> None:
    """Send what is fed until the client leaves or the feed ends; `lost` makes the frame that says how many frames were dropped.

    Closes the feed; the stream must have begun. Raises why the feed was stopped.
    """
    loop = asyncio.get_running_loop()
    leaving = loop.create_task(request.disconnected())
    leaving.add_done_callback(lambda _: feed.wake.set())
    timer = loop.call_later(_KEEP_ALIVE_S, feed.wake.set)
    try:
        while not leaving.done():
            frames, dropped = feed.take(), feed.dropped
            feed.dropped = 0
            # What was dropped came after what was kept.
            await request.write((frames + lost(dropped) if dropped else frames) or b": keep-alive\n\n")
            timer.cancel()
            timer = loop.call_later(_KEEP_ALIVE_S, feed.wake.set)
            if feed.stopped is not None:
                raise feed.stopped
            if feed.ended and not feed.frames:
                return
            await feed.wake.wait()
            feed.wake.clear()
    finally:
        feed.close()
        timer.cancel()
        leaving.cancel()


async def _send_all(request: Request, feed: Feed, *, idle: bool) -> None:
    frames = feed.take()
    if frames and not request.started:
        await request.start_stream()
    if frames:
        await request.write(frames)
    elif idle and request.started:
        await request.write(b": keep-alive\n\n")
