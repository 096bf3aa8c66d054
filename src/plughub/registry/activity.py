"""What really happened here to servers of the registry: stars, installations, calls. Nothing of it is taken from anywhere else."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.engine import Database
from plughub.db.registry_tables import registry_entry, registry_figures, registry_install, registry_package, registry_star
from plughub.db.tables import event
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import TOOL_CALLS
from plughub.events.server_figures import DAY_S
from plughub.kit.caller import Caller
from plughub.kit.ids import new_id
from plughub.registry.schemas import Activity, Figures, OwnInstall

PERIODS_S: Final = {"24h": DAY_S, "7d": 7 * DAY_S, "30d": 30 * DAY_S}
_KEPT_S = 60.0
# Upserts as text: this form is the same on both databases, the library's constructs are not.
_COUNT = text(
    "INSERT INTO registry_figures (scope, name, installs, stars) VALUES (:scope, :name, :installs, :stars) "
    "ON CONFLICT (scope, name) DO UPDATE SET installs = registry_figures.installs + :installs, stars = registry_figures.stars + :stars"
)
_STAR = text(
    "INSERT INTO registry_star (scope, name, subject, organization_id, created_at) "
    "VALUES (:scope, :name, :subject, :organization_id, :created_at) ON CONFLICT DO NOTHING"
)
star, installed = registry_star.c, registry_install.c


def subject_of(caller: Caller) -> str:
    """Whose star it is: of the person behind a session or a token, else of the organisation whose key it is."""
    return f"user:{caller.user_id}" if caller.credential != "key" and caller.user_id else f"org:{caller.organization_id}"


async def change_star(uow: UnitOfWork, caller: Caller, scope: str, name: str, *, starred: bool) -> bool:
    """Whether anything is changed by it."""
    values = {"scope": scope, "name": name, "subject": subject_of(caller)}
    if starred:
        done = await uow.execute(_STAR, {**values, "organization_id": caller.organization_id, "created_at": uow.clock.time()})
    else:
        same = (star.scope == scope, star.name == name, star.subject == values["subject"])
        done = await uow.execute(delete(registry_star).where(*same))
    if done.rowcount:
        await uow.execute(_COUNT, {"scope": scope, "name": name, "installs": 0, "stars": 1 if starred else -1})
    return bool(done.rowcount)


async def is_starred(connection: AsyncConnection, caller: Caller, scope: str, name: str) -> bool:
    """Whether the caller's star is given."""
    query = select(star.name).where(star.scope == scope, star.name == name, star.subject == subject_of(caller))
    return (await connection.execute(query)).first() is not None


async def recount_stars(uow: UnitOfWork) -> None:
    """Stars of organisations that are no more go; the count follows."""
    own = registry_figures.c
    given = select(func.count()).select_from(registry_star).where(star.scope == own.scope, star.name == own.name).scalar_subquery()
    await uow.execute(update(registry_figures).where(own.stars != given).values(stars=given))


async def note_install(uow: UnitOfWork, caller: Caller, listed: RowMapping, server_id: str, package_id: str | None) -> None:
    """Count an installation, and remember which server came of it."""
    values = {column: listed[column] for column in ("scope", "name", "version", "source")}
    values |= {"id": new_id(), "organization_id": caller.organization_id, "space_id": caller.space_id, "server_id": server_id}
    await uow.execute(insert(registry_install).values(**values, package_id=package_id, installed_at=uow.clock.time()))
    await uow.execute(_COUNT, {"scope": listed["scope"], "name": listed["name"], "installs": 1, "stars": 0})


async def list_own(connection: AsyncConnection, caller: Caller, name: str | None = None) -> list[OwnInstall]:
    """The servers of the caller's space and grant that came from the registry, or from one server of it, in the order they were made."""
    latest = (
        select(registry_entry.c.version)
        .where(registry_entry.c.scope == installed.scope, registry_entry.c.name == installed.name)
        .where(registry_entry.c.is_latest, registry_entry.c.status != "deleted")
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(installed.server_id, installed.name, installed.version, latest.label("latest"), registry_package.c.integrity)
        .add_columns(installed.installed_at)
        .outerjoin(registry_package, registry_package.c.id == installed.package_id)
        .where(installed.space_id == caller.space_id, installed.server_id.is_not(None))
    )
    if name is not None:
        query = query.where(installed.name == name)
    if caller.servers is not None:
        query = query.where(installed.server_id.in_(caller.servers))
    rows = (await connection.execute(query.order_by(installed.installed_at, installed.id))).mappings().all()
    return [OwnInstall(**row) for row in rows]


async def figures_of(connection: AsyncConnection, server_id: str, now: float) -> tuple[str, str, Figures] | None:
    """Scope and name that a server came from, and how often that was installed; None when it did not come from the registry."""
    origin = (await connection.execute(select(installed.scope, installed.name).where(installed.server_id == server_id))).first()
    if origin is None:
        return None
    own = registry_figures.c
    counted = await connection.scalar(select(own.installs).where(own.scope == origin.scope, own.name == origin.name))
    found, first = Figures(counted or 0), (int(now // DAY_S) - 6) * DAY_S
    same = (installed.scope == origin.scope, installed.name == origin.name, installed.installed_at >= first)
    for at in (await connection.execute(select(installed.installed_at).where(*same).limit(100_000))).scalars():
        found.daily[min(6, int((at - first) // DAY_S))] += 1
    return origin.scope, origin.name, found


async def read_activity(connection: AsyncConnection, since: float) -> list[Activity]:
    """Installations and calls since then, of every server that has any, the busiest first."""
    own = (installed.scope, installed.name)
    made = select(*own, func.count(), func.max(installed.installed_at)).where(installed.installed_at >= since).group_by(*own)
    found: dict[tuple[str, str], Activity] = {}
    for scope, name, count, last_at in (await connection.execute(made)).all():
        found[scope, name] = Activity(scope, name, installs=count, last_at=last_at)
    calls = select(*own, func.count(), func.max(event.c.at)).join(event, event.c.server_id == installed.server_id)
    calls = calls.where(event.c.name.in_(TOOL_CALLS), event.c.at >= since).group_by(*own)
    for scope, name, count, last_at in (await connection.execute(calls)).all():
        before = found.get((scope, name), Activity(scope, name))
        found[scope, name] = Activity(scope, name, before.installs, count, max(before.last_at, last_at))
    return sorted(found.values(), key=lambda one: (-one.score, one.name))


class Trends:
    """What is busy, counted at most once a minute for each period: at most three lists are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, tuple[float, Sequence[Activity]]] = {}
        self._lock = asyncio.Lock()

    async def get(self, period: str) -> Sequence[Activity]:
        """The servers of every scope, the busiest first."""
        async with self._lock:
            until, found = self._kept.get(period, (0.0, ()))
            now = self._database.clock.time()
            if until <= now:
                async with self._database.read() as connection:
                    found = await read_activity(connection, now - PERIODS_S[period])
                self._kept[period] = (now + _KEPT_S, found)
            return found


def seen(found: Sequence[Activity], scopes: Sequence[str]) -> list[Activity]:
    """Those of the scopes."""
    return [one for one in found if one.scope in scopes]


def rank_of(found: Sequence[Activity], scope: str, name: str) -> int | None:
    """The place of a server among the busiest that those of its scope see, from 1 on."""
    places: Any = ((place, one) for place, one in enumerate(found, 1))
    return next((place for place, one in places if (one.scope, one.name) == (scope, name)), None)
