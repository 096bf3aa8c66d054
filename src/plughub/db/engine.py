"""The two databases behind one face: SQLite in a file of our own, or a shared PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from plughub.db.audit import THE_HUB, Actor, Chain
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.db.write_lock import WriteLock
from plughub.kit.clock import Clock
from plughub.settings import Settings

Listener = Callable[[Sequence[Event]], Awaitable[None]]
Kind = Literal["sqlite", "postgresql"]

DATABASE_FILE = "plughub.db"
# One process owns the file, so waiting for a lock is the exception: a backup tool, or a unit of work that was cut off.
BUSY_TIMEOUT_MS = 10_000


def database_url(settings: Settings) -> str:
    """The address of the database that the settings name; the embedded one lives in the data directory."""
    return settings.database_url or f"sqlite:///{(settings.data_dir / DATABASE_FILE).absolute()}"


class Database:
    """Connections, the write lock of SQLite, and who hears of committed events.

    `url`: `sqlite:///<absolute path>` or `postgresql://…`. `listeners` are called with the events of every unit of work after
    its commit and before `unit_of_work()` exits, so that caches of this process are right before the answer leaves. `after_commit`
    is called after them, with the events of this process alone: it may wait for other processes. Without `chain` nothing can be
    written that belongs in the audit.
    """

    def __init__(self, url: str, clock: Clock, chain: Chain | None = None) -> None:
        self.clock = clock
        self.chain = chain
        self.url, self.kind = _normalised(url)
        self.listeners: list[Listener] = []
        self.after_commit: Listener | None = None
        self.write_lock = WriteLock()
        self._ends: set[asyncio.Task[None]] = set()
        if self.kind == "sqlite":
            self._writer, self._reader = _sqlite_engines(self.url)
            self._apart = self._writer
        else:
            self._writer = create_async_engine(self.url, pool_size=10, max_overflow=10, pool_pre_ping=False)
            self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
            # For what runs without a request: when many wait for a connection, it does not wait behind them.
            self._apart = create_async_engine(self.url, pool_size=1, max_overflow=1, pool_pre_ping=False)

    @property
    def path(self) -> Path:
        """The file of the embedded database."""
        return Path(self.url.database or "")

    def read(self) -> AsyncConnection:
        """`async with database.read() as conn:` a connection for reading; every statement sees the newest commit."""
        return self._reader.connect()

    def unit_of_work(self, actor: Actor = THE_HUB, *, apart: bool = False) -> "WorkScope":
        """`async with database.unit_of_work() as uow:` commits when the block ends, rolls back when it raises.

        `apart`: on a connection beside those of the requests, which may all be taken; on SQLite, where one writes, before them.
        """
        return WorkScope(self, actor, apart=apart)

    async def dispatch(self, events: Sequence[Event]) -> None:
        """Tell every listener; all of them hear it even when one fails, then the first failure is raised."""
        if not events or not self.listeners:
            return
        results = await asyncio.gather(*(listener(events) for listener in self.listeners), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def aclose(self) -> None:
        """Wait for what is being committed, then close every connection."""
        while self._ends:
            await asyncio.wait(self._ends)
        await self._writer.dispose()
        await (self._reader if self.kind == "sqlite" else self._apart).dispose()

    async def open_transaction(self, *, apart: bool = False) -> AsyncConnection:
        """A connection inside a transaction; on SQLite with the write lock held. Ended by `end_transaction`."""
        if self.kind == "sqlite":
            await self.write_lock.acquire(first=apart)
        try:
            connection = await (self._apart if apart else self._writer).connect()
            try:
                await connection.begin()
            except BaseException:
                await connection.close()
                raise
        except BaseException:
            self._release()
            raise
        return connection

    async def end_transaction(self, ending: Coroutine[Any, Any, None]) -> None:
        """Run the end of a transaction to its end, whatever happens to the task that waits for it.

        A request cut off in its commit must neither free the write lock early nor leave caches that missed the commit.
        """
        end = asyncio.ensure_future(ending)
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        await asyncio.shield(end)

    async def close_transaction(self, connection: AsyncConnection) -> None:
        """Give the connection back (what is not committed is rolled back), then the write lock."""
        try:
            await connection.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self.kind == "sqlite":
            self.write_lock.release()


class WorkScope:
    """The `async with` of a unit of work. Not nestable: the inner one would wait for the outer one's write lock."""

    __slots__ = ("_actor", "_apart", "_connection", "_database", "_work")

    def __init__(self, database: Database, actor: Actor, *, apart: bool) -> None:
        self._apart = apart
        self._database = database
        self._actor = actor

    async def __aenter__(self) -> UnitOfWork:
        self._connection = await self._database.open_transaction(apart=self._apart)
        self._work = UnitOfWork(self._connection, self._database.clock, self._database.chain, self._actor)
        return self._work

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._database.end_transaction(self._commit() if error is None else self._database.close_transaction(self._connection))

    async def _commit(self) -> None:
        try:
            events = await self._work.number()
            try:
                await self._connection.commit()
            except BaseException:
                # A commit that fails (a deferred constraint) leaves SQLite inside the transaction, and the pool believes that it
                # has ended: such a connection is never used again.
                await self._connection.invalidate()
                raise
        finally:
            await self._database.close_transaction(self._connection)
        await self._database.dispatch(events)
        if events and self._database.after_commit is not None:
            await self._database.after_commit(events)


def _normalised(url: str) -> tuple[URL, Kind]:
    parsed = make_url(url)
    name = parsed.drivername.partition("+")[0]
    if name == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite"), "sqlite"
    if name in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg"), "postgresql"
    raise ValueError(f"{name}: a database URL begins with sqlite:/// or postgresql://")


def _sqlite_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    # One connection writes, because one at a time may; the pool of readers never waits for it (WAL).
    writer = create_async_engine(url, pool_size=1, max_overflow=0)
    reader = create_async_engine(url, pool_size=4, max_overflow=4, isolation_level="AUTOCOMMIT")
    _on_connect(writer, ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"), manual=True)
    _on_connect(reader, ("query_only=ON",), manual=False)

    @event.listens_for(writer.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE: a transaction that reads first and writes later would fail when another has written in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @event.listens_for(writer.sync_engine, "invalidate")
    def _invalidated(connection: DBAPIConnection, _record: Any, _error: BaseException | None) -> None:
        # A statement that is cut off costs its connection. Closing alone would not end the transaction while anybody still
        # holds the statement's cursor, be it a traceback: the file would stay locked for everybody.
        connection.rollback()

    return writer, reader


def _on_connect(engine: AsyncEngine, pragmas: Sequence[str], *, manual: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: DBAPIConnection, _record: Any) -> None:
        if manual:
            connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
