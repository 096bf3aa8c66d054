"""Events as frames of an event stream, and the ids that a stream is taken up from. Source: CONTRACT section 7.

Each event is sent twice: a named frame with the id `<epoch>-<seq>` for whoever listens for the name, then an unnamed one with the id
`<epoch>-<seq>.m` for `onmessage`. Whoever was cut off between the two resumes from the first id, and is sent the second frame.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from plughub.db.unit_of_work import Event
from plughub.events.body import event_body

# More than that is left out of an event: one frame must not be all that may wait for a slow client.
MAX_BODY_BYTES = 128 * 1024
_ID = re.compile(r"([0-9A-Za-z]{1,32})-([0-9]{1,18})(\.m)?")
_KEPT = ("server_uuid", "mcp_id", "tool", "request_id", "outcome", "is_error", "duration_ms", "key_id")


@dataclass(frozen=True, slots=True)
class StreamId:
    """How far a client came. `whole`: it has the last event in both of its frames."""

    epoch: str
    seq: int
    whole: bool

    @classmethod
    def parse(cls, text: str) -> "StreamId | None":
        """What a client sent back; None when it is no id of a stream."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]), found[3] is not None)


class Framed:
    """An event that was read, with what is sent of it, made once."""

    __slots__ = ("event", "named", "size", "unnamed")

    def __init__(self, found: Event, organization_id: str, epoch: str) -> None:
        self.event = found
        body = body_bytes(found, organization_id, epoch)
        self.named = b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (epoch.encode(), found.seq, found.name.encode(), body)
        self.unnamed = b"id: %b-%d.m\ndata: %b\n\n" % (epoch.encode(), found.seq, body)
        self.size = len(self.named) + len(self.unnamed)

    def frames(self, *, mirror: bool) -> bytes:
        """The event's frames."""
        return self.named + self.unnamed if mirror else self.named


def body_bytes(found: Event, organization_id: str, epoch: str) -> bytes:
    """The body as JSON; of one that is too large what says what it is about, with `truncated: true`."""
    body = event_body(found, organization_id, epoch)
    encoded = msgspec.json.encode(body)
    if len(encoded) <= MAX_BODY_BYTES:
        return encoded
    body["data"] = {name: body["data"][name] for name in _KEPT if name in body["data"]} | {"truncated": True}
    return msgspec.json.encode(body)


def position_frame(epoch: str, seq: int) -> bytes:
    """A bare id: the client has everything up to this number, and resumes from there."""
    return b"id: %b-%d.m\n\n" % (epoch.encode(), seq)


def told_frame(name: str, data: Any) -> bytes:
    """Something that the stream says of itself: it has no id, and no mirror."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
