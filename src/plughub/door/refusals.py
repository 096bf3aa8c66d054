"""What a known caller was not allowed to do, kept in the audit.

Off the path of the request, and bounded however often somebody tries: the first refusal of a kind is written at once, those that
follow it within a minute are counted and leave one row together.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.audit import Actor, Deed
from plughub.db.engine import Database
from plughub.door.actor import actor_of
from plughub.door.request import Request
from plughub.kit.errors import HubError
from plughub.kit.ids import parse_public_id

log = structlog.get_logger("plughub.door")

FORBIDDEN: Final = 403
REFUSED: Final = "request.refused"
WINDOW_S = 60.0
_MAX_KINDS = 1_000
_TOLD = ("required_scope", "reason")
# (organisation, environment, key, route's method, route's path, code, required scope, reason)
Kind = tuple[str, str, str, str, str, str, Any, Any]


@dataclass(slots=True)
class _Refusals:
    """Those of one kind: the newest of them, how many are not written, and when the window ends (None: none is written yet)."""

    actor: Actor
    object_id: str | None
    waiting: int = 1
    until: float | None = None


class RefusalTrail:
    """Owned by the application: one task writes. More kinds at once than there is room for are counted in the log alone."""

    def __init__(self, database: Database, *, max_kinds: int = _MAX_KINDS) -> None:
        self._database = database
        self._clock = database.clock
        self._max_kinds = max_kinds
        self._kinds: dict[Kind, _Refusals] = {}
        self._left_out = 0
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Write what waits, then end."""
        self._closing = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def written(self) -> None:
        """Return when nothing waits to be written at once."""
        await self._settled.wait()

    @property
    def kinds(self) -> int:
        """So many kinds of refusals are being counted."""
        return len(self._kinds)

    async def sweep(self) -> None:
        """Write what waits, and forget the kinds whose window is over; done by itself once a minute. Raises SQLAlchemyError, OSError."""
        await self._write_due(everything=False)

    def note(self, request: Request, error: HubError) -> None:
        """The request of a known caller was refused with this error."""
        caller, route = request.caller, request.route
        if caller is None or route is None:
            return
        told = [error.details.get(name) for name in _TOLD]
        kind: Kind = (caller.organization_id, caller.environment, caller.key_id, route.method, route.path, error.code, told[0], told[1])
        ids = [id_ for value in request.values if (id_ := parse_public_id(value.split("_", 1)[0], value)) is not None]
        held = self._kinds.get(kind)
        if held is not None:
            held.actor, held.object_id, held.waiting = actor_of(request), ids[0] if ids else None, held.waiting + 1
        elif len(self._kinds) >= self._max_kinds:
            self._left_out += 1
        else:
            self._kinds[kind] = _Refusals(actor_of(request), ids[0] if ids else None)
            self._woken.set()
            self._settled.clear()

    async def _run(self) -> None:
        closing = False
        while not closing:
            try:
                # Nothing is looked at while nothing waits.
                async with asyncio.timeout(WINDOW_S if self._kinds else None):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            closing = self._closing
            try:
                await self._write_due(everything=closing)
            except (SQLAlchemyError, OSError) as error:
                # They wait for the next time; what is not written when the hub stops is lost.
                log.warning("refusals_not_written", waiting=len(self._kinds), error=str(getattr(error, "orig", error)))

    async def _write_due(self, *, everything: bool) -> None:
        now = self._clock.monotonic()
        over = {kind for kind, held in self._kinds.items() if held.until is not None and (everything or held.until <= now)}
        due = {kind: held.waiting for kind, held in self._kinds.items() if held.waiting and (held.until is None or kind in over)}
        if due:
            async with self._database.unit_of_work() as uow:
                for kind, count in due.items():
                    uow.audit(_deed(kind, self._kinds[kind], count))
        for kind, count in due.items():
            held = self._kinds[kind]
            held.waiting -= count
            held.until = held.until or now + WINDOW_S
        for kind in list(self._kinds) if everything else over:
            if not self._kinds[kind].waiting:
                del self._kinds[kind]
        if not any(held.until is None for held in self._kinds.values()):
            self._settled.set()
        if self._left_out:
            log.warning("refusals_left_out", count=self._left_out)
            self._left_out = 0


def _deed(kind: Kind, held: _Refusals, count: int) -> Deed:
    organization_id, environment, _, method, path, code, *told = kind
    note = {name: value for name, value in zip(_TOLD, told, strict=True) if isinstance(value, str)}
    more = {"count": count} if count > 1 else {}
    return Deed(
        REFUSED,
        "route",
        held.object_id,
        f"{method} {path}",
        organization_id=organization_id,
        environment=environment,
        outcome=code,
        note=note | more,
        actor=held.actor,
    )
