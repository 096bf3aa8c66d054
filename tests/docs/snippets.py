"""Reading the fenced blocks of a page: what is run, and what the page says that comes out."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.cases import differences

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN = ("sh", "python", "js")
SHOWN = ("json", "text")


@dataclass(frozen=True)
class Snippet:
    """A block to run, and the block right after it if that shows what comes out."""

    language: str
    code: str
    shown: str | None = None
    shown_as: str = "text"


def blocks(page: str) -> list[tuple[str, str, int, int]]:
    """(language, text, start, end) of every fenced block."""
    return [(found[1], found[2], found.start(), found.end()) for found in _BLOCK.finditer(page)]


def snippets(page: str) -> list[Snippet]:
    """What a page has to run, in order."""
    found, all_ = [], blocks(page)
    for number, (language, code, _, end) in enumerate(all_):
        after = all_[number + 1] if number + 1 < len(all_) else ("", "", -1, -1)
        if language in RUN:
            follows = after[0] in SHOWN and page[end : after[2]].strip() == ""
            found.append(Snippet(language, code, after[1] if follows else None, after[0] if follows else "text"))
    return found


def complaints(snippet: Snippet, output: str) -> list[str]:
    """Where the output is not as shown. `…` stands for anything; objects and lists may hold more than is shown."""
    if snippet.shown is None:
        return []
    if snippet.shown_as == "json":
        return differences(_loose(json.loads(snippet.shown)), json.loads(output), "shown")
    pattern = ".*".join(re.escape(part) for part in snippet.shown.strip().split("…"))
    return [] if re.search(pattern, output, re.DOTALL) else [f"{snippet.shown!r} is not in {output!r}"]


def _loose(shown: Any) -> Any:
    if isinstance(shown, dict):
        return {name: _loose(value) for name, value in shown.items()}
    if isinstance(shown, list):
        return {"$has": _loose(shown[0])} if len(shown) == 1 else [_loose(item) for item in shown]
    if shown == "…":
        return {"$any": "string|number|boolean"}
    if isinstance(shown, str) and "…" in shown:
        return {"$match": "^" + ".*".join(re.escape(part) for part in shown.split("…")) + "$"}
    return shown
