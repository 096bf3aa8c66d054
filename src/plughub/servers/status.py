"""How servers are just now. Memory only: after a start everything is disconnected until it is asked; how many tools it had is recalled."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import SERVER_DELETED
from plughub.kit.clock import Clock
from plughub.upstream.target import Status


@dataclass(frozen=True, slots=True)
class ServerState:
    """`tools_count` is None until the tools were listed once; `checked_at` (epoch seconds) until the server was reached or tried."""

    status: Status = "disconnected"
    last_error: str | None = None
    tools_count: int | None = None
    checked_at: float | None = None
    # Status and error without the attempts in between: a server that fails again as before is no news.
    settled: tuple[Status, str | None] = field(default=("disconnected", None), compare=False, repr=False)


_UNKNOWN = ServerState()


class StatusBoard:
    """The newest state of each server that was used since the start. Bounded; a deleted server is forgotten."""

    def __init__(self, clock: Clock, max_entries: int) -> None:
        self._clock = clock
        self.max_entries = max_entries
        self._states: OrderedDict[str, ServerState] = OrderedDict()

    def now(self) -> float:
        """The time that reports carry: epoch seconds."""
        return self._clock.time()

    def get(self, server_id: str) -> ServerState:
        """The state; that of a server not yet used is `disconnected`."""
        return self._states.get(server_id, _UNKNOWN)

    def report(self, server_id: str, status: Status, error: str | None = None) -> bool:
        """The connection's state changed. `last_error` stays until the server is connected again.

        True when it is news: another state than before, an attempt to connect not counted.
        """
        before = self.get(server_id)
        last_error = None if status == "connected" else error or before.last_error
        settled = before.settled if status == "connecting" else (status, last_error)
        self._set(server_id, replace(before, status=status, last_error=last_error, checked_at=self._clock.time(), settled=settled))
        return settled != before.settled

    def count_tools(self, server_id: str, tools_count: int) -> None:
        """The server listed its tools."""
        self._set(server_id, replace(self.get(server_id), tools_count=tools_count))

    async def follow(self, events: Sequence[Event]) -> None:
        """A listener of the database: forgets what is deleted."""
        for event in events:
            if event.name == SERVER_DELETED and event.server_id is not None:
                self._states.pop(event.server_id, None)

    def _set(self, server_id: str, state: ServerState) -> None:
        self._states[server_id] = state
        self._states.move_to_end(server_id)
        if len(self._states) > self.max_entries:
            self._states.popitem(last=False)
