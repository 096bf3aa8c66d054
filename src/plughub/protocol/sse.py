"""Server-sent events without I/O: bytes in any pieces in, events out (WHATWG HTML, "Server-sent events")."""

from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"
# Of an event that is skipped: what is kept of either end, and the bytes that count as one idle line.
KEPT = 4096
SKIP_DISCOUNT = 1024


class SseTooLarge(ValueError):
    """An event is larger than allowed."""


@dataclass(slots=True)
class SseEvent:
    """One event; `data` has its lines joined by a newline. `id` is None when the event named none."""

    event: bytes
    data: bytes
    id: bytes | None


@dataclass(slots=True)
class SseOverlong(SseEvent):
    """An event over the bound, skipped: `data` is its beginning, `tail` its end, `size` how long it was."""

    tail: bytes
    size: int


class SseParser:
    """Feed it what arrives; the text of fields stays bytes. `last_id` and `retry_ms` are what the stream said last.

    An event over `max_bytes` raises, or with `skip` comes as SseOverlong when it is over, at most `max_bytes` of it held meanwhile.
    `idle_lines` counts the lines that carry no data; whoever bounds a stream's noise sets it back.
    """

    __slots__ = (
        "_data",
        "_event",
        "_first",
        "_head",
        "_id",
        "_max_bytes",
        "_partial",
        "_size",
        "_skip",
        "_skip_lf",
        "_tail",
        "idle_lines",
        "last_id",
        "retry_ms",
    )

    def __init__(self, max_bytes: int, *, skip: bool = False) -> None:
        self._max_bytes = max_bytes
        self._skip = skip
        self._head: bytes | None = None  # set while an event over the bound goes by
        self._tail = b""
        self._partial: list[bytes] = []
        self._size = 0  # of the event being read, its unfinished line included
        self._first = True
        self._skip_lf = False
        self._event = b""
        self._data: list[bytes] = []
        self._id: bytes | None = None
        self.last_id = b""
        self.retry_ms: int | None = None
        self.idle_lines = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that are complete with this chunk. Raises SseTooLarge when one grows over the bound."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        found: list[SseEvent] = []
        for line in chunk.splitlines(keepends=True):
            self._size += len(line)
            if self._size > self._max_bytes:
                self._skip_over(line, found)
                continue
            if line[-1] not in b"\r\n":
                self._partial.append(line)
                continue
            if self._partial:
                line = b"".join((*self._partial, line))
                self._partial.clear()
            self._line(line.rstrip(b"\r\n"), found)
            if not self._data:
                self._size = 0  # comments between events add up to nothing
        self._skip_lf = chunk[-1:] == b"\r"
        return found

    def _skip_over(self, line: bytes, found: list[SseEvent]) -> None:
        """Take a line, or a part of one, of an event over the bound; the empty line ends it."""
        if not self._skip:
            raise SseTooLarge(f"an event is larger than {self._max_bytes} bytes")
        self.idle_lines += 1 + len(line) // SKIP_DISCOUNT
        if self._head is None:
            held = b"".join((*self._data, *self._partial, line))
            self._head, self._tail = held[:KEPT], held[-KEPT:]
            self._data = []
        else:
            self._tail = (self._tail + line)[-KEPT:]
        if not self._partial and not line.rstrip(b"\r\n"):
            found.append(SseOverlong(self._event or b"message", self._head, self._id, self._tail.rstrip(b"\r\n"), self._size))
            self._head, self._event, self._id, self._size = None, b"", None, 0
            return
        # All that must be known of a line that goes on is that it is not empty.
        self._partial = [b":"] if line[-1] not in b"\r\n" else []

    def _line(self, line: bytes, found: list[SseEvent]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            self.idle_lines += 1
            self._dispatch(found)
            return
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            self._data.append(value)
            return
        self.idle_lines += 1
        if name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value[:9])

    def drop(self) -> None:
        """The stream is over: let go of what came of an event that never ended."""
        self._partial, self._data, self._head, self._tail = [], [], None, b""

    def _dispatch(self, found: list[SseEvent]) -> None:
        if self._id is not None:
            self.last_id = self._id
        if self._data:
            found.append(SseEvent(self._event or b"message", b"\n".join(self._data), self._id))
        self._event, self._data, self._id, self._size = b"", [], None, 0
