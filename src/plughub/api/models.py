"""The shapes of the answers, as the API reference shows them and the tests compare them with what is served."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Shape(BaseModel):
    """An answer: every member is always there unless its type says otherwise."""

    model_config = ConfigDict(extra="forbid")


class ServerOut(Shape):
    """A server; secret values of `config` are `***`."""

    uuid: str
    slug: str
    name: str
    description: str
    type: Literal["STDIO", "SSE", "STREAMABLE_HTTP"]
    config: dict[str, Any]
    status: Literal["connected", "connecting", "disconnected", "error", "disabled", "quarantined"]
    last_error: str | None
    enabled: bool
    capture: bool
    profile_uuid: str
    tools_count: int | None
    created_at: str
    updated_at: str


class ServerList(Shape):
    """A page of servers."""

    servers: list[ServerOut]
    total: int
    limit: int
    offset: int


class ClientFileOut(Shape):
    """The servers by slug, as MCP clients write them; a secret is a placeholder, `${NAME}`."""

    mcpServers: dict[str, dict[str, Any]]  # noqa: N815  the clients' name


class ImportWarning(Shape):
    """Something of the file that was left out or is not complete, and where it stands."""

    field: str
    message: str


class ImportedOut(Shape):
    """What came of an import. `renamed`: the new names by those of the file."""

    imported: list[ServerOut]
    skipped: list[str]
    renamed: dict[str, str]
    on_conflict: Literal["skip", "rename", "error"]
    warnings: list[ImportWarning]


class ToolsOut(Shape):
    """The tools of a server, each as the server sent it."""

    tools: list[dict[str, Any]]
    total: int


class ResourcesOut(Shape):
    """The resources of a server, each as the server sent it."""

    resources: list[dict[str, Any]]
    total: int


class TemplatesOut(Shape):
    """The resource templates of a server, each as the server sent it."""

    resourceTemplates: list[dict[str, Any]]  # noqa: N815  the wire's name
    total: int


class PromptsOut(Shape):
    """The prompts of a server, each as the server sent it."""

    prompts: list[dict[str, Any]]
    total: int


class ServerFailure(Shape):
    """A server that could not be asked, and why."""

    server: str
    server_uuid: str
    message: str


class AcrossServers(Shape):
    """What several servers offer, each item with `_serverUuid` and `_serverSlug`; who could not be asked is in `failures`."""

    limit: int
    offset: int
    failures: list[ServerFailure]


class AllTools(AcrossServers, ToolsOut):
    """The tools of all servers."""


class AllResources(AcrossServers, ResourcesOut):
    """The resources of all servers."""


class AllTemplates(AcrossServers, TemplatesOut):
    """The resource templates of all servers."""


class AllPrompts(AcrossServers, PromptsOut):
    """The prompts of all servers."""


class ReadResource(Shape):
    """Which resource to read."""

    uri: str
    timeout_ms: int | None = Field(None, ge=1, le=300_000)


class GetPrompt(Shape):
    """The arguments of a prompt."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    timeout_ms: int | None = Field(None, ge=1, le=300_000)


class ContentsMetadata(BaseModel):
    """Where and how long; with `uri` or `prompt`."""

    server_uuid: str
    uri: str | None = None
    prompt: str | None = None
    duration_ms: int
    request_id: str


class ResourceContents(BaseModel):
    """The server's result with our metadata; members that the server adds stay."""

    contents: list[dict[str, Any]]
    metadata: ContentsMetadata


class PromptResult(BaseModel):
    """The server's result with our metadata; members that the server adds stay."""

    messages: list[dict[str, Any]]
    metadata: ContentsMetadata


class V1Read(Shape):
    """The body of `/v1/mcp/resources`; `timeout` in milliseconds."""

    mcp_id: str
    uri: str
    timeout: int | None = Field(None, ge=1, le=300_000)


class V1ResourceContents(Shape):
    """The contents of a resource."""

    contents: list[dict[str, Any]]


