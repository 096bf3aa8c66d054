"""The batching writer: tool calls reach the log some 50 ms later, without a database on their path."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import BUSY_TIMEOUT_MS, Database
from plughub.db.unit_of_work import NEXT_SEQ
from plughub.settings import Settings

# (space_id, name, at, server_id, key_id, tool, request_id, outcome, is_error, duration_us, door, data as JSON text)
ToolRow = tuple[str, str, float, str | None, str | None, str | None, str | None, str | None, bool, int, str, str]

_COLUMNS = "space_id, seq, name, at, server_id, key_id, tool, request_id, outcome, is_error, duration_us, door, data"
_BATCH = 4000
# While rows are few, to write them at once costs little.
_HASTE_S = 0.008
_FEW = 32
_RETRY_S = (0.05, 0.2, 1.0, 2.0, 5.0)
_REFUSALS = (
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    ValueError,
    OverflowError,
    LookupError,
)
_log = structlog.get_logger("plughub.writer")


class RowsRefused(Exception):
    """The database refuses these rows whatever the moment: one of them is wrong."""


class Sink(Protocol):
    """Writes rows in one transaction, all or none. Raises RowsRefused when trying again cannot help."""

    async def write(self, rows: Sequence[ToolRow]) -> None: ...

    async def aclose(self) -> None: ...


class BatchingWriter:
    """Collects rows in memory and writes them every `settings.event_flush_ms` in one transaction.

    A failed write is tried again with growing pauses for as long as the process lives, and counted in `failures`. A row that the
    database refuses is singled out, logged whole, counted in `refused`, and does not hold up the others. `on_written` is told which spaces
    have new rows. While `in_haste()` says that somebody waits for events, few rows are written sooner: within `_HASTE_S`.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._sink: Sink = SqliteSink(database) if database.kind == "sqlite" else PostgresSink(database)
        self._flush_s = settings.event_flush_ms / 1000
        self._bound = settings.event_queue
        self._time = database.clock.time
        self._rows: list[ToolRow] = []
        self._writing = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.written = 0
        self.failures = 0
        self.failing = False  # the last attempt did not reach the disk
        self.refused = 0
        self.left_out = 0  # counted by those who give up a row when the writer is full
        self.on_written: Callable[[Iterable[str]], None] | None = None
        self.in_haste: Callable[[], bool] | None = None
        self._last = 0  # rows of the last batch

    @property
    def full(self) -> bool:
        """At the bound: the caller refuses work whose record could not be kept."""
        return len(self._rows) + self._writing >= self._bound

    @property
    def waiting(self) -> int:
        """Rows not yet on the disk."""
        return len(self._rows) + self._writing

    @property
    def lag_s(self) -> float:
        """How old the oldest row is that is not on the disk; 0 without any. Those of a batch that is being written are not looked at."""
        return max(0.0, self._time() - self._rows[0][2]) if self._rows else 0.0

    def record(self, row: ToolRow) -> None:
        """Keep a row; it is on the disk after about `event_flush_ms`. Called on the event loop's thread."""
        self._rows.append(row)
        if self._timer is None:
            self._arm()

    async def flush(self) -> None:
        """Return when everything recorded so far is on the disk."""
        while self._rows or self._writing:
            self._begin()
            if self._flushing is not None:
                await asyncio.shield(self._flushing)

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Write what is left, then let go of the database. Rows that cannot be written in time are counted in the log."""
        self._closing.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except TimeoutError:
            _log.error("events_lost", rows=self.waiting)
            if self._flushing is not None:
                self._flushing.cancel()
                await asyncio.wait([self._flushing])
        if self._timer is not None:
            self._timer.cancel()
        await self._sink.aclose()

    def _arm(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        soon = self._last < _FEW and self.in_haste is not None and self.in_haste()
        self._timer = self._loop.call_later(min(self._flush_s, _HASTE_S) if soon else self._flush_s, self._begin)

    def _begin(self) -> None:
        if self._flushing is None and self._rows:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            # What comes in meanwhile waits for the next turn: small batches cost more than large ones.
            rows, self._rows = self._rows, []
            self._last = self._writing = len(rows)
            for begin in range(0, len(rows), _BATCH):
                await self._write(rows[begin : begin + _BATCH])
                self._writing = max(0, len(rows) - begin - _BATCH)
        finally:
            self._writing = 0
            self._flushing = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._rows:
                self._arm()

    async def _write(self, rows: Sequence[ToolRow]) -> None:
        attempt = 0
        while True:
            try:
                await self._sink.write(rows)
            except RowsRefused as error:
                await self._divide(rows, error)
                return
            except (SQLAlchemyError, sqlite3.Error, OSError) as error:
                self.failures += 1
                self.failing = True
                _log.warning("event_write_failed", rows=len(rows), attempt=attempt + 1, error=str(error))
                await self._pause(attempt)
                attempt += 1
            else:
                self.failing = False
                self.written += len(rows)
                if self.on_written is not None:
                    self.on_written({row[0] for row in rows})
                return

    async def _divide(self, rows: Sequence[ToolRow], error: RowsRefused) -> None:
        if len(rows) == 1:
            self.refused += 1
            _log.error("event_refused", row=repr(rows[0]), error=str(error))
            return
        half = len(rows) // 2
        await self._write(rows[:half])
        await self._write(rows[half:])

    async def _pause(self, attempt: int) -> None:
        # At a stop the last attempts follow each other quickly: the time for them is short.
        pause_s = _RETRY_S[0] if self._closing.is_set() else _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
        await asyncio.sleep(pause_s)


class SqliteSink:
    """A connection of its own on a thread of its own, under the write lock that every unit of work takes.

    synchronous=NORMAL: in WAL mode a power cut may lose the last batches, never the file. Several rows go into one statement,
    because the thread must take the interpreter lock again after each one, and a busy event loop makes it wait every time.
    """

    _SIZES = (256, 32, 4, 1)

    def __init__(self, database: Database) -> None:
        self._path: Path = database.path
        self._lock = database.write_lock
        self._thread = ThreadPoolExecutor(1, "plughub-writer")
        self._connection: sqlite3.Connection | None = None
        one = f"({', '.join('?' * len(_COLUMNS.split(',')))})"
        self._inserts = [(n, f"INSERT INTO event ({_COLUMNS}) VALUES {', '.join([one] * n)}") for n in self._SIZES]

    async def write(self, rows: Sequence[ToolRow]) -> None:
        """All rows in one transaction."""
        async with self._lock:
            # Shielded under the lock: when the waiting task is cancelled the thread still writes, and nobody else may.
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    async def aclose(self) -> None:
        """Close the connection on its own thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _write(self, rows: Sequence[ToolRow]) -> None:
        if self._connection is None:
            self._connection = self._open()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for space_id, of_space in _by_space(rows).items():
                self._insert(self._connection, space_id, of_space)
            self._connection.execute("COMMIT")
        except _REFUSALS as error:
            self._connection.rollback()
            raise RowsRefused(str(error)) from error
        except BaseException:
            # Rolls back as well; the next attempt begins with a fresh connection.
            self._close()
            raise

    def _insert(self, connection: sqlite3.Connection, space_id: str, rows: Sequence[ToolRow]) -> None:
        # fetchall ends the statement; one that is left open would still hold the transaction at COMMIT.
        found = connection.execute(NEXT_SEQ, {"n": len(rows), "space_id": space_id}).fetchall()
        if not found:
            raise LookupError(f"no space {space_id}")
        seq = found[0][0] - len(rows)
        begin = 0
        for size, statement in self._inserts:
            while len(rows) - begin >= size:
                values: list[object] = []
                for row in rows[begin : begin + size]:
                    seq += 1
                    values.append(row[0])
                    values.append(seq)
                    values += row[1:]
                connection.execute(statement, values)
                begin += size


