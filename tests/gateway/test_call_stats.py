"""Metrics of servers are asked for, and bounded."""

import pytest

from plughub.gateway.call_stats import CallStats

pytestmark = pytest.mark.requirement("usage.metrics")


def labels(stats: CallStats, name: str) -> dict[tuple[str, ...], float]:
    samples = (sample for family in stats.collect() for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


def test_the_first_servers_have_metrics_of_their_own_and_the_others_share_one() -> None:
    stats = CallStats(2)
    for server, outcome in (("a", "ok"), ("b", "UPSTREAM_TIMEOUT"), ("c", "ok"), ("d", "ok"), ("a", "ok")):
        stats.record("mcp", server, outcome, 0.003, is_error=outcome != "ok")
    assert labels(stats, "plughub_server_calls_total") == {("a", "ok"): 2, ("b", "timeout"): 1, ("other", "ok"): 2}
    assert labels(stats, "plughub_tool_calls_total") == {("mcp", "ok"): 4, ("mcp", "timeout"): 1}
    assert labels(stats, "plughub_tool_call_seconds_bucket")["mcp", "0.005"] == 5


def test_without_the_setting_there_is_no_metric_of_a_server() -> None:
    stats = CallStats()
    stats.record("api", "a", "ok", 0.001, is_error=False)
    assert labels(stats, "plughub_server_calls_total") == {}