class LogLine(Shape):
    """One line, and when it was written."""

    at: str
    line: str


class LogsOut(Shape):
    """The end of a server's log."""

    logs: list[LogLine]


class PreviousSecret(Shape):
    """The secret that the last rotation replaced: until when it works, and whether anybody still uses it."""

    prefix: str
    valid_until: str
    last_used_at: str | None
    last_used_ip: str | None


class KeyFlagOut(Shape):
    """Why somebody should look at a key, shown for a week."""

    flag: Literal["unusual_volume", "unusual_error_rate", "unknown_client_ip", "dormant_key_used"]
    raised_at: str
    numbers: dict[str, Any]


class KeyOut(Shape):
    """An API key without its secret. `previous` is there while two secrets work; the last use is written within two seconds."""

    id: str
    name: str
    description: str
    prefix: str
    last4: str
    kind: Literal["public", "secret"]
    environment: Literal["live", "test"]
    scopes: list[str]
    servers: Literal["*"] | list[str]
    allowed_ips: list[str] | None
    labels: dict[str, str]
    rate_limit: dict[Literal["hourly", "burst", "concurrency"], int] | None
    status: Literal["active", "suspended", "revoked", "expired"]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    rotated_at: str | None
    rotation_due: bool
    last_used_at: str | None
    last_used_ip: str | None
    flags: list[KeyFlagOut]
    previous: PreviousSecret | None


class SeenAddress(Shape):
    """An address that a key was used from."""

    address: str
    first_seen_at: str
    last_seen_at: str


class KeyDetail(KeyOut):
    """A key with the addresses it was used from, the latest first; the latest 50 are kept."""

    addresses: list[SeenAddress]


class KeyCreated(KeyOut):
    """A new key; `key` is shown this once."""

    key: str


class KeyRotated(KeyCreated):
    """A key with its new secret, and the one that it replaces."""

    previous: PreviousSecret


class LeakJudged(Shape):
    """What a reported text is. `token_hash`: base64 of its SHA-256, for it is not repeated. True positive: it was a key of this hub, and is
    none any more."""

    token_hash: str
    token_type: str
    label: Literal["true_positive", "false_positive"]


class KeyList(Shape):
    """A page of keys."""

    keys: list[KeyOut]
    total: int
    limit: int
    offset: int


class KeyRevoked(Shape):
    """What a revocation leaves: the row stays."""

    id: str
    status: Literal["revoked"]
    revoked_at: str


