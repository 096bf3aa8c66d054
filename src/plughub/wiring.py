"""Ties what upstream connections report to the domains: status, logs, changed lists, numbers of tools, and the events that tell of them."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import SERVER_CREATED, SERVER_DELETED, SERVER_UPDATED
from plughub.gateway.hub import Hub
from plughub.gateway.probes import hub_itself
from plughub.kit.errors import HubError
from plughub.servers.health import Seen, keep_seen
from plughub.servers.logs import ServerLogs
from plughub.servers.states import SETTLE_S, State, Told, keep_tools_count, list_tools_counts, tell
from plughub.servers.status import StatusBoard
from plughub.upstream.target import RawJson, Status, Target

log = structlog.get_logger("plughub.servers")

# Changes after which a server is reached in another way, or not at all.
_REACHED_ANEW = frozenset({"config", "transport", "enabled"})
_LOOKING_AT_ONCE = 4
_MAX_NEWS = 10_000
_AGAIN_S = 5.0


@dataclass(slots=True)
class _News:
    """What is to be written of one server: its newest state, that the hub has ended its connection since, how many tools it has.

    `due_at`: the log was told of the server a moment ago, and is told again then (epoch seconds).
    """

    target: Target
    told: Told | None = None
    rested_at: float | None = None
    tools_count: int | None = None
    due_at: float = 0.0
    seen: Seen | None = None


class Wiring:
    """The hooks of `upstream`, and a listener of the database. `attach` hands it the hub, whose pool needs the hooks first.

    Two bounded queues with one owner: news of servers on their way to the event log (a server has at most one entry, the newest, and
    makes at most one event in `settle_s`), and servers to look at after a change, so that their status and tools are known before anybody
    calls. What comes in late of a server that was deleted is dropped, so that nothing of it is left behind.

    The hooks never raise: their callers are upstream's read loops.
    """

    def __init__(
        self, database: Database, board: StatusBoard, logs: ServerLogs, *, max_news: int = _MAX_NEWS, settle_s: float = SETTLE_S
    ) -> None:
        self._database = database
        self._board = board
        self._logs = logs
        self._hub: Hub | None = None
        self._news: dict[str, _News] = {}
        self._max_news = max_news
        self._settle_s = settle_s
        self._timer: asyncio.TimerHandle | None = None
        self._deleted: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._busy = False
        self._closing = False
        self._writing: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Semaphore(_LOOKING_AT_ONCE)

    def attach(self, hub: Hub) -> None:
        """From here on reports reach the hub."""
        self._hub = hub
        self._database.listeners.append(self._board.follow)
        self._database.listeners.append(self.follow)
        self._database.listeners.append(hub.streams.follow)
        self._database.listeners.append(hub.listening.follow)

    async def start(self) -> None:
        """Learn how many tools each server listed before this start, and begin to write news."""
        async with self._database.read() as connection:
            for server_id, count in await list_tools_counts(connection, self._board.max_entries):
                self._board.count_tools(server_id, count)
        self._writing = asyncio.get_running_loop().create_task(self._write_news())

    async def aclose(self) -> None:
        """Stop looking, write what is left of the news, close the logs."""
        for task in self._looking:
            task.cancel()
        if self._looking:
            await asyncio.wait(self._looking)
        self._closing = True
        self.wake()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._timer is not None:
            self._timer.cancel()
        self._logs.close()

    def status(self, target: Target, status: Status, error: str | None) -> None:
        """See `upstream.target.Hooks`."""
        if target.server_id in self._deleted:
            return
        was_connected = self._board.get(target.server_id).status == "connected"
        news = self._board.report(target.server_id, status, error)
        if status == "connected" and self._hub is not None:
            self._hub.catalog.forget(target.server_id)
        if self._hub is not None:
            self._hub.listening.status(target, status)
        if not news:
            return
        if status == "disconnected":  # the hub has ended it itself, for want of use or because it was changed
            self._rested(target)
        elif status == "connected":
            self._changed(target, "connected", None)
        elif status == "error":
            self._changed(target, "disconnected" if was_connected else "error", error)

    def probed(self, target: Target, seen: Seen) -> None:
        """See `gateway.probes.Report`: a look found it well or not, which its connection may not know."""
        if target.server_id in self._deleted:
            return
        state = self._board.get(target.server_id).status
        if seen.status == "error" and state != "error" and self._board.report(target.server_id, "error", seen.error):
            self._changed(target, "error", seen.error, kept=True)
        elif seen.status == "connected" and state == "error" and self._board.report(target.server_id, "connected"):
            self._changed(target, "connected", None, kept=True)

    def log(self, target: Target, line: str) -> None:
        """See `upstream.target.Hooks`."""
        self._note(target.server_id, line)

    def notification(self, target: Target, method: str, params: dict[str, RawJson]) -> None:
        """See `upstream.target.Hooks`."""
        if self._hub is not None:
            self._hub.catalog.hear(target.server_id, method)
            self._hub.listening.notification(target, method, params)

    def count_tools(self, target: Target, count: int) -> None:
        """The server has listed so many tools."""
        if target.server_id in self._deleted or self._board.get(target.server_id).tools_count == count:
            return
        self._board.count_tools(target.server_id, count)
        news = self._entry(target)
        if news is not None:
            news.tools_count = count
            self.wake()

    def wake(self) -> None:
        """Write what is due."""
        self._woken.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is due and nothing is being written."""
        return not self._busy and not self._woken.is_set()

    def _changed(self, target: Target, state: State, error: str | None, *, kept: bool = False) -> None:
        """The server is in another state. `kept`: its history has the row of it already."""
        news = self._entry(target)
        if news is None:
            return
        at = self._board.now()
        news.told = Told(target.server_id, target.space_id, target.slug, state, at, error)
        news.seen = None if kept else Seen(at, "status", "connected" if state == "connected" else "error", error=error)
        news.rested_at = None
        self.wake()

    def _rested(self, target: Target) -> None:
        news = self._entry(target)
        if news is not None:
            news.rested_at = self._board.now()
            self.wake()

    def _entry(self, target: Target) -> _News | None:
        """The server's news, at the end of the queue when they are new; None when there is no room."""
        news = self._news.get(target.server_id)
        if news is None and len(self._news) < self._max_news:
            news = self._news[target.server_id] = _News(target)
        if news is not None:
            news.target = target
        return news

    async def follow(self, events: Sequence[Event]) -> None:
        """Servers that changed are disconnected from what they were; new ones are looked at."""
        hub = self._hub
        for event in events:
            if event.server_id is None or event.name not in (SERVER_CREATED, SERVER_UPDATED, SERVER_DELETED):
                continue
            if event.name == SERVER_DELETED:
                self._bury(event.server_id)
            if hub is None:
                continue
            if event.name == SERVER_UPDATED and not _REACHED_ANEW.intersection(event.data.get("changed", ())):
                continue  # another name or description: running calls go on
            if event.name != SERVER_CREATED:  # which may be told late, when its tools are listed already
                hub.catalog.forget(event.server_id)
                self._spawn(hub.pool.forget(event.server_id))
            if event.name != SERVER_DELETED:
                self._spawn(self._look(hub, event.space_id, event.server_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    def _bury(self, server_id: str) -> None:
        """The server is deleted; ids are never used again."""
        while len(self._deleted) >= self._max_news:
            del self._deleted[next(iter(self._deleted))]
        self._deleted[server_id] = None
        self._news.pop(server_id, None)
        try:
            self._logs.remove(server_id)
        except OSError as error:
            log.warning("server_log_not_removed", server_id=server_id, error=str(error))

    def _note(self, server_id: str, line: str) -> None:
        if server_id not in self._deleted:
            self._logs.write(server_id, line)

    async def _look(self, hub: Hub, space_id: str, server_id: str) -> None:
        """Connect and list the tools, which counts them: status and tools_count are true without a first call."""
        async with self._gate:
            try:
                caller = hub_itself(space_id)
                target = await hub.exchange.target(caller, server_id)
                if target.enabled:
                    await hub.catalog.tools(caller, target)
            except HubError as error:
                # The pool has reported the status already; the sentence also belongs to the server's log.
                self._note(server_id, f"[plughub] {error.text}")
            except (SQLAlchemyError, OSError) as error:
                log.warning("server_not_looked_at", server_id=server_id, error=str(error))

    async def _write_news(self) -> None:
        closing = False
        while not closing:
            await self._woken.wait()
            self._woken.clear()
            closing, self._busy = self._closing, True
            try:
                await self._write_due()
            except (SQLAlchemyError, OSError) as error:
                log.warning("server_events_not_written", waiting=len(self._news), error=str(error))
                self._wake_in(_AGAIN_S)
            self._busy = False

    async def _write_due(self) -> None:
        """Write until nothing is due; what could not be written waits on. At the end everything is due: the last state is told."""
        while True:
            now = self._board.now()
            due = next((news for news in self._news.values() if self._closing or news.due_at <= now), None)
            if due is None:
                break
            # Out of the queue while it is written: what comes meanwhile is a new entry.
            del self._news[due.target.server_id]
            try:
                again_at = await self._write(due)
            except LookupError:
                continue  # the space is gone, and nobody is left to tell
            except BaseException:
                self._put_back(due)
                raise
            if again_at is not None:
                due.due_at = again_at
                self._put_back(due)
        if self._news:
            self._wake_in(min(news.due_at for news in self._news.values()) - self._board.now())

    def _put_back(self, news: _News) -> None:
        """What was not written waits on, beneath what came meanwhile."""
        newer = self._news.setdefault(news.target.server_id, news)
        if newer is not news:
            newer.due_at = max(newer.due_at, news.due_at)
            newer.told = newer.told or news.told
            newer.seen = newer.seen or news.seen
            newer.tools_count = news.tools_count if newer.tools_count is None else newer.tools_count

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.wake)

    async def _write(self, news: _News) -> float | None:
        """Its history, its number of tools, its event. When the event may be tried again, if it came too soon.

        Each in a transaction of its own: a row of the history holds its server's row, as does a second change of the same row of its state;
        and whoever removes a profile waits for servers with the space held, which the event needs.
        """
        server_id, told = news.target.server_id, news.told
        if news.seen is not None or news.rested_at is not None:
            async with self._database.unit_of_work() as uow:
                if server_id in self._deleted:  # it may have gone while this waited for its turn to write
                    return None
                if news.seen is not None:
                    await keep_seen(uow, server_id, news.seen)
                if news.rested_at is not None:
                    await keep_seen(uow, server_id, Seen(news.rested_at, "status", "disconnected"))
            news.seen = news.rested_at = None
        if news.tools_count is not None:
            async with self._database.unit_of_work() as uow:
                await keep_tools_count(uow, server_id, news.tools_count)
            news.tools_count = None
        if told is None:
            return None
        async with self._database.unit_of_work() as uow:
            if server_id in self._deleted:
                return None
            return await tell(uow, told, settle_s=0.0 if self._closing else self._settle_s)
