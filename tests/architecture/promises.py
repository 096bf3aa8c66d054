"""The manifest of promises against the marks of the tests; read from the source text, so that nothing has to run."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.rules import dotted

FIELDS = {"source", "behavior", "planned", "shown_by"}
MARKS = ("pytest.mark.requirement", "mark.requirement")


@dataclass(frozen=True)
class Promise:
    """One entry of the manifest."""

    id: str
    source: str
    behavior: str
    planned: bool = False
    shown_by: str = ""


def read_manifest(text: str) -> tuple[dict[str, Promise], list[str]]:
    """The promises by id (`area.id`), and complaints about their form."""
    promises, found = {}, []
    for area, entries in tomllib.loads(text).items():
        for name, entry in entries.items():
            id_ = f"{area}.{name}"
            if unknown := entry.keys() - FIELDS:
                found.append(f"{id_}: unknown field {', '.join(sorted(unknown))}")
            elif not entry.get("source") or not entry.get("behavior"):
                found.append(f"{id_}: needs a source and a behavior")
            elif entry.get("planned") and entry.get("shown_by"):
                found.append(f"{id_}: either planned or shown")
            else:
                promises[id_] = Promise(id_, **entry)
    return promises, found


def marked_ids(text: str) -> list[tuple[int, str]]:
    """(line, id) of every `pytest.mark.requirement(…)` in a test file; an id that is not a literal comes back as `?`."""
    return [
        (argument.lineno, argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else "?")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and dotted(node.func) in MARKS
        for argument in node.args
    ]


def judge(promises: dict[str, Promise], marks: dict[str, list[str]], root: Path) -> list[str]:
    """Complaints. `marks` maps an id to the places (`path:line`) of the tests that name it."""
    found = [f"{places[0]}: unknown id {id_}" for id_, places in sorted(marks.items()) if id_ not in promises]
    for id_, promise in promises.items():
        if promise.planned and id_ in marks:
            found.append(f"{marks[id_][0]}: {id_} is tested, so it is no longer planned")
        elif promise.shown_by and not (root / promise.shown_by).is_file():
            found.append(f"{id_}: there is no {promise.shown_by}")
        elif id_ not in marks and not promise.planned and not promise.shown_by:
            found.append(f"{id_}: no test shows that: {promise.behavior}")
    return found
