"""A file becomes what can be kept: its kind is known, its text is out and in passages, large ones are in the database already."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plughub.documents import files
from plughub.documents.bounds import MAX_TEXT_BYTES
from plughub.documents.chunks import Chunk, split
from plughub.documents.kinds import KINDS, Kind, clean_name, sniff
from plughub.documents.library import Landing, Library
from plughub.documents.schemas import Incoming, Version
from plughub.kit.caller import Caller
from plughub.kit.errors import Invalid
from plughub.kit.ids import new_id

# What is smaller goes into the transaction that refers to it; a larger file would hold the others up.
_SMALL_BYTES = 1024 * 1024
# Texts that are sent as such need no reader.
_PLAIN = ("md", "txt")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are kept, or are to be kept with what refers to them (`data`)."""

    id: str
    size: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that is ready to become a version. `text` may be the same blob as `file`."""

    kind: Kind
    file_name: str
    size: int
    sha256: str
    file: Blob
    text: Blob
    truncated: bool
    chunks: Sequence[Chunk]


@asynccontextmanager
async def prepared_file(library: Library, caller: Caller, incoming: Incoming) -> AsyncIterator[Prepared]:
    """The file, read. What was written of it is removed when the block raises. Raises UnsupportedMediaType, Invalid, Unavailable."""
    if not incoming.size:
        raise Invalid("file", "The file is empty")
    name = clean_name(incoming.name)
    kind = await asyncio.to_thread(sniff, incoming.path, name)
    text, truncated = await library.readers.text(kind.name, incoming.path)
    chunks = await asyncio.to_thread(split, text.decode(errors="replace"))
    kept: list[str] = []
    try:
        file = await _file_blob(library, caller, incoming)
        kept += [file.id] if file.data is None else []
        whole = len(text) == incoming.size and hashlib.sha256(text).hexdigest() == incoming.sha256
        said = file if whole else await _text_blob(library, caller, text)
        kept += [said.id] if said.data is None else []
        yield Prepared(kind, name or f"document.{kind.name}", incoming.size, incoming.sha256, file, said, truncated, chunks)
    except BaseException:
        if kept:
            await asyncio.shield(_forget(library, kept))
        raise


@asynccontextmanager
async def prepared_text(library: Library, caller: Caller, content: str, kind: str, name: str) -> AsyncIterator[Prepared]:
    """A text that was sent as such. Raises as `prepared_file`, PayloadTooLarge."""
    data = content.encode(errors="replace")
    if kind not in _PLAIN or len(data) > _SMALL_BYTES:
        async with library.desk() as folder:
            landing = Landing(folder / "text", library.settings.max_document_bytes)
            landing.take(data)
            incoming = await landing.landed(name)
            async with prepared_file(library, caller, incoming) as prepared:
                yield prepared
        return
    chunks = await asyncio.to_thread(split, content)
    blob = Blob(new_id(), len(data), data)
    yield Prepared(KINDS[kind], clean_name(name), len(data), hashlib.sha256(data).hexdigest(), blob, blob, False, chunks)


async def text_of(library: Library, version: Version, size: int) -> str:
    """The text of a version whose text has that many bytes, as far as it is searched."""
    return (await files.read_whole(library.database, version.text_id, min(size, MAX_TEXT_BYTES))).decode(errors="ignore")


async def _file_blob(library: Library, caller: Caller, incoming: Incoming) -> Blob:
    if incoming.size <= _SMALL_BYTES:
        return Blob(new_id(), incoming.size, await asyncio.to_thread(incoming.path.read_bytes))
    return Blob(await files.save_file(library.database, caller.space_id, incoming.path, incoming.size), incoming.size)


async def _text_blob(library: Library, caller: Caller, text: bytes) -> Blob:
    if len(text) <= _SMALL_BYTES:
        return Blob(new_id(), len(text), text)
    return Blob(await files.save_bytes(library.database, caller.space_id, text), len(text))


async def _forget(library: Library, ids: Sequence[str]) -> None:
    async with library.database.unit_of_work() as uow:
        await files.drop_blobs(uow, set(ids))
