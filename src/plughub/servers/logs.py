"""What each server wrote to stderr, and our notes about it: one bounded file a server."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from plughub.kit.clock import Clock, rfc3339

# Hears every line of a server, then None when it is deleted; must not raise.
Reader = Callable[[str | None], None]
_OPEN_FILES = 64
_REMEMBERED = 10_000
_MAX_LINE = 4000
_TAIL_BYTES = 64 * 1024


class ServerLogs:
    """Files below `folder`, one and one older part a server; each part at most `max_bytes`. Lines hold no secrets: upstream redacts."""

    def __init__(self, folder: Path, max_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._removed: OrderedDict[str, None] = OrderedDict()
        self._readers: dict[str, list[Reader]] = {}

    def write(self, server_id: str, line: str) -> None:
        """Append one line with its time. The folder is made with the first line of all."""
        if server_id in self._removed:
            return
        kept = f"{rfc3339(self._clock.time())} {line[:_MAX_LINE]}".encode(errors="replace")
        for reader in self._readers.get(server_id, ()):
            reader(kept.decode())
        try:
            self._append(server_id, kept + b"\n")
        except OSError:
            # A full disk costs the line, never the connection of the server that wrote it.
            if file := self._files.pop(server_id, None):
                file.close()

    def _append(self, server_id: str, line: bytes) -> None:
        file = self._files.get(server_id)
        if file is None:
            file = self._open(server_id)
        else:
            self._files.move_to_end(server_id)
        file.write(line)
        if file.tell() > self._max_bytes:
            self._files.pop(server_id).close()
            self.path(server_id).replace(self.path(server_id).with_suffix(".1.log"))

    def tail(self, server_id: str, lines: int) -> list[str]:
        """The last lines, oldest first."""
        path = self.path(server_id)
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]

    def follow(self, server_id: str, reader: Reader) -> Callable[[], None]:
        """Have `reader` called with every line from now on, and with None when the server is deleted; what is returned ends that."""
        readers = self._readers.setdefault(server_id, [])
        readers.append(reader)

        def leave() -> None:
            if reader in readers:
                readers.remove(reader)
            if not readers and self._readers.get(server_id) is readers:
                del self._readers[server_id]

        return leave

    def remove(self, server_id: str) -> None:
        """The server is deleted; what still comes from its last process is dropped."""
        for reader in self._readers.pop(server_id, ()):
            reader(None)
        self._removed[server_id] = None
        if len(self._removed) > _REMEMBERED:
            self._removed.popitem(last=False)
        if file := self._files.pop(server_id, None):
            file.close()
        for path in (self.path(server_id), self.path(server_id).with_suffix(".1.log")):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def path(self, server_id: str) -> Path:
        """The file of a server."""
        return self._folder / f"{server_id}.log"

    def _open(self, server_id: str) -> BinaryIO:
        if len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Unbuffered: a crash of the hub keeps what the server said last.
        file = self.path(server_id).open("ab", buffering=0)
        self._files[server_id] = file
        return self._files[server_id]
