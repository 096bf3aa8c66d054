"""Random calls in the log, and what they come to, counted by plain Python."""

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from plughub.db.engine import Database
from plughub.db.writer import BatchingWriter, ToolRow
from plughub.settings import Settings

OUTCOMES = (
    ("tool.executed", "ok", False, "ok"),
    ("tool.executed", "ok", False, "ok"),
    ("tool.executed", "ok", True, "tool_error"),
    ("tool.failed", "UPSTREAM_ERROR", True, "upstream_error"),
    ("tool.failed", "UPSTREAM_TIMEOUT", True, "timeout"),
    ("tool.failed", "CANCELLED", True, "cancelled"),
    ("tool.failed", "UNAVAILABLE", True, "hub_error"),
    ("request.completed", "ok", False, "ok"),
    ("request.completed", "RATE_LIMITED", True, "limited"),
    ("request.completed", "FORBIDDEN", True, "refused"),
)


@dataclass(frozen=True)
class Made:
    """One request as the oracle knows it."""

    row: ToolRow
    kind: str
    sizes: tuple[int, int]

    @property
    def is_call(self) -> bool:
        return self.row[1] != "request.completed"


def random_requests(seed: int, space_id: str, begin: float, length_s: float, count: int) -> list[Made]:
    """Requests in order of time, of some keys, servers and tools."""
    dice = random.Random(seed)
    found = []
    for at in sorted(begin + dice.random() * length_s for _ in range(count)):
        name, outcome, is_error, kind = dice.choice(OUTCOMES)
        is_call = name != "request.completed"
        sizes = (dice.randrange(1000), dice.randrange(5000)) if is_call and dice.random() < 0.9 else (0, 0)
        data = f'{{"in":{sizes[0]},"out":{sizes[1]}}}' if sizes != (0, 0) else '{"method":"GET"}'
        server = f"server-{dice.randrange(3)}" if is_call else None
        row = (
            space_id,
            name,
            at,
            server,
            f"key-{dice.randrange(4)}",
            f"tool-{dice.randrange(5)}" if is_call else None,
            f"req_{len(found)}",
            outcome,
            is_error,
            int(dice.lognormvariate(9, 1)),
            "api",
            data,
        )
        found.append(Made(row, kind, sizes))
    return found


async def record(database: Database, settings: Settings, made: Iterable[Made]) -> None:
    """Put them in the log, as the hub does."""
    writer = BatchingWriter(database, settings)
    for one in made:
        writer.record(one.row)
    await writer.aclose()


@dataclass
class Oracle:
    """The figures of some requests."""

    classes: dict[str, int]
    requests: int
    bytes_in: int
    bytes_out: int
    durations_us: list[int]

    def around(self, percent: int) -> tuple[int, int]:
        """The times between which a percentile may be told: of two percent of the ranks to either side, and of one rank."""
        last, far = len(self.durations_us) - 1, len(self.durations_us) * 0.02 + 1
        rank = percent / 100 * last
        return self.durations_us[max(0, math.floor(rank - far))], self.durations_us[min(last, math.ceil(rank + far))]


def count(made: Iterable[Made]) -> Oracle:
    """Count them one by one."""
    everything = list(made)
    calls = [one for one in everything if one.is_call]
    return Oracle(
        dict(Counter(one.kind for one in calls)),
        len(everything),
        sum(one.sizes[0] for one in calls),
        sum(one.sizes[1] for one in calls),
        sorted(one.row[9] for one in calls if one.row[7] == "ok"),
    )
