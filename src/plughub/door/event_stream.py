"""One client's stream of events: catches up from where it was, then is handed what comes; ends with its key, its patience or the hub.

What is new goes to the connection at once, from the reader's own turn of the loop. A client that does not take it has a queue, bounded
like everything that waits: over the bound it is cut, resumes with its last id, and reads what it missed at its own pace.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from plughub.cluster.limits import Header
from plughub.door.dispatch import STOPPING
from plughub.door.request import ClientGone, Request
from plughub.events.frames import Framed, StreamId, position_frame, told_frame
from plughub.events.live import AT_ONCE, Form, Reader
from plughub.gateway.streams import Feed
from plughub.kit.errors import HubError

MAX_WAITING = 256
MAX_WAITING_BYTES = 1024 * 1024
HEARTBEAT_S = 15.0
# A client that takes nothing for so long is gone, or as good as gone. One whose stream must end has less.
STUCK_S = 10.0
LAST_S = 1.0
_RETRY_MS = 2000
_SOON_MS = (1000, 5000)
_OPENING: list[Header] = [(b"referrer-policy", b"no-referrer")]


class EventStream:
    """A `events.live.Client`. `run` it once; `feed` is ended by whoever ends streams, and closed by whoever opened it."""

    def __init__(
        self, request: Request, feed: Feed, reader: Reader, form: Form, last_id: StreamId | None, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._request = request
        self._direct = request.direct
        self._feed = feed
        self._reader = reader
        self._form = form
        self._last_id = last_id
        self._heartbeat_s = heartbeat_s
        self._resumes = last_id is not None and last_id.epoch == reader.epoch and last_id.seq <= reader.seq
        self.position = last_id.seq if last_id is not None and self._resumes else reader.seq
        self._told = self.position  # the number that the client knows it has come to
        self._gap_until = 0
        self._queue: deque[tuple[bytes, int]] = deque()
        self._events = self._bytes = 0
        self._writing: asyncio.Timeout | None = None
        self._busy = True  # there are frames to be sent before those that are delivered
        self._slow = False
        feed.on_stop = self._hurry

    def deliver(self, frames: bytes, events: int) -> None:
        """Send them now, or when the client has taken what is before them. See `events.live.Client`."""
        if self._over:
            return
        if not self._busy and self._direct is not None and self._direct.write_now(frames):
            return
        self._queue.append((frames, events))
        self._events += events
        self._bytes += len(frames)
        if len(self._queue) > 1 and (self._events > MAX_WAITING or self._bytes > MAX_WAITING_BYTES):
            self._slow = True
            self._queue.clear()
            self._hurry()
        self._busy = True
        self._feed.wake.set()

    async def run(self) -> HubError | None:
        """Until the client leaves, or the stream is ended: then why. Raises ClientGone when a client had to be cut off."""
        loop = asyncio.get_running_loop()
        leaving = loop.create_task(self._request.disconnected())
        leaving.add_done_callback(lambda _: self._feed.wake.set())
        try:
            await self._request.start_stream(_OPENING)
            await self._open()
            await self._catch_up(leaving)
            while not (leaving.done() or self._over):
                await self._send_waiting()
                await self._rest()
            if not leaving.done():
                await self._close()
        finally:
            self._reader.detach(self, self._form)
            leaving.cancel()
        return self._feed.stopped

    @property
    def _over(self) -> bool:
        return self._slow or self._feed.stopped is not None

    async def _open(self) -> None:
        """A bare id before anything else: whoever is cut off now resumes from here."""
        epoch = self._reader.epoch
        frames = b"retry: %d\n" % _RETRY_MS
        if self._last_id is None or not self._resumes:
            frames += position_frame(epoch, self.position)
        else:
            mark = b".m" if self._last_id.whole else b""
            frames += b"id: %b-%d%b\n\n" % (epoch.encode(), self.position, mark)
        if self._last_id is not None and not self._resumes:
            # The numbering is another one (a restored backup), or was never so far: what was between is not known.
            missed = {"missed_from": None, "missed_to": f"{epoch}-{self.position}", "reason": "unknown_position"}
            frames += told_frame("stream.gap", missed)
        await self._send(frames)
        if self._resumes and self._last_id is not None and not self._last_id.whole and self._form.mirror:
            await self._send_second_half(self.position)

    async def _send_second_half(self, seq: int) -> None:
        """The client was cut off between the two frames of an event."""
        events = (await self._reader.after(seq - 1)).events
        if events and events[0].event.seq == seq and self._form.selection.lets(events[0].event):
            await self._send(events[0].unnamed)

    async def _catch_up(self, leaving: asyncio.Future[None]) -> None:
        """Send what is in the log already. At its end the reader goes on, with nothing in between."""
        while self.position < self._reader.seq and not (leaving.done() or self._over):
            events, until, pruned = await self._reader.after(self.position)
            if self.position < pruned and self._gap_until < pruned:
                epoch = self._reader.epoch
                missed = {"missed_from": f"{epoch}-{self.position}", "missed_to": f"{epoch}-{pruned}", "reason": "retention"}
                await self._send(told_frame("stream.gap", missed))
                self._gap_until = pruned
            await self._send_events(events)
            self.position = max(until, self.position)
        self._busy = False
        self._reader.attach(self, self._form)

    async def _send_events(self, events: Sequence[Framed]) -> None:
        heard = [framed for framed in events if self._form.selection.lets(framed.event)]
        for begin in range(0, len(heard), AT_ONCE):
            await self._send(b"".join([framed.frames(mirror=self._form.mirror) for framed in heard[begin : begin + AT_ONCE]]))

    async def _send_waiting(self) -> None:
        while self._queue:
            frames, events = self._queue.popleft()
            self._events -= events
            self._bytes -= len(frames)
            await self._send(frames)
        self._busy = False

    async def _rest(self) -> None:
        """Until there is something to do, or it is time for a sign of life: with the number that the client has come to, so that it
        resumes from near the end even when little of the log is for it."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._feed.wake.wait()
        except TimeoutError:
            self.position = self._reader.seq
            frame = b": keep-alive\n\n"
            if self.position != self._told:
                frame += position_frame(self._reader.epoch, self.position)
                self._told = self.position
            self._busy = True
            await self._send(frame)
        self._feed.wake.clear()

    async def _send(self, frames: bytes) -> None:
        if self._direct is not None and self._direct.write_now(frames):
            return
        try:
            async with asyncio.timeout(LAST_S if self._over else STUCK_S) as self._writing:
                await self._request.write(frames)
        except TimeoutError:
            if self._direct is not None:
                self._direct.abort()
            raise ClientGone from None
        finally:
            self._writing = None

    def _hurry(self) -> None:
        """The stream must end: a client that takes nothing is not waited for."""
        if self._writing is not None:
            with suppress(RuntimeError):  # it has just run out
                self._writing.reschedule(asyncio.get_running_loop().time() + LAST_S)

    async def _close(self) -> None:
        """Say why, and that all is said. What waits is not sent any more: it is in the log for whoever may come back."""
        error = self._feed.stopped
        if error is None:
            frames = told_frame("stream.closed", {"reason": "slow", "message": "Events came faster than they were read: resume"})
        else:
            stopping = error.text == STOPPING
            frames = told_frame("stream.closed", {"reason": "stopping" if stopping else error.code.lower(), "message": error.text})
            if stopping:  # not everybody at once
                frames = b"retry: %d\n%b" % (random.randint(*_SOON_MS), frames)
        await self._send(frames)
        await self._request.end_stream()
