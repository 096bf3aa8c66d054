"""Running requests that tell something before they end, and whose streams end with the key, session or token they were opened with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import (
    GRANT_REVOKED,
    KEY_REVOKED,
    KEY_SUSPENDED,
    KEY_UPDATED,
    MEMBER_REMOVED,
    SESSION_ENDED,
    SESSION_SWITCHED,
)
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, KeyExpired, KeyRevoked, KeySuspended, SessionEnded, TokenRefused, Unavailable

# Progress is advice: a client that reads more slowly than the server reports misses some of it.
MAX_WAITING = 256
MAX_WAITING_BYTES = 1024 * 1024
# Credentials that ended lately: a request that was admitted before may open its stream after.
_MAX_ENDED = 10_000
_CHANGED = "The key was changed: open the stream again"
# What a key may, and from where: a stream that follows something was opened with what they were.
_RIGHTS = frozenset({"allowed_ips", "scopes", "servers"})
# What ends a credential for good, or until somebody says otherwise, and what its streams are told.
_ENDS: Mapping[str, Callable[[], HubError]] = {
    KEY_REVOKED: KeyRevoked,
    KEY_SUSPENDED: lambda: KeySuspended(reason="key_suspended"),
    SESSION_ENDED: SessionEnded,
    GRANT_REVOKED: TokenRefused,
}


class Feed:
    """Frames on their way from a running request to its client; bounded. `stopped` is why it must end now.

    A `resting` feed has no request that runs to an end of its own: it follows something until somebody ends it. `generation` is that of
    the secret it was opened with. `on_stop` is called when it must end, for whoever may be waiting for its client.
    """

    __slots__ = (
        "_open",
        "dropped",
        "ended",
        "frames",
        "generation",
        "key_id",
        "on_stop",
        "person_id",
        "resting",
        "stopped",
        "timer",
        "waiting_bytes",
        "wake",
    )

    def __init__(self, key_id: str, open_feeds: "OpenStreams", *, resting: bool, person_id: str | None = None) -> None:
        self.key_id = key_id
        self.person_id = person_id  # of a token
        self.resting = resting
        self.generation = 0
        self.on_stop: Callable[[], None] | None = None
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
        if self.on_stop is not None:
            self.on_stop()

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
        person_id = caller.user_id if caller.credential == "token" else None
        feed = Feed(caller.key_id, self, resting=resting, person_id=person_id)
        feed.generation = caller.generation
        self._feeds.setdefault(caller.key_id, set()).add(feed)
        if (how := self._ended.get(caller.key_id)) is not None:
            feed.stop(_ENDS[how]())
        elif caller.until is not None:
            self._end_at(feed, caller.until, _over(caller))
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
        """End the streams of keys, of secrets of keys, of sessions and of grants that may no longer call."""
        for event in events:
            if event.name == MEMBER_REMOVED:
                self._stop_tokens_of(event.data["user_id"])
            elif event.key_id is not None and event.name.startswith(("key.", "session.", "grant.")):
                self._on_credential(event, event.key_id)

    def _on_credential(self, event: Event, key_id: str) -> None:
        feeds = tuple(self._feeds.get(key_id, ()))
        if event.name in _ENDS:
            self._end(key_id, feeds, event.name)
        elif event.name == SESSION_SWITCHED:  # the session goes on, for another organisation
            for feed in feeds:
                feed.stop(SessionEnded())
        elif event.name == KEY_UPDATED:
            self._on_updated(key_id, feeds, event.data)
        if (earlier := event.data.get("earlier_secrets")) is not None:
            for feed in feeds:
                if feed.generation < earlier["before"]:
                    self._end_at(feed, earlier["until"], KeyRevoked())

    def _end(self, key_id: str, feeds: Sequence[Feed], how: str) -> None:
        while len(self._ended) >= _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[key_id] = how
        for feed in feeds:
            feed.stop(_ENDS[how]())

    def _stop_tokens_of(self, person_id: str) -> None:
        """Somebody has left an organisation, and what they allowed there went along; clients that they have elsewhere come back."""
        for feed in [feed for feeds in self._feeds.values() for feed in feeds if feed.person_id == person_id]:
            feed.stop(TokenRefused())

    def _on_updated(self, key_id: str, feeds: Sequence[Feed], data: Any) -> None:
        changed = data.get("changed", ())
        if "status" in changed:
            self._ended.pop(key_id, None)
        for feed in feeds:
            if data.get("expires_at") is not None:
                self._end_at(feed, data["expires_at"], KeyExpired())
            if feed.resting and not _RIGHTS.isdisjoint(changed):  # whoever may still come comes again
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


def _over(caller: Caller) -> HubError:
    """What the streams of a credential are told that ends by itself."""
    if caller.credential == "token":
        return TokenRefused()
    return KeyRevoked() if caller.superseded else KeyExpired()
