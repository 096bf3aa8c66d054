"""What comes in about servers, and a server as the rules see it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema

from plughub.kit.errors import Invalid
from plughub.upstream.target import Transport

_STRICT = ConfigDict(extra="forbid", strict=True)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Written by our own client; another value would break the framing of the connection.
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"})
_MAX_URL = 4096
_MAX_VALUE = 65_536

M = TypeVar("M", bound=BaseModel)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


def _env(env: dict[str, str]) -> dict[str, str]:
    for name in env:
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"'{name[:50]}' cannot be the name of an environment variable")
    return env


def _headers(headers: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if _HEADER_NAME.fullmatch(name) is None:
            raise ValueError(f"'{name[:50]}' cannot be the name of a header")
        if lower in _OWN_HEADERS:
            raise ValueError(f"the header '{name}' is set by the hub")
        if lower in seen:
            raise ValueError(f"the header '{name}' is given twice")
        if _CONTROL.search(value) or not value.isascii():
            raise ValueError(f"the value of the header '{name}' has characters that a header cannot carry")
        seen.add(lower)
    return headers


def _url(url: str) -> str:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL has no spaces, control or non-ASCII characters: percent-encode them")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL begins with http:// or https:// and names a host")
    if parts.port == 0 or parts.fragment:
        raise ValueError("a URL of a server has no fragment and no port 0")
    return url


Value = Annotated[str, StringConstraints(max_length=_MAX_VALUE), AfterValidator(_no_nul)]
Arguments = Annotated[list[Value], Field(max_length=1000)]
Milliseconds = Annotated[int, Field(ge=1, le=300_000)]
Description = Annotated[str, StringConstraints(max_length=2000)]


class _Times(BaseModel):
    """The server's own times in milliseconds; without them the hub's settings hold."""

    model_config = _STRICT

    call_timeout_ms: Milliseconds | None = Field(
        None,
        validation_alias=AliasChoices("call_timeout_ms", "callTimeoutMs"),
        description="How long a call waits when the caller does not say",
    )
    start_timeout_ms: Milliseconds | None = Field(
        None,
        validation_alias=AliasChoices("start_timeout_ms", "startTimeoutMs"),
        description="How long the server may take to start and shake hands",
    )


class StdioConfig(_Times):
    """A command on the host. `secret_args` follow `args` on the command line and are never shown."""

    command: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_no_nul)]
    args: Arguments = Field(default_factory=list)
    env: Annotated[dict[str, Value], Field(max_length=1000), AfterValidator(_env)] = Field(default_factory=dict)
    secret_args: Arguments = Field(default_factory=list, validation_alias=AliasChoices("secret_args", "secretArgs"))


class HttpConfig(_Times):
    """An address, and headers to send with every request."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=_MAX_URL), AfterValidator(_url)]
    headers: Annotated[dict[str, Value], Field(max_length=200), AfterValidator(_headers)] = Field(default_factory=dict)


_CONFIGS: dict[Transport, type[StdioConfig] | type[HttpConfig]] = {"STDIO": StdioConfig, "SSE": HttpConfig, "STREAMABLE_HTTP": HttpConfig}
Config = Annotated[
    dict[str, Any],
    WithJsonSchema({"anyOf": [StdioConfig.model_json_schema(), HttpConfig.model_json_schema()]}),
]


class ServerCreate(BaseModel):
    """`POST /api/servers`. `config` is that of the `type`: a command for STDIO, an address for the others."""

    model_config = _STRICT

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_no_nul)]
    type: Transport
    config: Config
    description: Annotated[Description | None, Field()] = None
    profile_uuid: str | None = Field(None, validation_alias=AliasChoices("profile_uuid", "profileUuid"))
    project_uuid: str | None = Field(None, validation_alias=AliasChoices("project_uuid", "projectUuid"))
    enabled: bool = True
    capture: bool = Field(False, description="Keep arguments and results of its calls in the log of requests, redacted")


@dataclass(frozen=True, slots=True)
class Server:
    """A registered server. `config` holds its secrets in the clear, so it is neither printed nor rendered."""

    id: str
    space_id: str
    profile_id: str
    slug: str
    name: str
    description: str
    transport: Transport
    enabled: bool
    revision: int
    created_at: float
    updated_at: float
    config: Mapping[str, Any] = field(repr=False)
    capture: bool = False


def checked(model: type[M], value: Any, prefix: str = "") -> M:
    """`value` as the model. Raises Invalid, naming every wrong field as the sender wrote it; secrets are not repeated."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = [_problem(prefix, problem["loc"], problem["type"], problem["msg"]) for problem in error.errors(include_url=False)]
        raise Invalid(errors[0]["field"], errors[0]["message"], errors=errors) from error


def checked_config(transport: Transport, config: Any) -> dict[str, Any]:
    """A configuration in its stored form; what is optional and not given is not in it. Raises Invalid."""
    return checked(_CONFIGS[transport], config, "config").model_dump(exclude_none=True)


_SNAKE = {
    "profileUuid": "profile_uuid",
    "projectUuid": "project_uuid",
    "secretArgs": "secret_args",
    "callTimeoutMs": "call_timeout_ms",
    "startTimeoutMs": "start_timeout_ms",
}


def snake_case(patch: Mapping[str, Any]) -> dict[str, Any]:
    """A change in the spelling of what it is merged into; a name given in both spellings stays, to be refused as unknown."""
    one = {_SNAKE[name] if name in _SNAKE and _SNAKE[name] not in patch else name: value for name, value in patch.items()}
    if isinstance(one.get("config"), Mapping):
        one["config"] = snake_case(one["config"])
    return one


def _problem(prefix: str, location: tuple[int | str, ...], kind: str, message: str) -> dict[str, str]:
    name = ".".join(str(part) for part in (prefix, *location) if part != "") or "body"
    if kind == "missing":
        return {"field": name, "message": f"The '{name}' field is required"}
    if kind == "extra_forbidden":
        return {"field": name, "message": f"The '{name}' field is unknown"}
    return {"field": name, "message": f"The '{name}' field is invalid: {message.removeprefix('Value error, ')}"}
