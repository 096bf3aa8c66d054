"""The shapes of usage and of alerts."""

from typing import Literal

from plughub.api.log_shapes import RequestRow
from plughub.api.models import KeyFlagOut, SeenAddress, Shape


class LatencyMs(Shape):
    """Of the calls that were answered, milliseconds, by sketches (within a percent or two); null without any."""

    p50: float | None
    p95: float | None
    p99: float | None


class ByStatus(Shape):
    """How it went: `refused` by the hub, `limited` (429), `hub_error`: the hub could not."""

    ok: int
    tool_error: int
    refused: int
    limited: int
    upstream_error: int
    timeout: int
    cancelled: int
    hub_error: int


class FiguresOut(Shape):
    """`requests` of any kind, `calls` of tools among them. `errors`: calls without a result or with the tool's own error; `by_status` and
    bytes (of arguments and of results) are of the calls, too."""

    requests: int
    calls: int
    errors: int
    error_rate: float
    by_status: ByStatus
    bytes_in: int
    bytes_out: int
    latency_ms: LatencyMs


class DayUsage(FiguresOut):
    """One day in UTC."""

    date: str


class ServerUsage(FiguresOut):
    """One server; without a name when it is gone."""

    server_uuid: str
    name: str | None
    slug: str | None


class ToolUsage(FiguresOut):
    """One tool; `(other)` counts those beyond 200 of a server and key."""

    server_uuid: str
    tool: str


class KeyUsageOut(Shape):
    """What a key did. `as_of`: everything up to then is counted, null = everything there is. `by_status` is of all requests. `by_tool`: the
    100 with most calls; `recent`: the newest 20; `addresses`: the latest 50."""

    key_id: str
    period: Literal["day", "week", "month"]
    since: str
    until: str
    as_of: str | None
    totals: FiguresOut
    by_day: list[DayUsage]
    by_server: list[ServerUsage]
    by_tool: list[ToolUsage]
    by_status: ByStatus
    recent: list[RequestRow]
    addresses: list[SeenAddress]
    flags: list[KeyFlagOut]


class UsageRow(FiguresOut):
    """One group in one piece of time; what it is not grouped by is null."""

    at: str | None
    server_uuid: str | None
    tool: str | None
    key_id: str | None


class UsageList(Shape):
    """Those of the groups that the page holds; `totals` is of all."""

    usage: list[UsageRow]
    total: int
    limit: int
    offset: int
    period: Literal["hour", "day", "week", "month"]
    dimension: Literal["none", "server", "tool", "key"]
    granularity: Literal["none", "minute", "hour", "day"]
    since: str
    until: str
    as_of: str | None
    totals: FiguresOut


class V1ByMcp(Shape):
    """The requests to one server."""

    mcp_id: str
    name: str | None
    requests: int


class V1ByDay(Shape):
    """The requests of one day in UTC."""

    date: str
    requests: int


class V1ByStatus(Shape):
    """How the requests went."""

    success: int
    error: int


class V1KeyUsage(Shape):
    """What a key did, in the words of the documents."""

    key_id: str
    period: Literal["day", "week", "month"]
    start_date: str
    end_date: str
    total_requests: int
    by_mcp: list[V1ByMcp]
    by_day: list[V1ByDay]
    by_status: V1ByStatus


class V1Requests(Shape):
    """Requests are limited by the hour here, not by the month: `limit` and `percentage` are null."""

    total: int
    limit: int | None
    percentage: float | None


class V1Usage(Shape):
    """What the organisation did in this environment, in the words of the documents."""

    period: Literal["day", "week", "month"]
    start_date: str
    end_date: str
    requests: V1Requests
    by_mcp: list[V1ByMcp]
    by_day: list[V1ByDay]
    by_status: V1ByStatus


class AlertOut(Shape):
    """A rule and how it stands: `state` since `since`, when the metric was `value`."""

    id: str
    name: str
    metric: Literal["calls", "error_rate", "latency_p95_ms", "limit_share", "servers_down"]
    threshold: float
    window: int
    server_uuid: str | None
    key_id: str | None
    channel: Literal["webhook", "notification", "email"]
    email: str | None
    enabled: bool
    state: Literal["ok", "firing"]
    since: str | None
    value: float | None
    created_at: str
    updated_at: str


class AlertList(Shape):
    """A page of alerts."""

    alerts: list[AlertOut]
    total: int
    limit: int
    offset: int
