"""What comes in about keys, and a key as the rules see it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from plughub.kit.caller import NUMBERS, SCOPES, Environment, KeyKind

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Description = Annotated[str, StringConstraints(max_length=1000)]
Scope = Annotated[str, WithJsonSchema({"type": "string", "enum": sorted(SCOPES)})]
Scopes = Annotated[list[Scope], Field(max_length=100)]
ServerIds = Annotated[list[Annotated[str, StringConstraints(max_length=100)]], Field(max_length=10_000)]
Labels = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=63)], Annotated[str, StringConstraints(max_length=255)]],
    Field(max_length=50),
]
Status = Literal["active", "suspended", "revoked"]


class RateLimit(BaseModel):
    """What a key alone may use: calls an hour, in a burst, at once; what is left out is its organisation's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hourly: int | None = Field(None, ge=1, le=NUMBERS["hourly"])
    burst: int | None = Field(None, ge=1, le=NUMBERS["burst"])
    concurrency: int | None = Field(None, ge=1, le=NUMBERS["concurrency"])


class KeyCreate(BaseModel):
    """`POST /api/auth/keys`. `servers`: `"*"` = all present and future ones, or a list of ids. `expires_at`: RFC 3339."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    kind: KeyKind = "public"
    environment: Environment | None = None
    description: Description | None = None
    expires_at: str | None = Field(None, validation_alias=AliasChoices("expires_at", "expiresAt"))
    scopes: Scopes | None = None
    servers: Literal["*"] | ServerIds | None = None
    labels: Labels | None = None
    rate_limit: RateLimit | None = Field(None, validation_alias=AliasChoices("rate_limit", "rateLimit"))


class KeyUpdate(BaseModel):
    """`PATCH /api/auth/keys/{id}`: what is not given stays. `expires_at: null` = never; `rate_limit: null` = its organisation's alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    description: Description | None = None
    expires_at: str | None = Field(None, validation_alias=AliasChoices("expires_at", "expiresAt"))
    scopes: Scopes | None = None
    servers: Literal["*"] | ServerIds | None = None
    labels: Labels | None = None
    rate_limit: RateLimit | None = Field(None, validation_alias=AliasChoices("rate_limit", "rateLimit"))
    status: Literal["active", "suspended"] | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret. `servers` is None for all present and future ones; `rate_limit` for no limit of its own."""

    id: str
    organization_id: str
    space_id: str
    name: str
    description: str
    kind: KeyKind
    environment: Environment
    prefix: str
    last4: str
    scopes: tuple[str, ...]
    servers: tuple[str, ...] | None
    labels: dict[str, str]
    status: Status
    expires_at: float | None
    created_at: float
    created_by: str | None
    revoked_at: float | None
    rate_limit: dict[str, int] | None
