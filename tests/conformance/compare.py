"""What the suite found, check by check, and where two runs differ.

A scenario that passes says little: an empty list passes most of them, and a check that was skipped counts as green.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ABSENT = "absent"
# Not verdicts but a record of what went over the wire; how many there are depends on the timing.
TRACE = {
    "incoming-request",
    "outgoing-response",
    "outgoing-request",
    "incoming-response",
    "incoming-sse-event",
    "outgoing-sse-event",
    "outgoing-stream-close",
    "stream-closed",
}
FOLDER = re.compile(r"(?:server-)?(?P<scenario>.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z")
Json = dict[str, Any]


class Check(NamedTuple):
    """A check is known by its id, but one id may stand for several cases, each with its name."""

    scenario: str
    id: str
    name: str


Results = dict[Check, str]


class Difference(NamedTuple):
    """`direct` and `through`: the statuses of all runs of the check, sorted, or "absent"."""

    way: str
    check: Check
    direct: str
    through: str

    def __str__(self) -> str:
        return f"{self.way}: {self.check.scenario} / {self.check.id} ({self.check.name}): {self.direct} -> {self.through}"


def read(folder: Path) -> Results:
    """Everything that a run wrote below `folder`. A failed check of the wire's record counts too."""
    found: dict[Check, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("checks.json")):
        match = FOLDER.fullmatch(str(path.parent.relative_to(folder)))
        assert match, f"a folder of no scenario: {path.parent}"
        for check in _written(path):
            if check["id"] not in TRACE or check["status"] == "FAILURE":
                found[Check(match["scenario"], check["id"], check["name"])].append(check["status"])
    return {check: " ".join(sorted(statuses)) for check, statuses in found.items()}


def _written(path: Path) -> list[Json]:
    try:
        checks: list[Json] = json.loads(path.read_text())
    except ValueError:
        return []  # The run was cut while it wrote.
    return checks


def differences(way: str, direct: Results, through: Results) -> list[Difference]:
    """Where the two are not equal, gains included."""
    found = []
    for check in sorted(direct.keys() | through.keys()):
        before, after = direct.get(check, ABSENT), through.get(check, ABSENT)
        if before != after:
            found.append(Difference(way, check, before, after))
    return found


def passed(results: Results, scenarios: Iterable[str]) -> int:
    """How many of the scenarios ran without a failure, as the suite counts."""
    failed = {check.scenario for check, statuses in results.items() if "FAILURE" in statuses}
    ran = {check.scenario for check in results}
    return len((ran & set(scenarios)) - failed)


@dataclass(frozen=True)
class Known:
    """A difference that is there for a reason. `name` and `through` narrow it where given."""

    ways: tuple[str, ...]
    scenario: str
    check: str
    reason: str
    name: str = ""
    through: str = ""

    def covers(self, found: Difference) -> bool:
        """Whether this is it."""
        return (
            found.way in self.ways
            and (self.scenario, self.check) == (found.check.scenario, found.check.id)
            and self.name in ("", found.check.name)
            and self.through in ("", found.through)
        )


def read_known(path: Path) -> list[Known]:
    """The committed list. Raises ValueError for an entry without a reason or with a field too many."""
    entries: list[Json] = tomllib.loads(path.read_text()).get("known", [])
    known = []
    for entry in entries:
        try:
            one = Known(**{**entry, "ways": tuple(entry["ways"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path.name}: {entry}: {error}") from None
        if not one.reason.strip():
            raise ValueError(f"{path.name}: {entry}: no reason")
        known.append(one)
    return known


def unknown(found: Iterable[Difference], known: Iterable[Known]) -> list[Difference]:
    """The differences that nobody has accounted for."""
    listed = list(known)
    return [difference for difference in found if not any(one.covers(difference) for one in listed)]


def stale(found: Iterable[Difference], known: Iterable[Known], ways: Iterable[str]) -> list[str]:
    """Entries, by way, of ways that ran and did not differ so."""
    seen, ran = list(found), set(ways)
    return [
        f"{way}: {one.scenario} / {one.check} no longer differs"
        for one in known
        for way in one.ways
        if way in ran and not any(one.covers(difference) for difference in seen if difference.way == way)
    ]
