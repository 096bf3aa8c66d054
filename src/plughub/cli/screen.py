"""What a command prints: results on stdout, everything else on stderr."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A server's texts are a stranger's: on a terminal they must not move the cursor or rename the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDE = 100_000
_CELL = 80
_STYLES = {"connected": "green", "active": "green", "error": "red", "revoked": "red", "quarantined": "red", "disabled": "dim"}


class Screen:
    """stdout and stderr of one command. With `as_json` stdout gets one JSON value and nothing else."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()

    def json(self, value: Any) -> None:
        """One JSON value."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def json_line(self, value: Any) -> None:
        """One JSON value of many, on a line of its own."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Text as it is; on a terminal without control characters."""
        sys.stdout.write((clean(text) if self.is_terminal else text) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A word beside the result."""
        sys.stderr.write(clean(text) + "\n")
        sys.stderr.flush()

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Columns; into a pipe nothing is cut off."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*heads, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            cells = [_cell(value, cut=self.is_terminal) for value in row]
            table.add_row(*[Text(cell, style=_STYLES.get(cell, "")) for cell in cells])
        Console(width=None if self.is_terminal else _WIDE, highlight=False, markup=False, soft_wrap=not self.is_terminal).print(table)

    def fields(self, value: Mapping[str, Any]) -> None:
        """Whatever came back, a member a line; inner objects are indented."""
        for line in _lines(value, ""):
            self.text(line)


def clean(text: str) -> str:
    """`text` without what would steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _cell(value: Any, *, cut: bool) -> str:
    text = "-" if value in (None, "") else clean(str(value)).replace("\n", " ")
    return text[: _CELL - 1] + "…" if cut and len(text) > _CELL else text


def _lines(value: Mapping[str, Any], indent: str) -> Iterable[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield f"{indent}{name}:"
            yield from _lines(inner, indent + "  ")
        elif isinstance(inner, str):
            yield f"{indent}{name}: {inner}"
        else:
            yield f"{indent}{name}: {json.dumps(inner, ensure_ascii=False)}"
