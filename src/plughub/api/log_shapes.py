"""The shapes of the log of requests and of what is told of a server's life."""

from typing import Any, Literal

from plughub.api.models import Shape

ServerStatus = Literal["connected", "connecting", "disconnected", "error", "disabled", "quarantined"]


class RequestRow(Shape):
    """One request. `rpc_method` of MCP, `tool` of tool calls; `error` is the code, null when it went well."""

    request_id: str
    at: str
    door: str
    method: str
    path: str
    rpc_method: str | None
    status: Literal["ok", "error"]
    http_status: int
    error: str | None
    duration_ms: float
    key_id: str | None
    server_uuid: str | None
    tool: str | None


class RequestList(Shape):
    """A page, newest first. With a `next_cursor` there may be more, even when the page is not full."""

    logs: list[RequestRow]
    limit: int
    next_cursor: str | None


class RequestKey(Shape):
    """Whose key it was; `prefix` is null when the key is not known any more."""

    id: str | None
    prefix: str | None


class RequestTimings(Shape):
    """`upstream_ms` of `total_ms` were the server's; null when none was asked."""

    total_ms: float
    upstream_ms: float | None


class RequestError(Shape):
    """What went wrong; `message` is the hub's own sentence, `policy` the limit that refused."""

    code: str
    message: str
    hint: str | None
    policy: str | None


class RequestServer(Shape):
    """The server that was meant; its name and slug are null when it is gone."""

    uuid: str
    slug: str | None
    name: str | None


class RequestStory(Shape):
    """One request from beginning to end, told by its row alone. `error_text` is what the server said of its failure, `context` the caller's
    own note; `arguments` and `result` are there when the server's `capture` was on: redacted, and `{truncated, bytes, head?}` if large."""

    request_id: str
    at: str
    door: str
    method: str
    path: str
    rpc_method: str | None
    scope: str
    status: Literal["ok", "error"]
    http_status: int
    key: RequestKey
    server: RequestServer | None
    tool: str | None
    is_tool_error: bool
    timings: RequestTimings
    error: RequestError | None
    error_text: str | None
    context: dict[str, Any] | None
    arguments: Any
    result: Any


class TrialError(Shape):
    """Why the server does not work."""

    code: str
    message: str
    hint: str | None


class ServerTest(Shape):
    """Whether a server works just now. All but `error` is null when it does not."""

    success: bool
    connect_ms: int | None
    latency_ms: int | None
    tools_count: int | None
    protocol_version: str | None
    era: Literal["legacy", "modern"] | None
    capabilities: dict[str, Any] | None
    server_info: dict[str, Any] | None
    error: TrialError | None


class McpTest(Shape):
    """The same in the words of the PlexMCP documents; `error` is null when it works."""

    reachable: bool
    latency_ms: int | None
    protocol_version: str | None
    tools_count: int | None
    resources_count: int | None
    error: str | None


class HealthOfServer(Shape):
    """The newest look. `uptime_24h`: the share (0 to 1) of the known part of the last 24 hours without an error; null = nothing known."""

    status: ServerStatus
    checked_at: str | None
    latency_ms: float | None
    uptime_24h: float | None
    last_error: str | None


class HealthEntry(Shape):
    """A change of state (`status`) or a look of the hub's own (`probe`)."""

    at: str
    kind: Literal["status", "probe"]
    status: ServerStatus
    latency_ms: float | None
    error: str | None


class HealthHistory(Shape):
    """Newest first."""

    history: list[HealthEntry]
    total: int
    limit: int
    offset: int


class Latency(Shape):
    """Of the newest `sample` calls that were answered, milliseconds; null without any."""

    p50: float | None
    p95: float | None
    p99: float | None
    sample: int


class DayFigures(Shape):
    """One day in UTC."""

    date: str
    calls: int
    errors: int


class ServerStats(Shape):
    """Counted over `window_days`. `errors`: calls without a result, or with the tool's own error; `error_rate` is 0 to 1.

    `last_activity` is the last call or change. The last three are of the server of the registry that this one came from, in this hub: how
    often it was installed, on each of the last seven days (today last), and its place among the busiest of them; else null.
    """

    window_days: int
    calls: int
    errors: int
    error_rate: float
    latency: Latency
    last_called_at: str | None
    days: list[DayFigures]
    last_activity: str
    installations: int | None
    daily_installs: list[int] | None
    trending_rank: int | None
