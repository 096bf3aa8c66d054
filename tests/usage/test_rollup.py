"""Every request is counted once, whatever dies, and the newest ones are in every answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select

from plughub.db.engine import Database
from plughub.db.usage_tables import usage_cell
from plughub.identity.service import Organization
from plughub.jobs.loop import JobLoop
from plughub.jobs.prune_usage import KIND as PRUNE
from plughub.jobs.prune_usage import handler as pruning
from plughub.settings import Settings
from plughub.usage.cells import CLASSES
from plughub.usage.reading import PERCENTS, Figures, Period, UsageFilter, read_usage, span_of
from plughub.usage.rollup import DAY_S, MAX_TOOLS, OTHER, roll_up
from tests.conftest import FakeClock
from tests.usage.calls import Made, Oracle, count, random_requests, record

pytestmark = pytest.mark.anyio
SPANS: dict[Period, int] = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}


class Killed(Exception):
    """The process is gone."""


@contextmanager
def killed_at(step: int) -> Iterator[list[int]]:
    """The `step`-th statement or commit from here on does not happen, nor does any after it; yields how many were begun."""
    begun = [0]

    def strike(*_given: Any) -> None:
        begun[0] += 1
        if begun[0] >= step:
            raise Killed

    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, strike)
    try:
        yield begun
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(Engine, name, strike)


def same(found: Figures, wanted: Oracle) -> None:
    assert {name: n for name, n in zip(CLASSES, found.counts, strict=True) if n} == wanted.classes
    assert (found.requests, found.bytes_in, found.bytes_out) == (wanted.requests, wanted.bytes_in, wanted.bytes_out)
    if wanted.durations_us:
        for percent, value in zip(PERCENTS, found.percentiles_ms(), strict=True):
            least, most = wanted.around(percent)
            assert value is not None and least <= value * 1000 <= most, (percent, value, least, most)


async def check(database: Database, space_id: str, made: list[Made], now: float) -> None:
    """Every period, and within it every server, key and tool, is what plain Python counts."""
    async with database.read() as connection:
        for period, length_s in SPANS.items():
            span = span_of(period, now)
            assert span.end - span.begin <= length_s
            of_span = [one for one in made if span.begin <= one.row[2] < span.end]
            usage = await read_usage(connection, space_id, span, UsageFilter())
            assert usage.as_of is None
            same(usage.figures(), count(of_span))
            for place, column in (("server_id", 3), ("key_id", 4), ("tool", 5)):
                groups = usage.by(lambda cell, place=place: getattr(cell, place))
                assert set(groups) == {one.row[column] or "" for one in of_span}
                for name, figures in groups.items():
                    same(figures, count(one for one in of_span if (one.row[column] or "") == name))


@pytest.mark.requirement("usage.exact", "usage.as-of-now")
async def test_random_calls_come_to_what_plain_python_counts_wherever_the_counting_dies(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    space = tenant.live_space_id
    made = random_requests(1, space, clock.now - 20 * 86_400, 20 * 86_400, 300)
    made += random_requests(2, space, clock.now - 3000, 2990, 300)
    made += random_requests(3, tenant.test_space_id, clock.now - 3000, 2990, 50)
    await record(database, settings, made)
    live = [one for one in made if one.row[0] == space]
    await check(database, space, live, clock.now)  # nothing is counted yet: all of it is read from the log
    step, dead = 1, True
    while dead:
        with killed_at(step) as begun:
            try:
                await roll_up(database, at_once=150)
            except Killed:
                pass
        dead = begun[0] >= step
        if step % 7 == 0 or not dead:
            await check(database, space, live, clock.now)
        step += 1
    assert step > 15
    assert await roll_up(database) == 0
    later = random_requests(4, space, clock.now - 60, 59, 40)
    await record(database, settings, later)
    await check(database, space, live + later, clock.now)


@pytest.mark.requirement("usage.as-of-now")
async def test_an_answer_that_cannot_count_all_says_up_to_when_it_did(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    made = random_requests(7, tenant.live_space_id, clock.now - 3000, 2990, 50)
    await record(database, settings, made)
    async with database.read() as connection:
        usage = await read_usage(connection, tenant.live_space_id, span_of("hour", clock.now), UsageFilter(), tail=20)
        assert usage.as_of == made[19].row[2]
        same(usage.figures(), count(made[:20]))
        await roll_up(database)
        counted = await read_usage(connection, tenant.live_space_id, span_of("hour", clock.now), UsageFilter(), times=False)
    assert counted.as_of is None and counted.figures().requests == 50 and counted.figures().percentiles_ms() == [None, None, None]


@pytest.mark.requirement("usage.exact")
async def test_two_that_count_the_same_count_it_once(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    made = random_requests(5, tenant.live_space_id, clock.now - 3000, 2990, 400)
    await record(database, settings, made)
    other = Database(str(database.url.render_as_string(hide_password=False)), clock)
    try:
        await asyncio.gather(*(roll_up(one, at_once=50) for one in (database, other, database, other)))
    finally:
        await other.aclose()
    await check(database, tenant.live_space_id, made, clock.now)


@pytest.mark.requirement("usage.bounded")
async def test_tools_beyond_the_bound_are_counted_as_others(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    at = clock.now // 86_400 * 86_400 + 10
    rows = [
        Made(
            (tenant.live_space_id, "tool.executed", at, "s", "k", f"t{n:04}", "r", "ok", False, 5, "api", '{"in":1,"out":2}'), "ok", (1, 2)
        )
        for n in range(MAX_TOOLS + 50)
    ]
    for part in (rows[:150], rows[150:], rows[200:]):
        await record(database, settings, part)
        await roll_up(database)
    async with database.read() as connection:
        usage = await read_usage(connection, tenant.live_space_id, span_of("month", at), UsageFilter())
    tools = usage.by(lambda cell: cell.tool)
    assert len(tools) == MAX_TOOLS + 1
    assert tools[OTHER].calls == 100
    same(usage.figures(), count([*rows, *rows[200:]]))


@pytest.mark.requirement("usage.bounded")
async def test_minutes_are_kept_for_days_hours_for_weeks_and_days_for_a_year(
    database: Database, tenant: Organization, settings: Settings, clock: FakeClock
) -> None:
    for back_days in (500, 300, 30, 3, 1, 0):
        await record(database, settings, random_requests(6, tenant.live_space_id, clock.now - back_days * DAY_S - 100, 90, 20))
    await roll_up(database)
    loop = JobLoop(database, {PRUNE: pruning(settings)})
    await loop.start()
    await loop.aclose()
    clock.advance(61)
    await loop.run_due()
    async with database.read() as connection:
        oldest = select(usage_cell.c.grain, func.min(usage_cell.c.start)).group_by(usage_cell.c.grain)
        ages = {grain: round((clock.now - start) / DAY_S) for grain, start in await connection.execute(oldest)}
    assert ages == {"minute": 1, "hour": 30, "day": 300} or ages == {"minute": 1, "hour": 30, "day": 301}
