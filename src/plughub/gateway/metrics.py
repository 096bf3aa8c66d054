"""What the hub holds just now, for /metrics: bounded things and how full they are."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plughub.gateway.hub import Hub


class HubState(Collector):
    """Read when asked; nothing is counted on the way of a call."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        pool, writer = self._hub.pool.snapshot(), self._hub.writer
        gauges = {
            "servers_live": ("Servers with a live connection", pool.live),
            "children": ("STDIO processes", len(pool.children)),
            "upstream_connections": ("HTTP connections to servers", pool.http_connections),
            "calls_in_flight": ("Requests waiting for a server", pool.in_flight),
            "connections_of_clients": ("Connections made for clients that servers may ask something", pool.lent),
            "requests_parked": ("Requests waiting for their client's input", len(self._hub.parking)),
            "limits_alone": ("1 while Redis is lost and this process keeps to its part of the limits", int(self._hub.limits.alone)),
            "events_waiting": ("Tool events not yet on the disk", writer.waiting),
            "events_lag_seconds": ("Age of the oldest tool event that waits for the disk", writer.lag_s),
            "key_uses_waiting": ("Secrets of keys whose last use is not yet on the disk", self._hub.uses.waiting),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"plughub_{name}", text, value)
        counters = {
            "events_written": ("Tool events on the disk", writer.written),
            "event_write_failures": ("Attempts to write tool events that failed and were repeated", writer.failures),
            "events_refused": ("Tool events that the database refused", writer.refused),
            "requests_not_logged": ("Requests without a row in the log because too many rows were waiting", writer.left_out),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"plughub_{name}", text, value)
