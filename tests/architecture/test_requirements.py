"""Every promise of the manifest has a test, and every test names promises that exist."""

from pathlib import Path

import pytest

from tests.architecture.promises import Promise, judge, marked_ids, read_manifest
from tests.architecture.rules import ROOT, python_files

MANIFEST = ROOT / "tests" / "requirements.toml"
WELL = Promise("a.b", "contract 1", "It works")


def all_marks() -> dict[str, list[str]]:
    """Where each id is named."""
    marks: dict[str, list[str]] = {}
    for path in python_files("tests"):
        if path.name.startswith("test_"):
            for line, id_ in marked_ids((ROOT / path).read_text()):
                marks.setdefault(id_, []).append(f"{path}:{line}")
    return marks


def test_the_manifest_is_well_formed() -> None:
    promises, found = read_manifest(MANIFEST.read_text())
    assert found == []
    assert promises


@pytest.mark.requirement("house.manifest")
def test_every_promise_has_a_test_and_every_test_a_known_promise() -> None:
    promises, _ = read_manifest(MANIFEST.read_text())
    found = judge(promises, all_marks(), ROOT)
    assert not found, "\n" + "\n".join(found)


def test_a_promise_without_a_test_is_caught() -> None:
    assert judge({"a.b": WELL}, {}, ROOT) == ["a.b: no test shows that: It works"]
    assert judge({"a.b": WELL}, {"a.b": ["tests/test_x.py:1"]}, ROOT) == []


def test_an_unknown_id_is_caught() -> None:
    assert judge({}, {"a.c": ["tests/test_x.py:3"]}, ROOT) == ["tests/test_x.py:3: unknown id a.c"]


def test_a_planned_promise_needs_no_test_and_may_have_none() -> None:
    planned = {"a.b": Promise("a.b", "contract 1", "It will", planned=True)}
    assert judge(planned, {}, ROOT) == []
    assert judge(planned, {"a.b": ["tests/test_x.py:1"]}, ROOT) == ["tests/test_x.py:1: a.b is tested, so it is no longer planned"]


def test_a_promise_shown_elsewhere_names_a_file_that_exists(tmp_path: Path) -> None:
    shown = {"a.b": Promise("a.b", "contract 1", "It runs", shown_by="bench.py")}
    assert judge(shown, {}, tmp_path) == ["a.b: there is no bench.py"]
    (tmp_path / "bench.py").touch()
    assert judge(shown, {}, tmp_path) == []


def test_a_malformed_entry_is_caught() -> None:
    good = 'source = "x", behavior = "y"'
    text = f'[a]\nb = {{ source = "x" }}\nc = {{ {good}, when = 1 }}\nd = {{ {good}, planned = true, shown_by = "z" }}\n'
    assert read_manifest(text) == ({}, ["a.b: needs a source and a behavior", "a.c: unknown field when", "a.d: either planned or shown"])


def test_marks_are_read_from_decorators_modules_and_parameters() -> None:
    text = """
import pytest
pytestmark = [pytest.mark.anyio, pytest.mark.requirement("a.b")]
@pytest.mark.requirement("a.c", "a.d")
def test_x(): ...
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.requirement("a.e"))])
@pytest.mark.requirement(NAME)
def test_y(n): ...
"""
    assert sorted(id_ for _, id_ in marked_ids(text)) == ["?", "a.b", "a.c", "a.d", "a.e"]
