"""Counts and times per route, kept as plain numbers: a labelled metric costs more than the rest of the bookkeeping together."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from plughub.door.routes import Route

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_NO_ROUTE = ("-", "-")


class _Row:
    __slots__ = ("buckets", "classes", "seconds")

    def __init__(self) -> None:
        self.classes = [0] * 6
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0


class DoorStats(Collector):
    """One row of numbers a route; as many as there are routes, so bounded."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._by_route: dict[int, _Row] = {}

    def record(self, route: Route | None, status: int, seconds: float) -> None:
        """Count one answer."""
        row = self._by_route.get(id(route))
        if row is None:
            key = (route.method, route.path) if route is not None else _NO_ROUTE
            row = self._by_route[id(route)] = self._rows.setdefault(key, _Row())
        row.classes[status // 100 if status < 600 else 0] += 1
        row.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        row.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        requests = CounterMetricFamily("plughub_http_requests", "Answers by route and status class", labels=("method", "route", "status"))
        times = HistogramMetricFamily("plughub_http_request_seconds", "Time to the last byte", labels=("method", "route"))
        for (method, path), row in self._rows.items():
            for number, count in enumerate(row.classes):
                if count:
                    requests.add_metric((method, path, f"{number}xx"), count)
            total, buckets = 0, []
            for bound, count in zip((*BUCKETS_S, float("inf")), row.buckets, strict=True):
                total += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
            times.add_metric((method, path), buckets, row.seconds)
        yield requests
        yield times
