"""Cells of usage: rows of the log folded by minute, key, server and tool. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from plughub.events.catalogue import REQUEST_COMPLETED, REQUESTS

Grain = Literal["minute", "hour", "day"]
GRAIN_S: Final[Mapping[Grain, int]] = {"minute": 60, "hour": 3_600, "day": 86_400}
CALL: Final = "call"
REQUEST: Final = "request"
# How a request ended. `tool_error`: a result that is an error; `refused`: by the hub, for a reason of the caller's; `limited`: 429;
# `upstream_error`: an error, or no answer, of the server; `hub_error`: the hub could not.
CLASSES: Final = ("ok", "tool_error", "refused", "limited", "upstream_error", "timeout", "cancelled", "hub_error")
OK, TOOL_ERROR = 0, 1
_REFUSED = CLASSES.index("refused")
_OF_OUTCOME: Final[Mapping[str, int]] = {
    "ok": OK,
    "RATE_LIMITED": CLASSES.index("limited"),
    "UPSTREAM_ERROR": CLASSES.index("upstream_error"),
    "UPSTREAM_TIMEOUT": CLASSES.index("timeout"),
    "CANCELLED": CLASSES.index("cancelled"),
    "CLIENT_GONE": CLASSES.index("cancelled"),
    "UNAVAILABLE": CLASSES.index("hub_error"),
    "SERVER_ERROR": CLASSES.index("hub_error"),
}
_NAMES = frozenset(REQUESTS)


class LogRow(NamedTuple):
    """What is read of a row of the log, in this order."""

    name: str
    at: float
    server_id: str | None
    key_id: str | None
    tool: str | None
    outcome: str | None
    is_error: bool | None
    duration_us: int | None
    data: str


class Place(NamedTuple):
    """What a cell counts: '' = none. `start` is in epoch seconds, of a grain that is known beside it."""

    start: int
    kind: str
    key_id: str
    server_id: str
    tool: str


@dataclass(slots=True)
class Tally:
    """Counts by class, bytes of arguments and results where they are known, and the times (us) of calls that were answered."""

    counts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    bytes_in: int = 0
    bytes_out: int = 0
    durations_us: list[int] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count what the other counts, too."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.durations_us += other.durations_us


class _Sizes(msgspec.Struct):
    bytes_in: int = msgspec.field(default=0, name="in")
    bytes_out: int = msgspec.field(default=0, name="out")


_sizes = msgspec.json.Decoder(_Sizes)


def class_of(outcome: str | None, *, is_error: bool) -> int:
    """The index of the class that an outcome belongs to."""
    found = _OF_OUTCOME.get(outcome or "", _REFUSED)
    return TOOL_ERROR if found == OK and is_error else found


def fold(rows: Iterable[LogRow]) -> dict[Place, Tally]:
    """Minute cells of rows of the log; what is no request counts nothing."""
    cells: dict[Place, Tally] = {}
    for row in rows:
        if row.name not in _NAMES:
            continue
        is_call = row.name != REQUEST_COMPLETED
        minute = int(row.at) // 60 * 60
        place = Place(minute, CALL if is_call else REQUEST, row.key_id or "", row.server_id or "", (row.tool or "") if is_call else "")
        tally = cells.get(place)
        if tally is None:
            tally = cells[place] = Tally()
        tally.counts[class_of(row.outcome, is_error=bool(row.is_error))] += 1
        if is_call:
            sizes = _sizes.decode(row.data)
            tally.bytes_in += sizes.bytes_in
            tally.bytes_out += sizes.bytes_out
            if row.outcome == "ok":
                tally.durations_us.append(row.duration_us or 0)
    return cells


def coarser(cells: Mapping[Place, Tally], grain: Grain) -> dict[Place, Tally]:
    """The same by longer pieces of time."""
    length, found = GRAIN_S[grain], dict[Place, Tally]()
    for place, tally in cells.items():
        wide = place._replace(start=place.start // length * length)
        if wide not in found:
            found[wide] = Tally()
        found[wide].add(tally)
    return found


def bounded(cells: Mapping[Place, Tally], known: Iterable[Place], most: int, other: str) -> Iterator[tuple[Place, Tally]]:
    """The cells, with no more than `most` tools of a server and key in one piece of time: further ones are counted as `other`.

    `known` are the cells that are there already. The same place may come twice.
    """
    seen: dict[Place, set[str]] = {}
    for place in known:
        seen.setdefault(place._replace(tool=""), set()).add(place.tool)
    for place, tally in cells.items():
        tools = seen.setdefault(place._replace(tool=""), set())
        if place.tool not in tools and len(tools) >= most:
            place = place._replace(tool=other)
        tools.add(place.tool)
        yield place, tally
