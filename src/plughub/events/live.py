"""The log as it grows, for many at once: one reader a space, whatever the number of its clients.

A reader is told by the `Tail` that its log has grown, reads what is new once, and hands it to every client that has all before it, with
the frames joined once for all who hear the same. Who comes with an older number catches up by `after` first, at its own pace, from what
the reader remembers or else from the database.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.events.frames import Framed
from plughub.events.log import PAGE, list_told, read_head
from plughub.events.selection import Selection
from plughub.events.tail import Tail

# What a reader remembers, for those who were cut off for a moment: after a restart that is everybody, all at once.
RECENT = 1024
RECENT_BYTES = 4 * 1024 * 1024
# So many events are handed out before the loop has a turn to send them.
AT_ONCE = 32
_CATCHING_UP = 2
_AGAIN_S = 1.0
_log = structlog.get_logger("plughub.live")


class Form(NamedTuple):
    """What a client hears, and how: clients of one form are sent the same bytes."""

    selection: Selection
    mirror: bool


class Client(Protocol):
    """Whoever is sent frames; `deliver` must return at once."""

    def deliver(self, frames: bytes, events: int) -> None:
        """Frames of so many events."""


class Stretch(NamedTuple):
    """A part of the log: events in order, up to number `until`. Public events up to `pruned` may be gone."""

    events: Sequence[Framed]
    until: int
    pruned: int


class Reader:
    """The newest part of one space's log. Made by `LiveEvents.join`.

    It has read everything up to `seq`, and remembers what is after `floor`.
    """

    def __init__(self, database: Database, space_id: str, catching_up: asyncio.Semaphore) -> None:
        self.space_id = space_id
        self.epoch = ""
        self.seq = 0
        self.floor = 0
        self.users = 0
        self.task: asyncio.Task[None] | None = None
        self._database = database
        self._catching_up = catching_up
        self._organization_id = ""
        self._recent: deque[Framed] = deque()
        self._recent_bytes = 0
        self._clients: dict[Form, dict[Client, None]] = {}
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()

    async def begin(self) -> None:
        """Read the newest part. Raises LookupError when the space is gone, SQLAlchemyError, OSError."""
        async with self._database.read() as connection:
            head = await read_head(connection, self.space_id)
            if head is None:
                raise LookupError(self.space_id)
            self._organization_id, self.epoch = head.organization_id, head.epoch
            self.seq = self.floor = max(head.seq - RECENT // 2, head.pruned_seq, 0)
        await self._read_on()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def reach(self, seq: int) -> None:
        """Read what is known to be there, so that who comes now does not hear of what was before; and up to that number, which a client
        may know from another process."""
        if seq > self.seq or self._news.is_set() or self._reading.locked():
            await self._read_on()

    def grown(self, _space_id: str) -> None:
        """A watcher of the `Tail`."""
        self._news.set()

    def attach(self, client: Client, form: Form) -> None:
        """From now on `client` is sent what comes after `seq`."""
        self._clients.setdefault(form, {})[client] = None

    def detach(self, client: Client, form: Form) -> None:
        """Nothing more, if it was sent anything."""
        clients = self._clients.get(form)
        if clients is not None:
            clients.pop(client, None)
            if not clients:
                del self._clients[form]

    async def after(self, seq: int) -> Stretch:
        """What comes after a number, at most PAGE events of it."""
        if seq >= self.floor:
            newer = (framed for framed in self._recent if framed.event.seq > seq)
            events = list(islice(newer, PAGE))
            return Stretch(events, events[-1].event.seq if len(events) == PAGE else self.seq, 0)
        async with self._catching_up:
            return await self._stretch(seq)

    async def _stretch(self, seq: int) -> Stretch:
        async with self._database.read() as connection:
            head = await read_head(connection, self.space_id)
            if head is None:
                raise LookupError(self.space_id)
            found = await list_told(connection, self.space_id, seq, head.seq)
        events = [Framed(event, self._organization_id, self.epoch) for event in found]
        return Stretch(events, found[-1].seq if len(found) == PAGE else head.seq, head.pruned_seq)

    async def _read_on(self) -> None:
        """Read up to the newest event and hand out what was not there before."""
        async with self._reading:
            full = True
            while full:
                stretch = await self._stretch(self.seq)
                for begin in range(0, len(stretch.events), AT_ONCE):
                    if begin:
                        await asyncio.sleep(0)
                    self._take(stretch.events[begin : begin + AT_ONCE])
                self.seq = max(self.seq, stretch.until)
                full = len(stretch.events) == PAGE

    def _take(self, events: Sequence[Framed]) -> None:
        """Remember them and hand them out: between the two nobody may attach, so nothing waits here."""
        self.seq = events[-1].event.seq
        for framed in events:
            self._recent.append(framed)
            self._recent_bytes += framed.size
        while len(self._recent) > RECENT or self._recent_bytes > RECENT_BYTES:
            forgotten = self._recent.popleft()
            self._recent_bytes -= forgotten.size
            self.floor = forgotten.event.seq
        for form, clients in self._clients.items():
            heard = [framed.frames(mirror=form.mirror) for framed in events if form.selection.lets(framed.event)]
            if heard:
                frames = b"".join(heard)
                for client in clients:
                    client.deliver(frames, len(heard))

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._read_on()
            except LookupError:
                return  # with its organisation; its keys end with it, and their streams
            except (SQLAlchemyError, OSError) as error:
                _log.warning("log_not_read", space_id=self.space_id, error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN_S, self._news.set)


class LiveEvents:
    """The readers: as many as there are spaces with clients."""

    def __init__(self, database: Database, tail: Tail) -> None:
        self._database = database
        self._tail = tail
        self._readers: dict[str, tuple[Reader, asyncio.Task[None]]] = {}
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)

    @property
    def watched(self) -> bool:
        """Whether anybody waits for events."""
        return bool(self._readers)

    async def join(self, space_id: str) -> Reader:
        """The reader of a space, begun for the first who comes; whoever joins leaves. Raises what `Reader.begin` does."""
        if space_id not in self._readers:
            made = Reader(self._database, space_id, self._catching_up)
            # Told from before its first look: what is written meanwhile is looked for once more.
            self._tail.watch(space_id, made.grown)
            self._readers[space_id] = made, asyncio.get_running_loop().create_task(made.begin())
        reader, beginning = self._readers[space_id]
        reader.users += 1
        try:
            await asyncio.shield(beginning)
        except BaseException:
            self.leave(reader)
            raise
        return reader

    def leave(self, reader: Reader) -> None:
        """One client less; with the last one the reader ends."""
        reader.users -= 1
        if reader.users == 0:
            self._end(reader)

    def close(self) -> None:
        """End every reader."""
        for reader, _ in tuple(self._readers.values()):
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        found = self._readers.get(reader.space_id)
        if found is None or found[0] is not reader:
            return
        del self._readers[reader.space_id]
        self._tail.unwatch(reader.space_id, reader.grown)
        found[1].cancel()
        if reader.task is not None:
            reader.task.cancel()
