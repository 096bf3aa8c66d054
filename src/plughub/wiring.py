"""Ties what upstream connections report to the domains: status, logs, changed lists, numbers of tools, and the events that tell of them."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.catalogue import (
    SERVER_CONNECTED,
    SERVER_CREATED,
    SERVER_DELETED,
    SERVER_DISCONNECTED,
    SERVER_ERROR,
    SERVER_UPDATED,
    ServerStatus,
)
from plughub.gateway.hub import Hub
from plughub.kit.caller import SCOPES, TIERS, Caller
from plughub.kit.errors import HubError
from plughub.servers.health import Seen, keep_seen
from plughub.servers.logs import ServerLogs
from plughub.servers.status import StatusBoard
from plughub.upstream.target import RawJson, Status, Target

log = structlog.get_logger("plughub.servers")

_EVENTS: dict[Status, str] = {"connected": SERVER_CONNECTED, "disconnected": SERVER_DISCONNECTED, "error": SERVER_ERROR}
# Changes after which a server is reached in another way, or not at all.
_REACHED_ANEW = frozenset({"config", "transport", "enabled"})
_LOOKING_AT_ONCE = 4
_MAX_NEWS = 10_000
_AGAIN_S = 5.0


class Wiring:
    """The hooks of `upstream`, and a listener of the database. `attach` hands it the hub, whose pool needs the hooks first.

    Two bounded queues with one owner: news of servers on their way to the event log (a server has at most one entry, the newest),
    and servers to look at after a change, so that their status and tools are known before anybody calls. What comes in late of a
    server that was deleted is dropped, so that nothing of it is left behind.

    The hooks never raise: their callers are upstream's read loops.
    """

    def __init__(self, database: Database, board: StatusBoard, logs: ServerLogs, *, max_news: int = _MAX_NEWS) -> None:
        self._database = database
        self._board = board
        self._logs = logs
        self._hub: Hub | None = None
        self._news: dict[str, tuple[Target, Status, str | None]] = {}
        self._max_news = max_news
        self._deleted: dict[str, None] = {}
        self._woken = asyncio.Event()
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

    def start(self) -> None:
        """Begin to write news."""
        self._writing = asyncio.get_running_loop().create_task(self._write_news())

    async def aclose(self) -> None:
        """Stop looking, write what is left of the news, close the logs."""
        for task in self._looking:
            task.cancel()
        if self._looking:
            await asyncio.wait(self._looking)
        self._closing = True
        self._woken.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._logs.close()

    def status(self, target: Target, status: Status, error: str | None) -> None:
        """See `upstream.target.Hooks`."""
        if target.server_id in self._deleted:
            return
        news = self._board.report(target.server_id, status, error)
        if status == "connected" and self._hub is not None:
            self._hub.catalog.forget(target.server_id)
        if self._hub is not None:
            self._hub.listening.status(target, status)
        if news and status in _EVENTS and (target.server_id in self._news or len(self._news) < self._max_news):
            self._news[target.server_id] = (target, status, error)
            self._woken.set()

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
        if target.server_id not in self._deleted:
            self._board.count_tools(target.server_id, count)

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
                caller = _hub_itself(space_id)
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
            closing = self._closing
            try:
                await self._write_waiting()
            except (SQLAlchemyError, OSError) as error:
                log.warning("server_events_not_written", waiting=len(self._news), error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN_S, self._woken.set)

    async def _write_waiting(self) -> None:
        """Write until nothing waits; what could not be written waits on."""
        while self._news:
            server_id, news = next(iter(self._news.items()))
            try:
                await self._write(*news)
            except LookupError:
                pass  # the space is gone, and nobody is left to tell
            if self._news.get(server_id) is news:  # else something newer came meanwhile
                del self._news[server_id]

    async def _write(self, target: Target, status: Status, error: str | None) -> None:
        data: ServerStatus = {"server_uuid": target.server_id, "slug": target.slug}
        if error is not None:
            data["error"] = error
        async with self._database.unit_of_work() as uow:
            if target.server_id not in self._deleted:  # it may have gone while this waited for its turn to write
                uow.emit(_EVENTS[status], space_id=target.space_id, server_id=target.server_id, data=data)
                await keep_seen(uow, target.server_id, Seen(uow.clock.time(), "status", status, error=error))


def _hub_itself(space_id: str) -> Caller:
    """The hub looking at a server of a space for its own records, on behalf of nobody."""
    return Caller("", space_id, "live", "", "secret", SCOPES, None, TIERS["enterprise"], operator=False, stdio_allowed=False)
