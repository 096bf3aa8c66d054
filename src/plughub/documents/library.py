"""What the rules of documents need of a running hub: a place for files that come in, readers, search by meaning, and who has any."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.documents import store
from plughub.documents.meaning import Meaning
from plughub.documents.readers import Readers
from plughub.documents.schemas import Incoming
from plughub.documents.vectors import Vectors
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import DOCUMENT_CREATED, DOCUMENT_DELETED
from plughub.kit.errors import PayloadTooLarge
from plughub.kit.ids import new_id
from plughub.settings import Settings

_LEFT_BEHIND_S = 3600.0
_BUFFER = 1024 * 1024


class Library:
    """Owned by the application: `start` clears what an earlier run left behind, `aclose` ends what runs."""

    def __init__(self, database: Database, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self.database = database
        self.settings = settings
        self.readers = Readers()
        self.meaning = Meaning(settings.embedding_model)
        self.vectors = Vectors()
        self._folder = settings.data_dir / "uploads"
        self._filled: FollowedCache[str, bool] = FollowedCache(
            self._load, max_entries=max(64, settings.cache_entries // 10), tags=lambda _: (), trusted=trusted
        )
        database.listeners.append(self._follow)

    def start(self) -> None:
        """Remove files that came in and were never taken over."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                    shutil.rmtree(path, ignore_errors=True)

    async def aclose(self) -> None:
        """Wait for the model's thread."""
        await self.meaning.aclose()

    async def filled(self, space_id: str) -> bool:
        """Whether the space has a document: from memory, where nothing has changed."""
        return bool(await self._filled.resolve(space_id))

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[Path]:
        """A folder of its own for files that are worked on; it is gone afterwards. Their names are never those that somebody gave."""
        folder = self._folder / new_id()
        await asyncio.to_thread(folder.mkdir, 0o700, True)
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))

    async def _load(self, space_id: str) -> bool | None:
        async with self.database.read() as connection:
            return (await store.has_documents(connection, space_id)) or None

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name in (DOCUMENT_CREATED, DOCUMENT_DELETED):
                self._filled.evict(event.space_id)


class Landing:
    """Writes a file down as it comes in, off the event loop, and sums it up on the way."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._held = bytearray()
        self._digest = hashlib.sha256()
        self.size = 0

    def take(self, data: bytes | memoryview) -> None:
        """Some bytes of it; `settle` before there are many. Raises PayloadTooLarge."""
        self.size += len(data)
        if self.size > self._limit_bytes:
            raise PayloadTooLarge("The document is too large", limit_bytes=self._limit_bytes)
        self._held += data

    async def settle(self, *, all_of_it: bool = False) -> None:
        """Write down what is held when it is much, or `all_of_it`."""
        if self._held and (all_of_it or len(self._held) >= _BUFFER):
            held, self._held = self._held, bytearray()
            await asyncio.to_thread(self._write, held)

    async def landed(self, name: str) -> Incoming:
        """The whole file, called `name` by its sender."""
        await self.settle(all_of_it=True)
        if not self.size:
            self._path.touch()
        return Incoming(self._path, name, self.size, self._digest.hexdigest())

    def _write(self, held: bytearray) -> None:
        self._digest.update(held)
        with self._path.open("ab") as file:
            file.write(held)
