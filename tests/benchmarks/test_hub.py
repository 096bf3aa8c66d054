"""What the benchmark concludes from what it measured."""

import pytest

from benchmarks.hub import CPU, DIRECT_US, ERRORS, MCP_BODY, MEMORY, RATIO, READY, Hub, Sample, Scenario, judge, slowness_of
from benchmarks.loadgen import Report


def way(name: str, *rounds: tuple[float, float, float], errors: int = 0) -> Scenario:
    """`rounds`: (calls a second, p50 in us, CPU us a call)."""
    found = Scenario(name, "http://127.0.0.1/mcp", MCP_BODY, handshake=True)
    for samples in found.samples.values():
        for calls_per_s, p50_us, cpu_us in rounds:
            report = Report(calls=1, calls_per_s=calls_per_s, p50_us=p50_us, errors=errors)
            samples.append(Sample(report, cpu_us, foreign=0))
    return found


def test_ratio_and_added_time_are_against_direct_in_the_median_and_in_the_best_round() -> None:
    hub = Hub(process=None, url="", key="", ready_s=1.2, idle_mb=90)  # type: ignore[arg-type]
    direct = way("direct", (80_000, 100, 10), (40_000, 150, 12), (80_000, 100, 10))
    verdicts = judge(hub, direct, [way("http rest", (16_000, 300, 60), (20_000, 250, 55), (4_000, 900, 200), errors=1)])
    assert [round(found.median, 6) for found in verdicts] == [0.2, 60, 200, 6, 1.2, 90]
    assert [round(found.best, 6) for found in verdicts] == [0.25, 55, 150, 6, 1.2, 90]


def test_a_slower_machine_is_known_by_what_direct_takes() -> None:
    assert slowness_of(way("direct", (80_000, 100, 2 * DIRECT_US), (80_000, 100, 3 * DIRECT_US))) == 2
    assert slowness_of(way("direct", (80_000, 100, DIRECT_US / 2))) == 1


@pytest.mark.parametrize(
    ("target", "measured", "slowness", "met", "half_met"),
    [
        (RATIO, 0.15, 1, True, True),
        (RATIO, 0.08, 1, False, True),
        (RATIO, 0.07, 2, False, False),
        (READY, 1.5, 1, True, True),
        (READY, 2.9, 1, False, True),
        (READY, 3.1, 1, False, False),
        (CPU, 290, 2, False, True),
        (CPU, 310, 2, False, False),
        (MEMORY, 221, 2, False, False),
        (ERRORS, 0, 1, True, True),
        (ERRORS, 1, 1, False, False),
    ],
)
def test_ci_fails_only_below_half_of_a_figure_and_with_any_error(target, measured, slowness, met, half_met) -> None:
    assert (target.met(measured), target.half_met(measured, slowness)) == (met, half_met)
