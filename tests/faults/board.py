"""The scoreboard: what is measured against what must hold, printed as it is found."""

import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Board:
    """Figures of one experiment."""

    title: str
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.say(f"\n{self.title}")

    def at_most(self, what: str, measured: float, limit: float, unit: str = "") -> None:
        """A figure that must not be exceeded."""
        self._row(what, f"{measured:,.4g}{unit}", f"at most {limit:,.4g}{unit}", good=measured <= limit)

    def none(self, what: str, found: list[Any]) -> None:
        """A list that must be empty; the first three entries are shown when it is not."""
        self._row(what, str(len(found)), "0", good=not found)
        for entry in found[:3]:
            self.say(f"      {str(entry)[:300]}")

    def note(self, what: str, measured: str) -> None:
        """A figure that is only told."""
        self.say(f"  ..  {what}: {measured}")

    def _row(self, what: str, measured: str, wanted: str, *, good: bool) -> None:
        self.say(f"  {'ok' if good else 'NO'}  {what}: {measured} ({wanted})")
        if not good:
            self.failed.append(f"{self.title}: {what}: {measured} ({wanted})")

    def say(self, line: str) -> None:
        """A line at once, so that a run that hangs has told how far it came."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not below `share` of all; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
