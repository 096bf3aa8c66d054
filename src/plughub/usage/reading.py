"""Reading usage: what is counted, and what the log has beyond it, so that a call made just now is in the answer."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, case, func, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import event, space
from plughub.db.usage_tables import usage_cell
from plughub.kit.caller import Caller
from plughub.usage.cells import CALL, CLASSES, GRAIN_S, OK, Grain, LogRow, Place, Tally, coarser, fold
from plughub.usage.rollup import read_cursor, read_log
from plughub.usage.sketch import percentiles

T = TypeVar("T")
Period = Literal["hour", "day", "week", "month"]
PERCENTS = (50, 95, 99)
# So many events beyond the cursor are counted for one answer; only while a hub counts its log for the first time are there more.
TAIL = 20_000
_TRIES = 5
_DAYS = {"week": 7, "month": 30}


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` to `end` (epoch seconds, whole pieces of `grain`)."""

    begin: int
    end: int
    grain: Grain


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """What to count; None = anything. `who`: a caller with a server list sees what went to those servers, and what is its own."""

    who: Caller | None = None
    server_id: str | None = None
    key_id: str | None = None
    tool: str | None = None

    def accepts(self, place: Place) -> bool:
        """Whether the cell is wanted."""
        who = self.who
        if who is not None and who.servers is not None and place.server_id not in who.servers and place.key_id != who.key_id:
            return False
        wanted = ((self.server_id, place.server_id), (self.key_id, place.key_id), (self.tool, place.tool))
        return all(one is None or one == other for one, other in wanted)

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for the database."""
        found: list[ColumnElement[bool]] = []
        if self.who is not None and self.who.servers is not None:
            found.append(or_(usage_cell.c.server_id.in_(self.who.servers), usage_cell.c.key_id == self.who.key_id))
        for name, value in (("server_id", self.server_id), ("key_id", self.key_id), ("tool", self.tool)):
            if value is not None:
                found.append(usage_cell.c[name] == value)
        return found


@dataclass(frozen=True, slots=True)
class KeyRequests:
    """How much a key asked for: in all that is kept, today, and in the last 7 and 30 days (UTC, today included)."""

    total: int = 0
    today: int = 0
    week: int = 0
    month: int = 0


@dataclass(slots=True)
class Figures:
    """What a number of cells come to: `counts` of calls of tools by class, `all_counts` of every request, calls included."""

    counts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    all_counts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    bytes_in: int = 0
    bytes_out: int = 0
    digests: list[bytes] = field(default_factory=list)
    durations_us: list[int] = field(default_factory=list)

    def add(self, place: Place, tally: Tally, digest: bytes | None) -> None:
        """Count one more cell."""
        self.all_counts = [mine + its for mine, its in zip(self.all_counts, tally.counts, strict=True)]
        if place.kind != CALL:
            return
        self.counts = [mine + its for mine, its in zip(self.counts, tally.counts, strict=True)]
        self.bytes_in += tally.bytes_in
        self.bytes_out += tally.bytes_out
        self.durations_us += tally.durations_us
        if digest is not None:
            self.digests.append(digest)

    @property
    def calls(self) -> int:
        """Of tools, whatever came of them."""
        return sum(self.counts)

    @property
    def requests(self) -> int:
        """Of any kind."""
        return sum(self.all_counts)

    @property
    def errors(self) -> int:
        """Calls without a result, or with the tool's own error."""
        return self.calls - self.counts[OK]

    def percentiles_ms(self, percents: Iterable[int] = PERCENTS) -> list[float | None]:
        """Of the calls that were answered; None without any."""
        found = percentiles(self.digests, self.durations_us, percents)
        return [None if value is None else value / 1000 for value in found]


@dataclass(frozen=True, slots=True)
class Usage:
    """The cells of a span, in order of their places. `as_of`: everything up to then is in it (None: everything there is)."""

    cells: Sequence[tuple[Place, Tally, bytes | None]]
    as_of: float | None

    def figures(self) -> Figures:
        """All together."""
        return self.by(lambda _place: "").get("", Figures())

    def server_ids(self) -> set[str]:
        """Every server that was asked something."""
        return {place.server_id for place, _, _ in self.cells} - {""}

    def by(self, group: Callable[[Place], Any]) -> dict[Any, Figures]:
        """The figures of each group, in order of their first cells; what `group` gives None for is left out."""
        found: dict[Any, Figures] = {}
        for place, tally, digest in self.cells:
            name = group(place)
            if name is not None:
                found.setdefault(name, Figures()).add(place, tally, digest)
        return found


