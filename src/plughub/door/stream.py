"""Answers that take time: cancelled when the client leaves, streamed when there is something to tell before the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from plughub.door.request import ClientGone, Request
from plughub.gateway.streams import Feed, OpenStreams
from plughub.kit.errors import HubError

T = TypeVar("T")
_WATCH_AFTER_S = 1.0
_KEEP_ALIVE_S = 15.0


async def unless_gone(request: Request, work: Awaitable[T], after_s: float = _WATCH_AFTER_S) -> T:
    """Await `work`; when the client leaves meanwhile, cancel it and raise ClientGone.

    Watching starts after a second, or `after_s`: most calls are over by then, and a watcher costs a task.
    """
    departure = _Departure(request)
    request.waits.add(departure, asyncio.get_running_loop().time() + after_s, _Departure.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if departure.gone:
            raise ClientGone from None
        raise
    finally:
        request.waits.discard(departure)
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


class Outlet:
    """What a running request tells its client before its answer, as an event stream.

    Nothing is made until the first frame, so that a quiet request costs nothing and can still be answered plainly. Belongs to the
    task of its request: whoever makes it calls `run` once, and `close` in the end. `owner` is the task that ends with the stream.
    """

    __slots__ = ("_closing", "_feed", "_pump", "_request", "_resting", "_streams", "owner")

    def __init__(self, request: Request, streams: OpenStreams) -> None:
        self._request = request
        self._streams = streams
        self._feed: Feed | None = None
        self._pump: asyncio.Task[None] | None = None
        self.owner: asyncio.Task[object] | None = None
        self._closing = False
        self._resting = False

    def rest(self) -> None:
        """The request runs to no end of its own: when the hub stops, nobody waits for it."""
        self._resting = True

    @property
    def behind(self) -> bool:
        """Whether frames were dropped because the client reads too slowly."""
        return self._feed is not None and self._feed.dropped > 0

    def push(self, frame: bytes, *, needed: bool = False) -> None:
        """Queue a frame; the first one begins the stream. A `needed` one is not dropped, however slowly the client reads."""
        if self._closing:
            return
        if self._feed is None:
            self._feed = self._streams.open(self._request.known_caller(), resting=self._resting)
            self._pump = asyncio.get_running_loop().create_task(self._send(self._feed))
        self._feed.push(frame, needed=needed)

    async def run(self, work: Awaitable[T], *, leaving_cancels: bool) -> T:
        """Await `work`. Raises what it raises, ClientGone when the client left and that cancels, and why the stream was stopped."""
        self.owner = asyncio.current_task()
        try:
            if not leaving_cancels:
                return await work
            return await unless_gone(self._request, work, 0.0 if self._resting else _WATCH_AFTER_S)
        except asyncio.CancelledError:
            if self.stopped is not None:
                raise self.stopped from None
            raise
        finally:
            self.owner = None

    @property
    def stopped(self) -> HubError | None:
        """Why the stream must end now."""
        return None if self._feed is None else self._feed.stopped

    def stop(self, error: HubError) -> None:
        """End a stream that has begun with `error`."""
        if self._feed is not None:
            self._feed.stop(error)

    @property
    def open(self) -> bool:
        """Whether a stream has begun, so that the answer must be its last frame."""
        return self._feed is not None

    async def end(self, frame: bytes) -> None:
        """Send what waits, then the last frame; begins the stream when nothing had."""
        if self._feed is None:
            await self._request.start_stream()
        else:
            await self._finish(self._feed)
        await self._request.write(frame)
        await self._request.end_stream()

    async def _finish(self, feed: Feed) -> None:
        self._closing = True
        feed.wake.set()
        if self._pump is not None:
            await asyncio.wait([self._pump])

    def close(self) -> None:
        """The request is over, whatever became of it."""
        self._closing = True
        if self._pump is not None:
            self._pump.cancel()
        if self._feed is not None:
            self._feed.close()

    async def _send(self, feed: Feed) -> None:
        await self._request.start_stream()
        while True:
            frames = feed.take()
            if frames:
                await self._request.write(frames)
            elif feed.stopped is not None:
                if self.owner is not None:
                    self.owner.cancel()
                return
            elif self._closing:
                return
            else:
                await self._rest(feed)

    async def _rest(self, feed: Feed) -> None:
        try:
            async with asyncio.timeout(_KEEP_ALIVE_S):
                await feed.wake.wait()
        except TimeoutError:
            await self._request.write(b": keep-alive\n\n")
        feed.wake.clear()


async def followed(
    request: Request, feed: Feed, lost: Callable[[int], bytes], write: Callable[[bytes], Awaitable[None]] | None = None
) -> None:
    """Send what is fed until the client leaves or the feed ends; `lost` makes the frame that says how many frames were dropped.

    Closes the feed; the stream must have begun. `write`: the request's own, unless others write to the stream too. Raises why the feed
    was stopped.
    """
    write = write or request.write
    loop = asyncio.get_running_loop()
    leaving = loop.create_task(request.disconnected())
    leaving.add_done_callback(lambda _: feed.wake.set())
    timer = loop.call_later(_KEEP_ALIVE_S, feed.wake.set)
    try:
        while not leaving.done():
            frames, dropped = feed.take(), feed.dropped
            feed.dropped = 0
            # What was dropped came after what was kept.
            await write((frames + lost(dropped) if dropped else frames) or b": keep-alive\n\n")
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
