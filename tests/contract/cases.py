"""The cases of `contract/cases/`: reading and writing the files, and holding an answer against what a case wants.

contract/cases/README.md says how a case is written: who asks, what the names in braces stand for, the matchers.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "contract" / "cases"
Json = dict[str, Any]
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ANY = {
    "string": lambda value: isinstance(value, str),
    "text": lambda value: isinstance(value, str) and value != "",
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_FORMS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "mcp_id": r"mcp_[0-9A-Za-z]{22}",
    "key_id": r"key_[0-9A-Za-z]{22}",
    "org_id": r"org_[0-9A-Za-z]{22}",
    "request_id": r"req_[0-9A-Za-z]{22}",
    "api_key": r"(pk|sk)_(live|test)_ph_[0-9A-Za-z]{38}",
    "user_id": r"user_[0-9A-Za-z]{22}",
    "digits": r"\d+",
}


@dataclass(frozen=True)
class Case:
    """One request and its answer; `id` says where it stands."""

    id: str
    who: str
    request: Json
    answer: Json


def load(folder: Path = CASES) -> list[Case]:
    """Every case of every file below the folder."""
    return [
        Case(f"{path.relative_to(folder).with_suffix('')}: {entry['name']}", entry["as"], entry["request"], entry["answer"])
        for path in sorted(folder.rglob("*.json"))
        for entry in json.loads(path.read_text())
    ]


def render(entries: list[Json]) -> str:
    """A file of cases, three lines a case."""
    lines = [
        f' {{"name": {_line(e["name"])}, "as": {_line(e["as"])},\n  "request": {_line(e["request"])},\n  "answer": {_line(e["answer"])}}}'
        for e in entries
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def placeholders(value: Any) -> set[str]:
    """The names in braces that a case uses."""
    return set(PLACEHOLDER.findall(json.dumps(value)))


def filled(value: Any, things: dict[str, str]) -> Any:
    """The value with the known names in braces replaced, in keys too."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: things.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {filled(key, things): filled(item, things) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, things) for item in value]
    return value


def differences(wanted: Any, found: Any, place: str = "body") -> list[str]:
    """Where `found` is not what the case wants, each as a line; objects may hold more than is wanted."""
    if isinstance(wanted, dict) and len(wanted) == 1 and next(iter(wanted)).startswith("$"):
        [(matcher, argument)] = wanted.items()
        return _MATCHERS[matcher](argument, found, place)
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [f"{place}: an object is wanted, not {found!r}"]
        missing = [f"{place}.{name}: missing" for name in wanted if name not in found]
        return missing + [line for name in wanted if name in found for line in differences(wanted[name], found[name], f"{place}.{name}")]
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return [f"{place}: {len(wanted)} items are wanted, not {found!r}"]
        return [line for n, (one, other) in enumerate(zip(wanted, found, strict=True)) for line in differences(one, other, f"{place}[{n}]")]
    same = type(wanted) is type(found) and wanted == found
    return [] if same else [f"{place}: {wanted!r} is wanted, not {found!r}"]


def _any(kinds: str, found: Any, place: str) -> list[str]:
    for kind in kinds.split("|"):
        if kind in _ANY and _ANY[kind](found):
            return []
        if kind in _FORMS and isinstance(found, str) and re.fullmatch(_FORMS[kind], found):
            return []
    return [f"{place}: any {kinds} is wanted, not {found!r}"]


def _each(wanted: Any, found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or not found:
        return [f"{place}: a list with items is wanted, not {found!r}"]
    return [line for n, item in enumerate(found) for line in differences(wanted, item, f"{place}[{n}]")]


def _has(wanted: Any, found: Any, place: str) -> list[str]:
    if not isinstance(found, list):
        return [f"{place}: a list is wanted, not {found!r}"]
    return [] if any(not differences(wanted, item) for item in found) else [f"{place}: no item is {wanted!r} in {found!r}"]


def _match(wanted: str, found: Any, place: str) -> list[str]:
    same = isinstance(found, str) and re.search(wanted, found) is not None
    return [] if same else [f"{place}: a text like {wanted!r} is wanted, not {found!r}"]


def _only(wanted: Json, found: Any, place: str) -> list[str]:
    more = [f"{place}.{name}: not wanted" for name in found if name not in wanted] if isinstance(found, dict) else []
    return more + differences(wanted, found, place)


_MATCHERS = {"$any": _any, "$each": _each, "$has": _has, "$match": _match, "$only": _only}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