class PostgresSink:
    """One statement a space: the rows go over as one JSON text and are taken apart by the server, away from our CPU."""

    _INSERT = text(
        f"INSERT INTO event ({_COLUMNS}) SELECT r->>0, :base + n, r->>1, (r->>2)::float8, r->>3, r->>4, r->>5, r->>6, r->>7,"
        " (r->>8)::boolean, (r->>9)::bigint, r->>10, r->>11 FROM json_array_elements(CAST(:rows AS json)) WITH ORDINALITY AS t(r, n)"
    )
    _CLASSES = ("22", "23")  # SQLSTATE classes: data exception, integrity violation

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next_seq = text(NEXT_SEQ)

    async def write(self, rows: Sequence[ToolRow]) -> None:
        """All rows in one transaction."""
        try:
            async with self._database.unit_of_work() as uow:
                by_space = _by_space(rows)
                for space_id in sorted(by_space):
                    of_space = by_space[space_id]
                    last = (await uow.execute(self._next_seq, {"n": len(of_space), "space_id": space_id})).scalar()
                    if last is None:
                        raise LookupError(f"no space {space_id}")
                    encoded = msgspec.json.encode(of_space).decode()
                    await uow.execute(self._INSERT, {"base": last - len(of_space), "rows": encoded})
        except (LookupError, ValueError, TypeError) as error:
            raise RowsRefused(str(error)) from error
        except SQLAlchemyError as error:
            state = getattr(getattr(error, "orig", None), "sqlstate", None)
            if isinstance(state, str) and state[:2] in self._CLASSES:
                raise RowsRefused(str(error)) from error
            raise

    async def aclose(self) -> None:
        """Nothing of its own to close."""


def _by_space(rows: Sequence[ToolRow]) -> dict[str, list[ToolRow]]:
    grouped: dict[str, list[ToolRow]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return grouped
