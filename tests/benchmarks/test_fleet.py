"""What the benchmark of many servers concludes from what it measured."""

import pytest

from benchmarks.fleet import APART, LISTS, MEMORY, is_bad, percentile, table, times_of


def test_work_is_timed_as_often_as_asked_and_the_times_are_in_order() -> None:
    done: list[int] = []
    found = times_of(lambda: done.append(len(done)), 5)
    assert done == [0, 1, 2, 3, 4]
    assert len(found) == 5 and found == sorted(found) and found[0] >= 0


@pytest.mark.parametrize(("share", "wanted"), [(0, 1), (0.5, 51), (0.95, 96), (0.99, 100), (1, 100)])
def test_a_percentile_is_one_of_the_values(share: float, wanted: int) -> None:
    assert percentile([float(value) for value in range(1, 101)], share) == wanted
    assert percentile([7.0], share) == 7


@pytest.mark.parametrize(
    ("target", "measured", "met", "bad"),
    [
        (LISTS, 20, True, False),
        (LISTS, 40, False, False),
        (LISTS, 40.1, False, True),
        (MEMORY, -1, True, False),
        (MEMORY, 30.1, False, True),
        (APART, 1.2, True, False),
        (APART, 2.4, False, False),
        (APART, 2.5, False, True),
    ],
)
def test_only_what_is_worse_than_twice_its_target_fails(target, measured, met, bad) -> None:
    assert (target.met(measured), is_bad(target, measured)) == (met, bad)


def test_the_table_tells_each_figure_beside_its_target() -> None:
    lines = table([("sqlite /x", LISTS, 12.345), ("idle", MEMORY, 16), ("restart", APART, 3)]).splitlines()[2:]
    assert lines == [
        "| sqlite /x | p95 of a list of 1,000 servers | 12.35 ms | ≤ 20 ms | ok |",
        "| idle | the hub's own memory for 200 idle STDIO servers | 16 MB | ≤ 15 MB | missed |",
        "| restart | p99 of calls beside restarts, as a multiple | 3  | ≤ 1.2  | WORSE THAN TWICE |",
    ]
