"""Two runs of the suite, compared check by check."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare
from tests.conformance.compare import Check, Difference, Known
from tests.conformance.run import KNOWN, WAYS, Outcome, complaints, table
from tests.conformance.suite import required

STAMP = "2026-11-25T03-05-13-421Z"


def ran(folder: Path, **scenarios: list[tuple[str, str, str]]) -> Path:
    """What a run writes: (id, name, status) of every check of a scenario."""
    for scenario, checks in scenarios.items():
        path = folder / f"server-{scenario.replace('_', '-')}-{STAMP}" / "checks.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps([{"id": id_, "name": name, "status": status} for id_, name, status in checks]))
    return folder


def compared(direct: Path, through: Path) -> list[str]:
    return [str(found) for found in compare.differences("http", compare.read(direct), compare.read(through))]


@pytest.mark.requirement("conformance.check-by-check")
def test_a_check_that_passes_direct_and_is_skipped_through_the_hub_is_a_difference(tmp_path: Path) -> None:
    direct = ran(tmp_path / "a", caching=[("ttl", "Ttl", "SUCCESS"), ("scope", "Scope", "SUCCESS")])
    through = ran(tmp_path / "b", caching=[("ttl", "Ttl", "SUCCESS"), ("scope", "Scope", "SKIPPED")])
    assert compared(direct, through) == ["http: caching / scope (Scope): SUCCESS -> SKIPPED"]
    assert compared(direct, direct) == []


def test_a_check_that_is_gone_or_new_is_a_difference(tmp_path: Path) -> None:
    direct = ran(tmp_path / "a", tools_list=[("order", "Order", "SUCCESS")])
    through = ran(tmp_path / "b", tools_list=[("list", "List", "FAILURE")])
    assert compared(direct, through) == [
        "http: tools-list / list (List): absent -> FAILURE",
        "http: tools-list / order (Order): SUCCESS -> absent",
    ]


def test_the_cases_of_one_id_are_told_apart_and_repeats_are_counted(tmp_path: Path) -> None:
    cases = [("reject", "Missing", "SUCCESS"), ("reject", "Wrong", "SUCCESS"), ("meta", "Meta", "SUCCESS"), ("meta", "Meta", "FAILURE")]
    direct = ran(tmp_path / "a", headers=cases)
    swapped = ran(tmp_path / "b", headers=[cases[3], cases[2], cases[1], cases[0]])
    fewer = ran(tmp_path / "c", headers=[cases[0], ("reject", "Wrong", "FAILURE"), cases[2]])
    assert compared(direct, swapped) == []
    assert compared(direct, fewer) == [
        "http: headers / meta (Meta): FAILURE SUCCESS -> SUCCESS",
        "http: headers / reject (Wrong): SUCCESS -> FAILURE",
    ]


def test_the_record_of_the_wire_is_no_check_unless_it_failed(tmp_path: Path) -> None:
    event = ("incoming-sse-event", "IncomingSseEvent", "INFO")
    direct = ran(tmp_path / "a", polling=[event, event])
    through = ran(tmp_path / "b", polling=[event])
    failed = ran(tmp_path / "c", polling=[("incoming-sse-event", "IncomingSseEvent", "FAILURE")])
    assert compared(direct, through) == []
    assert compared(direct, failed) == ["http: polling / incoming-sse-event (IncomingSseEvent): absent -> FAILURE"]


def test_scenarios_of_clients_may_have_a_slash_in_their_name(tmp_path: Path) -> None:
    path = tmp_path / f"auth/basic-{STAMP}" / "checks.json"
    path.parent.mkdir(parents=True)
    path.write_text('[{"id": "a", "name": "A", "status": "SUCCESS"}]')
    assert compare.read(tmp_path) == {Check("auth/basic", "a", "A"): "SUCCESS"}


def test_a_scenario_passes_when_it_ran_and_nothing_failed(tmp_path: Path) -> None:
    good, warned, bad = ("a", "A", "SUCCESS"), ("b", "B", "WARNING"), ("c", "C", "FAILURE")
    results = compare.read(ran(tmp_path, one=[good], two=[good, warned], three=[good, bad]))
    assert compare.passed(results, ["one", "two", "three", "never-ran"]) == 2


LOST = Difference("http-2026", Check("caching", "ttl", "Ttl"), "SUCCESS", "FAILURE")


def known(**more: Any) -> Known:
    return Known(**{"ways": ("http-2026",), "scenario": "caching", "check": "ttl", "reason": "It cannot be otherwise", **more})


@pytest.mark.parametrize(
    ("more", "covered"),
    [
        ({}, True),
        ({"name": "Ttl", "through": "FAILURE"}, True),
        ({"through": "SKIPPED"}, False),
        ({"name": "Other"}, False),
        ({"ways": ("http-2025",)}, False),
        ({"scenario": "tools-list"}, False),
        ({"check": "scope"}, False),
    ],
)
def test_a_known_difference_is_known_only_where_and_as_it_is_listed(more: dict[str, Any], covered: bool) -> None:
    assert compare.unknown([LOST], [known(**more)]) == ([] if covered else [LOST])


@pytest.mark.requirement("conformance.check-by-check")
def test_a_listed_difference_that_is_gone_is_reported_if_its_way_ran() -> None:
    both = known(ways=("http-2026", "stdio-2026"))
    assert compare.stale([LOST], [both], ["http-2026"]) == []
    assert compare.stale([LOST], [both], ["http-2026", "stdio-2026"]) == ["stdio-2026: caching / ttl no longer differs"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('ways = ["a"]\nscenario = "b"\ncheck = "c"\nreason = " "', "no reason"),
        ('ways = ["a"]\nscenario = "b"\ncheck = "c"', "reason"),
        ('scenario = "b"\ncheck = "c"\nreason = "d"', "ways"),
        ('ways = ["a"]\nscenario = "b"\ncheck = "c"\nreason = "d"\nchecks = 1', "checks"),
    ],
)
def test_an_entry_needs_all_its_fields_and_no_other(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(f"[[known]]\n{text}\n")
    with pytest.raises(ValueError, match=complaint):
        compare.read_known(path)


def test_the_committed_list_is_well_formed_and_names_ways_that_exist() -> None:
    assert {way for one in compare.read_known(KNOWN) for way in one.ways} <= {way.name for way in WAYS}


def test_the_table_and_the_complaints_of_a_run() -> None:
    check = Check("caching", "not-listed-anywhere", "Ttl")
    outcome = Outcome(WAYS[0], ["caching"], {check: "SUCCESS"}, {check: "FAILURE"}, 4.2)
    assert table([outcome]).splitlines()[1].split() == ["http-2026", "2026-07-28", "1/1", "0/1", "1", "1", "1", "4"]
    assert complaints([outcome])[0] == "http-2026: caching / not-listed-anywhere (Ttl): SUCCESS -> FAILURE"


def test_a_fixture_that_fails_by_itself_is_complained_about() -> None:
    failing = {Check("caching", "not-listed-anywhere", "Ttl"): "FAILURE"}
    assert "http-2026: the fixture itself passes 0 of 1" in complaints([Outcome(WAYS[0], ["caching"], failing, failing, 1)])


def test_what_is_required_is_read_from_the_suites_own_list() -> None:
    text = "# server:\nserver:\n  - ping\n  - tools-list\n\nclient:\n  # none but\n  - auth/basic\nnot_scored:\n  - scenario: x\n"
    assert required(text, "server") == ["ping", "tools-list"]
    assert required(text, "client") == ["auth/basic"]
