"""Tells an organisation that much of its hour is used: `usage.limit_reached` at 80 and at 100 percent, off the way of the calls."""

import asyncio

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.tables import space
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import USAGE_LIMIT_REACHED, LimitReached
from plughub.events.log import list_lately
from plughub.gateway.admission import space_of
from plughub.kit.caller import Environment, Tier

# The alarms count minutes, so the next one may come up to a minute before the hour is over.
_LATELY_S = 3540.0
_MAX_WAITING = 10_000
_AGAIN_S = 5.0
_log = structlog.get_logger("plughub.limits")


class UsageAlarms:
    """Bounded: one entry an organisation, environment and threshold waits to be written; beyond that alarms are lost, as the next
    hour has its own. What other processes have told within the hour is not told again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, int], Tier] = {}
        self._woken = asyncio.Event()
        self._closing = False
        self._writing: asyncio.Task[None] | None = None

    def sound(self, subject: str, percent: int, tier: Tier) -> None:
        """So much of the hour is used; see `limits.Alarm`. Called on the way of a call: it only notes it."""
        if space_of(subject) is not None and len(self._waiting) < _MAX_WAITING:
            self._waiting[subject, percent] = tier
            self._woken.set()

    def start(self) -> None:
        """Begin to write."""
        self._writing = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Write what waits."""
        self._closing = True
        self._woken.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _run(self) -> None:
        closing = False
        while not closing:
            await self._woken.wait()
            self._woken.clear()
            closing = self._closing
            try:
                await self._write_waiting()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("usage_alarms_not_written", waiting=len(self._waiting), error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN_S, self._woken.set)

    async def _write_waiting(self) -> None:
        while self._waiting:
            (subject, percent), tier = next(iter(self._waiting.items()))
            found = space_of(subject)
            if found is not None:
                async with self._database.unit_of_work() as uow:
                    await _tell(uow, *found, percent, tier)
            del self._waiting[subject, percent]


async def _tell(uow: UnitOfWork, organization_id: str, environment: Environment, percent: int, tier: Tier) -> None:
    """One event, unless there is one of this hour. The row of the space is the lock between processes."""
    query = select(space.c.id).where(space.c.organization_id == organization_id, space.c.environment == environment).with_for_update()
    space_id = (await uow.execute(query)).scalar()
    if space_id is None:
        return
    data: LimitReached = {
        "organization_id": organization_id,
        "environment": environment,
        "policy": "hourly",
        "threshold": percent,
        "limit": tier.hourly,
        "tier": tier.name,
    }
    told = await list_lately(uow.connection, space_id, USAGE_LIMIT_REACHED, uow.clock.time() - _LATELY_S)
    if all(event.data["threshold"] != percent for event in told):
        uow.emit(USAGE_LIMIT_REACHED, space_id=space_id, data=data)