class Execute(Shape):
    """The body of a tool call."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    timeout_ms: int | None = Field(None, ge=1, le=300_000)


class ExecuteMetadata(Shape):
    """Where and how long."""

    server_uuid: str
    tool: str
    duration_ms: int
    request_id: str


class Executed(Shape):
    """`result` is the structured content, else the single text block parsed as JSON, else its text, else the content."""

    result: Any
    content: list[Any]
    structuredContent: Any = None  # noqa: N815  the wire's name
    isError: bool  # noqa: N815
    metadata: ExecuteMetadata


class Invoke(Shape):
    """The body of `/v1/mcp/invoke`; `timeout` in milliseconds; `context` is logged, not sent on."""

    mcp_id: str
    tool: str
    arguments: dict[str, Any]
    timeout: int | None = Field(None, ge=1, le=300_000)
    context: dict[str, Any] | None = None


class InvokeMetadata(Shape):
    """Where, how long and when."""

    mcp_id: str
    tool: str
    latency_ms: int
    timestamp: str


class Invoked(Shape):
    """The unwrapped result of a tool."""

    result: Any
    metadata: InvokeMetadata


class Success(BaseModel, Generic[T]):
    """The envelope of `/v1`."""

    success: Literal[True]
    data: T


class Pagination(Shape):
    """Pages count from 1."""

    page: int
    per_page: int
    total: int
    total_pages: int


class SuccessPage(Success[list[T]], Generic[T]):
    """The envelope of a `/v1` list."""

    pagination: Pagination


class McpOut(Shape):
    """A server in the words of the PlexMCP documents."""

    id: str
    name: str
    endpoint_url: str | None
    description: str
    status: Literal["active", "inactive"]
    health: Literal["healthy", "unhealthy", "unknown"]
    created_at: str
    updated_at: str
    last_active: str | None
    request_count: int


class McpStats(Shape):
    """Calls of the last 30 days, as in `GET /api/servers/{uuid}/stats`; the mean time is that of the newest 10,000 answered ones."""

    total_requests: int
    requests_today: int
    error_rate: float
    avg_latency_ms: float | None


class McpTool(Shape):
    """A tool in short."""

    name: str
    description: str
    input_schema: dict[str, Any]


class McpDetail(McpOut):
    """A server with its tools; `tools` is null while they cannot be had, never an empty list in place of an error."""

    health_checked_at: str | None
    stats: McpStats
    tools: list[McpTool] | None


class McpDeleted(Shape):
    """A deleted server."""

    deleted: Literal[True]
    mcp_id: str


class V1Permissions(Shape):
    """Which servers a key may use."""

    mcps: Literal["*"] | list[str]


class V1KeyRequests(Shape):
    """How much a key asked for; days, weeks and months end today (UTC)."""

    total_requests: int
    requests_today: int
    requests_this_week: int
    requests_this_month: int


class V1Key(Shape):
    """An API key in the words of the PlexMCP documents."""

    id: str
    name: str
    description: str
    prefix: str
    status: Literal["active", "suspended", "revoked", "expired"]
    created_at: str
    last_used: str | None
    expires_at: str | None
    permissions: V1Permissions
    usage: V1KeyRequests


class V1Maker(Shape):
    """Who made a key: somebody with an address, or another key, which has none."""

    id: str
    email: str | None


class V1Activity(Shape):
    """A call of a key."""

    timestamp: str
    mcp_id: str | None
    tool: str | None
    status: Literal["success", "error"]


class V1KeyDetail(V1Key):
    """A key with who made it, and its newest calls."""

    created_by: V1Maker | None
    recent_activity: list[V1Activity]


class V1KeyCreated(V1Key):
    """A new key; `key` is shown this once."""

    key: str


class HourOut(Shape):
    """`reset`: the epoch second when `remaining` next grows."""

    limit: int
    remaining: int
    reset: int


class RemainingOut(Shape):
    """What is left of a limit."""

    limit: int
    remaining: int


class KeyLimitsOut(Shape):
    """What is left of the key's own limit."""

    hourly: HourOut
    burst: RemainingOut
    concurrency: RemainingOut


class RateLimitOut(KeyLimitsOut):
    """What is left of each limit of the organisation, and of the key's own when it has one; asking is free."""

    tier: str
    key: KeyLimitsOut | None


class HealthOut(Shape):
    """The process answers."""

    status: Literal["ok"]
    version: str


class StatusPart(Shape):
    """A part of the hub."""

    name: Literal["api", "database", "records"]
    status: Literal["operational", "down"]


class StatusOut(Shape):
    """Whether the hub works: `degraded` when a part is down."""

    status: Literal["operational", "degraded"]
    components: list[StatusPart]


class ReadyOut(Shape):
    """The hub serves: its database answers and its usage records reach the disk."""

    status: Literal["ready"]


class ResourceMetadata(BaseModel):
    """Protected resource metadata (RFC 9728)."""

    resource: str
    resource_name: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]
    scopes_supported: list[str]
    resource_documentation: str


class ErrorBody(Shape):
    """`details.hint` holds the remedy."""

    code: str
    message: str
    details: dict[str, Any]


class ApiError(Shape):
    """Every error of `/api`."""

    error: ErrorBody
    message: str
    request_id: str


class V1Error(Shape):
    """Every error of `/v1`."""

    success: Literal[False]
    error: ErrorBody
