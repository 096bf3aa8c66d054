"""Tool calls for /metrics: counts by door and outcome and a histogram of times, as plain numbers; no label for a key or a tool."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from plughub.usage.cells import CLASSES, OK, class_of

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OTHER = "other"


class _Row:
    __slots__ = ("buckets", "classes", "seconds")

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def add(self, outcome: int, seconds: float) -> None:
        self.classes[outcome] += 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class CallStats(Collector):
    """As many rows as there are doors; and of servers the first `most_servers` that are called, with one for the others: 0 = none."""

    def __init__(self, most_servers: int = 0) -> None:
        self._most_servers = most_servers
        self._doors: dict[str, _Row] = {}
        self._servers: dict[str, _Row] = {}

    def record(self, door: str, server_id: str, outcome: str, seconds: float, *, is_error: bool) -> None:
        """Count one call that is over."""
        kind = class_of(outcome, is_error=is_error) if is_error else OK
        row = self._doors.get(door)
        if row is None:
            row = self._doors[door] = _Row()
        row.classes[kind] += 1
        row.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        row.seconds += seconds
        if self._most_servers:
            self._of_server(server_id).add(kind, seconds)

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        yield from _families("plughub_tool_call", "Tool calls", "door", self._doors)
        if self._most_servers:
            yield from _families("plughub_server_call", "Tool calls by server", "server", self._servers)

    def _of_server(self, server_id: str) -> _Row:
        row = self._servers.get(server_id)
        if row is None:
            name = server_id if len(self._servers) < self._most_servers else OTHER
            row = self._servers.setdefault(name, _Row())
        return row


def _families(name: str, text: str, label: str, rows: dict[str, _Row]) -> Iterator[Metric]:
    calls = CounterMetricFamily(f"{name}s", f"{text}, by outcome", labels=(label, "outcome"))
    times = HistogramMetricFamily(f"{name}_seconds", f"{text}: time until they were over", labels=(label,))
    for value, row in rows.items():
        for kind, count in zip(CLASSES, row.classes, strict=True):
            if count:
                calls.add_metric((value, kind), count)
        total, buckets = 0, []
        for bound, count in zip((*BUCKETS_S, float("inf")), row.buckets, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        times.add_metric((value,), buckets, row.seconds)
    yield calls
    yield times
