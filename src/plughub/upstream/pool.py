"""All servers' connections. Whoever needs one asks `ready`, then `get`."""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from plughub.kit.clock import Clock
from plughub.kit.dial import Tls
from plughub.kit.errors import Unavailable, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.http import HttpUpstream
from plughub.upstream.processes import Processes
from plughub.upstream.sse import SseUpstream
from plughub.upstream.supervisor import ENDED, Supervisor
from plughub.upstream.target import Answer, Hooks, Peer, Target, Upstream
from plughub.upstream.watching import NOTHING, Wanted

LOOKS_PER_IDLE = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Numbers for /metrics and for tests."""

    servers: int
    live: int
    children: tuple[int, ...]
    http_connections: int
    lent: int
    in_flight: int
    warden_pid: int | None


class Pool:
    """One supervisor a server; the warden's owner."""

    def __init__(self, settings: Settings, hooks: Hooks, *, clock: Clock) -> None:
        self._settings = settings
        self._hooks = hooks
        self._clock = clock
        self._processes = Processes()
        self._tls = Tls()
        self._supervisors: dict[str, Supervisor] = {}
        self._wanted: dict[str, Wanted] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self._open = False

    async def start(self) -> None:
        """Start the warden and the look for idle servers."""
        self._processes.start()
        self._open = True
        self._schedule()

    def ready(self, target: Target) -> Upstream | None:
        """The live connection for exactly this revision, or None. Synchronous, for the hot path."""
        supervisor = self._supervisors.get(target.server_id)
        if supervisor is None or supervisor.target.revision != target.revision:
            return None
        return supervisor.live

    async def get(self, target: Target, timeout_s: float | None = None) -> Upstream:
        """The live connection, or a new one, made once for all who wait; each for `timeout_s`, while the start goes on for the others.

        A target of an older revision than the newest seen gets the newest's connection. Raises UpstreamUnreachable or
        UpstreamTimeout (both with executed "no") or Unavailable.
        """
        if not self._open:
            raise Unavailable("the hub is shutting down")
        supervisor = self._supervisors.get(target.server_id)
        if supervisor is None or supervisor.target.revision < target.revision:
            if supervisor is not None:
                self._end(supervisor, ENDED)
            supervisor = Supervisor(target, self._settings, self._hooks, self._clock, self._processes, self._tls)
            supervisor.want(self._wanted.get(target.server_id, NOTHING))
            self._supervisors[target.server_id] = supervisor
        elif supervisor.target.revision == target.revision:
            supervisor.retime(target)
        return await supervisor.get(timeout_s)

    def look(self, target: Target) -> None:
        """The next request to the server is a look of the hub's own: no use that keeps its connection from its rest."""
        supervisor = self._supervisors.get(target.server_id)
        if supervisor is not None:
            supervisor.look()

    def lent(self, target: Target, peer: Peer, timeout_s: float) -> AbstractAsyncContextManager[Upstream]:
        """A connection of a handshake server that knows of this client and works for it alone, for the time of the block.

        The server is one that `get` has connected to. Raises what `get` raises.
        """
        supervisor = self._supervisors.get(target.server_id)
        if supervisor is None:
            raise UpstreamUnreachable(ENDED, executed="no")
        return supervisor.lending.lent(peer, timeout_s)

    def connected(self) -> list[str]:
        """The ids of the servers with a live connection."""
        return [server_id for server_id, supervisor in self._supervisors.items() if supervisor.live is not None]

    def want(self, server_id: str, wanted: Wanted) -> None:
        """What is to be heard of the server from here on, whenever it is connected; `NOTHING` ends it."""
        if wanted:
            self._wanted[server_id] = wanted
        else:
            self._wanted.pop(server_id, None)
        supervisor = self._supervisors.get(server_id)
        if supervisor is not None:
            supervisor.want(wanted)

    async def settled(self, server_ids: Iterable[str]) -> None:
        """Return when those of the servers that are connected were asked for what is wanted of them."""
        live = [supervisor.live for id_ in server_ids if (supervisor := self._supervisors.get(id_)) is not None]
        await asyncio.gather(*(each.watching.settled() for each in live if each is not None))

    async def subscribe(self, target: Target, uri: str, timeout_s: float) -> Answer:
        """Ask a handshake server that is connected for the changes of a resource, once for all. Raises what a request raises."""
        supervisor = self._supervisors.get(target.server_id)
        if supervisor is None or supervisor.live is None:
            raise UpstreamUnreachable(ENDED, executed="no")
        return await supervisor.live.watching.subscribe(uri, timeout_s)

    async def forget(self, server_id: str, reason: str = ENDED) -> None:
        """End the server's process group or connections, and whatever is remembered about its failures and its era.

        Calls under way fail with `reason`.
        """
        supervisor = self._supervisors.pop(server_id, None)
        if supervisor is not None:
            await supervisor.aclose(reason)

    def forgive(self, server_id: str) -> None:
        """Forget the server's failures alone: the next `get` starts it at once."""
        supervisor = self._supervisors.get(server_id)
        if supervisor is not None:
            supervisor.forgive()

    def snapshot(self) -> Snapshot:
        """What is open just now."""
        live = [supervisor.live for supervisor in self._supervisors.values() if supervisor.live is not None]
        own = [connection for supervisor in self._supervisors.values() for connection in supervisor.lending.connections()]
        return Snapshot(
            servers=len(self._supervisors),
            live=len(live),
            children=tuple(self._processes.pids),
            http_connections=sum(each.connections.open for each in (*live, *own) if isinstance(each, HttpUpstream | SseUpstream)),
            lent=len(own),
            in_flight=sum(each.in_flight for each in live) + sum(each.lending.in_flight for each in self._supervisors.values()),
            warden_pid=self._processes.warden_pid,
        )

    async def rest_idle(self) -> None:
        """End what was not used for `idle_timeout_s`. Runs by itself four times in that time."""
        for supervisor in list(self._supervisors.values()):
            supervisor.lending.rest(self._settings.idle_timeout_s)
            if supervisor.idle_s() >= self._settings.idle_timeout_s:
                await supervisor.rest()

    async def aclose(self) -> None:
        """End every child and connection, at the latest after twice `stop_grace_s` and the warden's last kill."""
        self._open = False
        if self._look is not None:
            self._look.cancel()
        supervisors = list(self._supervisors.values())
        self._supervisors.clear()
        await asyncio.gather(*(supervisor.aclose("the hub is shutting down") for supervisor in supervisors))
        if self._ending:
            await asyncio.wait(self._ending)
        await self._processes.aclose(2 * self._settings.stop_grace_s + 1)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(self._settings.idle_timeout_s / LOOKS_PER_IDLE, self._on_look)

    def _on_look(self) -> None:
        self._keep(asyncio.get_running_loop().create_task(self.rest_idle()))
        self._schedule()

    def _end(self, supervisor: Supervisor, reason: str) -> None:
        self._keep(asyncio.get_running_loop().create_task(supervisor.aclose(reason)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
