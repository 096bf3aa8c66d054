"""Running requests that tell something before they end, and whose streams end with the key or session they were opened with."""

import asyncio
from collections.abc import Sequence
from typing import Any

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import KEY_REVOKED, KEY_SUSPENDED, KEY_UPDATED, SESSION_ENDED, SESSION_SWITCHED
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, KeyExpired, KeyRevoked, KeySuspended, SessionEnded, Unavailable

# Progress is advice: a client that reads more slowly than the server reports misses some of it.
MAX_WAITING = 256
MAX_WAITING_BYTES = 1024 * 1024
# Credentials that ended lately: a request that was admitted before may open its stream after.
_MAX_ENDED = 10_000
_CHANGED = "The key was changed: open the stream again"


class Feed:
    """Frames on their way from a running request to its client; bounded. `stopped` is why it must end now.

    A `resting` feed has no request that runs to an end of its own: it follows something until somebody ends it. `generation` is that of
    the secret it was opened with.
    """

    __slots__ = ("_open", "dropped", "ended", "frames", "generation", "key_id", "resting", "stopped", "timer", "waiting_bytes", "wake")

    def __init__(self, key_id: str, open_feeds: "OpenStreams", *, resting: bool) -> None:
        self.key_id = key_id
        self.resting = resting
        self.generation = 0
        self.timer: asyncio.TimerHandle | None = None
        self.ended = False
        self.frames: list[bytes] = []
        self.wake = asyncio.Event()
        self.dropped = 0
        self.waiting_bytes = 0
        self.stopped: HubError | None = None
        self._open = open_feeds

    def push(self, frame: bytes, *, needed: bool = False) -> None:
        """Queue a frame, or drop it when the client reads too slowly; not one that is `needed`: these are bounded elsewhere."""
        if not needed and (len(self.frames) >= MAX_WAITING or self.waiting_bytes + len(frame) > MAX_WAITING_BYTES):
            self.dropped += 1
            return
        self.waiting_bytes += len(frame)
        self.frames.append(frame)
        self.wake.set()

    def take(self) -> bytes:
        """Everything that waits."""
        frames, self.frames, self.waiting_bytes = self.frames, [], 0
        return b"".join(frames)

    def end(self) -> None:
        """Nothing follows: the stream is complete when what waits is sent."""
        self.ended = True
        self.wake.set()

    def stop(self, error: HubError) -> None:
        """End the stream with `error`."""
        self.stopped = error
        self.wake.set()

    def close(self) -> None:
        """The request is over."""
        self._open.discard(self)


class OpenStreams:
    """Every open stream by its key. As many as there are running requests and places for streams, so bounded by the limits; a
    listener of the database. A stream whose key or secret ends by itself has a timer, which goes with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._feeds: dict[str, set[Feed]] = {}
        self._ended: dict[str, str] = {}

    def open(self, caller: Caller, *, resting: bool = False) -> Feed:
        """A new feed; whoever opens it closes it."""
        feed = Feed(caller.key_id, self, resting=resting)
        feed.generation = caller.generation
        self._feeds.setdefault(caller.key_id, set()).add(feed)
        if (how := self._ended.get(caller.key_id)) is not None:
            feed.stop(_error_of(how))
        elif caller.until is not None:
            self._end_at(feed, caller.until, KeyRevoked() if caller.superseded else KeyExpired())
        return feed

    def discard(self, feed: Feed) -> None:
        """Forget a feed."""
        if feed.timer is not None:
            feed.timer.cancel()
            feed.timer = None
        feeds = self._feeds.get(feed.key_id)
        if feeds is not None:
            feeds.discard(feed)
            if not feeds:
                del self._feeds[feed.key_id]

    def stop_all(self, error: HubError, *, resting_only: bool = False) -> None:
        """End every stream with `error`, or only those that nothing else would end."""
        for feeds in self._feeds.values():
            for feed in feeds:
                if feed.resting or not resting_only:
                    feed.stop(error)

    async def follow(self, events: Sequence[Event]) -> None:
        """End the streams of keys, of secrets of keys, and of sessions that may no longer call."""
        for event in events:
            if event.key_id is None or not event.name.startswith(("key.", "session.")):
                continue
            feeds = tuple(self._feeds.get(event.key_id, ()))
            if event.name in (KEY_REVOKED, KEY_SUSPENDED, SESSION_ENDED):
                self._end(event.key_id, feeds, event.name)
            elif event.name == SESSION_SWITCHED:  # the session goes on, for another organisation
                for feed in feeds:
                    feed.stop(SessionEnded())
            elif event.name == KEY_UPDATED:
                self._on_updated(event.key_id, feeds, event.data)
            if (earlier := event.data.get("earlier_secrets")) is not None:
                for feed in feeds:
                    if feed.generation < earlier["before"]:
                        self._end_at(feed, earlier["until"], KeyRevoked())

    def _end(self, key_id: str, feeds: Sequence[Feed], how: str) -> None:
        while len(self._ended) >= _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[key_id] = how
        for feed in feeds:
            feed.stop(_error_of(how))

    def _on_updated(self, key_id: str, feeds: Sequence[Feed], data: Any) -> None:
        changed = data.get("changed", ())
        if "status" in changed:
            self._ended.pop(key_id, None)
        for feed in feeds:
            if data.get("expires_at") is not None:
                self._end_at(feed, data["expires_at"], KeyExpired())
            if feed.resting and "allowed_ips" in changed:  # whoever may still come comes again
                feed.stop(Unavailable(_CHANGED))

    def _end_at(self, feed: Feed, at: float, error: HubError) -> None:
        """End it at that time, unless it ends sooner."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at - self._clock.time())
        if feed.timer is not None:
            if feed.timer.when() <= when:
                return
            feed.timer.cancel()
        feed.timer = loop.call_at(when, feed.stop, error)


def _error_of(event_name: str) -> HubError:
    if event_name == SESSION_ENDED:
        return SessionEnded()
    return KeyRevoked() if event_name == KEY_REVOKED else KeySuspended(reason="key_suspended")