def span_of(period: Period, now: float, grain: Grain | None = None) -> Span:
    """The newest hour in minutes, day in hours, 7 or 30 days (in UTC, today included); in a finer or coarser `grain` if given."""
    if period in _DAYS:
        begin = int(now // GRAIN_S["day"] - _DAYS[period] + 1) * GRAIN_S["day"]
        return _span(begin, now, grain or "day")
    if period == "day":
        return _span(int(now // GRAIN_S["hour"] - 23) * GRAIN_S["hour"], now, grain or "hour")
    return _span(int(now // GRAIN_S["minute"] - 59) * GRAIN_S["minute"], now, grain or "minute")


def _span(begin: int, now: float, grain: Grain) -> Span:
    length = GRAIN_S[grain]
    return Span(begin // length * length, (int(now) // length + 1) * length, grain)


async def read_usage(
    connection: AsyncConnection, space_id: str, span: Span, wanted: UsageFilter, *, tail: int = TAIL, times: bool = True
) -> Usage:
    """The cells of a space in a span: those counted, and what the log has beyond them. Without `times` there are no percentiles."""
    cursor, counted = await _steady(connection, space_id, lambda: _read_cells(connection, space_id, span, wanted, times=times))
    newest = (await connection.execute(select(space.c.seq).where(space.c.id == space_id))).scalar() or 0
    until = min(newest, cursor + tail)
    beyond = _beyond(await read_log(connection, space_id, cursor, until), span, wanted)
    as_of = None if until == newest else await _time_of(connection, space_id, until)
    return Usage([*counted, *((place, tally, None) for place, tally in beyond.items())], as_of)


async def count_requests(connection: AsyncConnection, who: Caller, key_ids: Sequence[str], now: float) -> dict[str, KeyRequests]:
    """What keys of the caller's space asked for, as far as the caller may see it."""
    today = int(now // GRAIN_S["day"]) * GRAIN_S["day"]
    begins = (0, today, *(today - (days - 1) * GRAIN_S["day"] for days in _DAYS.values()))
    everything = sum((usage_cell.c[name] for name in CLASSES[1:]), usage_cell.c.ok)
    sums = [func.coalesce(func.sum(case((usage_cell.c.start >= begin, everything), else_=0)), 0) for begin in begins]
    of_keys = (usage_cell.c.space_id == who.space_id, usage_cell.c.grain == "day", usage_cell.c.key_id.in_(key_ids))
    query = select(usage_cell.c.key_id, *sums).where(*of_keys, *UsageFilter(who).conditions()).group_by(usage_cell.c.key_id)

    async def read() -> dict[str, list[int]]:
        return {row[0]: [int(number) for number in row[1:]] for row in await connection.execute(query)}

    cursor, found = await _steady(connection, who.space_id, read)
    rows = await read_log(connection, who.space_id, cursor, cursor + TAIL)
    for place, tally in fold(rows).items():
        if place.key_id in key_ids and UsageFilter(who).accepts(place):
            so_far = found.get(place.key_id, [0] * len(begins))
            found[place.key_id] = [n + sum(tally.counts) * (place.start >= begin) for n, begin in zip(so_far, begins, strict=True)]
    return {key_id: KeyRequests(*found.get(key_id, (0, 0, 0, 0))) for key_id in key_ids}


async def _steady(connection: AsyncConnection, space_id: str, read: Callable[[], Awaitable[T]]) -> tuple[int, T]:
    """What is read of the cells, and how far they are counted: they change with the cursor alone, and it stood still meanwhile."""
    for _ in range(_TRIES):
        cursor = await read_cursor(connection, space_id)
        found = await read()
        if await read_cursor(connection, space_id) == cursor:
            break
    return cursor, found


def _beyond(rows: Sequence[LogRow], span: Span, wanted: UsageFilter) -> Mapping[Place, Tally]:
    cells = coarser(fold(rows), span.grain)
    return {place: tally for place, tally in cells.items() if span.begin <= place.start < span.end and wanted.accepts(place)}


async def _read_cells(
    connection: AsyncConnection, space_id: str, span: Span, wanted: UsageFilter, *, times: bool
) -> list[tuple[Place, Tally, bytes | None]]:
    digest = usage_cell.c.digest if times else null().label("digest")  # a sketch is larger than all the rest of a cell
    columns = [*(usage_cell.c[name] for name in (*Place._fields, *CLASSES, "bytes_in", "bytes_out")), digest]
    of_span = (
        usage_cell.c.space_id == space_id,
        usage_cell.c.grain == span.grain,
        usage_cell.c.start >= span.begin,
        usage_cell.c.start < span.end,
    )
    found = await connection.execute(select(*columns).where(*of_span, *wanted.conditions()).order_by(usage_cell.c.start))
    width, counts = len(Place._fields), len(CLASSES)
    return [(Place(*row[:width]), Tally([*row[width : width + counts]], row.bytes_in, row.bytes_out), row.digest) for row in found]


async def _time_of(connection: AsyncConnection, space_id: str, seq: int) -> float | None:
    query = select(event.c.at).where(event.c.space_id == space_id, event.c.seq <= seq).order_by(event.c.seq.desc()).limit(1)
    return (await connection.execute(query)).scalar()
