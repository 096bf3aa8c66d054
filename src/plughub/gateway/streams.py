"""Running requests that tell something before they end, and whose streams end with the key they were opened with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import GRANT_REVOKED, KEY_REVOKED, KEY_SUSPENDED, MEMBER_REMOVED, SESSION_ENDED, SESSION_SWITCHED
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, KeyRevoked, KeySuspended, SessionEnded, TokenRefused

# Progress is advice: a client that reads more slowly than the server reports misses some of it.
MAX_WAITING = 256
MAX_WAITING_BYTES = 1024 * 1024
_ENDS: Mapping[str, Callable[[], HubError]] = {
    KEY_REVOKED: KeyRevoked,
    KEY_SUSPENDED: lambda: KeySuspended(reason="key_suspended"),
    SESSION_ENDED: SessionEnded,
    SESSION_SWITCHED: SessionEnded,
    GRANT_REVOKED: TokenRefused,
}


class Feed:
    """Frames on their way from a running request to its client; bounded. `stopped` is why it must end now.

    A `resting` feed has no request that runs to an end of its own: it follows something until somebody ends it.
    """

    __slots__ = ("_open", "dropped", "ended", "frames", "key_id", "person_id", "resting", "stopped", "waiting_bytes", "wake")

    def __init__(self, key_id: str, open_feeds: "OpenStreams", *, resting: bool, person_id: str | None = None) -> None:
        self.key_id = key_id
        self.person_id = person_id  # of a token
        self.resting = resting
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
    listener of the database."""

    def __init__(self) -> None:
        self._feeds: dict[str, set[Feed]] = {}

    def open(self, caller: Caller, *, resting: bool = False) -> Feed:
        """A new feed; whoever opens it closes it."""
        person_id = caller.user_id if caller.credential == "token" else None
        feed = Feed(caller.key_id, self, resting=resting, person_id=person_id)
        self._feeds.setdefault(caller.key_id, set()).add(feed)
        return feed

    def discard(self, feed: Feed) -> None:
        """Forget a feed."""
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
        """End the streams of keys that may no longer call."""
        for event in events:
            end = _ENDS.get(event.name)
            if end is not None and event.key_id is not None:
                for feed in self._feeds.get(event.key_id, ()):
                    feed.stop(end())
            elif event.name == MEMBER_REMOVED:
                self._stop_tokens_of(event.data["user_id"])

    def _stop_tokens_of(self, person_id: str) -> None:
        """Somebody has left an organisation, and what they allowed there went along; clients that they have elsewhere come back."""
        for feeds in self._feeds.values():
            for feed in feeds:
                if feed.person_id == person_id:
                    feed.stop(TokenRefused())
