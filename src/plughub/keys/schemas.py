"""What comes in about keys, and a key as the rules see it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, WithJsonSchema

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
AllowedIps = Annotated[
    list[Annotated[str, StringConstraints(min_length=2, max_length=50, strip_whitespace=True)]],
    Field(min_length=1, max_length=100, description="Addresses and networks (CIDR) that the key may be used from; null = anywhere"),
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
    allowed_ips: AllowedIps | None = None
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
    allowed_ips: AllowedIps | None = None
    labels: Labels | None = None
    rate_limit: RateLimit | None = Field(None, validation_alias=AliasChoices("rate_limit", "rateLimit"))
    status: Literal["active", "suspended"] | None = None


class KeyRotate(BaseModel):
    """`POST /api/auth/keys/{id}/rotate`: so long, in seconds, the secret that is replaced works beside the new one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_seconds: int = Field(86_400, ge=0, le=604_800)


class Leak(BaseModel):
    """A key that was found in public, and where. `POST /api/auth/keys/leaked`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    type: Annotated[str, StringConstraints(max_length=100)] = ""
    url: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class Match(Leak):
    """One item of what secret scanners send; whatever else they say of it is not needed."""

    model_config = ConfigDict(extra="ignore", strict=True)


def _form_of(body: Any) -> str:
    return "tagged-list" if isinstance(body, list) else "tagged-one"


LeakReport = Annotated[
    Annotated[Leak, Tag("tagged-one")] | Annotated[list[Match], Field(min_length=1, max_length=100), Tag("tagged-list")],
    Discriminator(_form_of),
]


@dataclass(frozen=True, slots=True)
class Previous:
    """The secret that the last rotation replaced: its beginning, when it ends or ended, and its last use."""

    prefix: str
    valid_until: float
    last_used_at: float | None
    last_used_ip: str | None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret. `servers` is None for all present and future ones, `allowed_ips` for everywhere, `rate_limit` for no
    limit of its own. The last use is that of any of its secrets.
    """

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
    allowed_ips: tuple[str, ...] | None
    labels: dict[str, str]
    status: Status
    expires_at: float | None
    created_at: float
    created_by: str | None
    revoked_at: float | None
    generation: int = 0
    rotated_at: float | None = None
    last_used_at: float | None = None
    last_used_ip: str | None = None
    previous: Previous | None = None
    rate_limit: dict[str, int] | None = None
