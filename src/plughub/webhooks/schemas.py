"""What comes in about webhooks, and a webhook and a delivery as the rules see them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.webhooks.addresses import MAX_URL
from plughub.webhooks.signing import MAX_SECRET, MIN_SECRET

MAX_EVENTS = 100
MAX_RATE = 60_000
Format = Literal["webhook", "slack", "teams", "discord"]
Status = Literal["pending", "delivered", "failed"]
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Events = Annotated[list[EventName], Field(min_length=1, max_length=MAX_EVENTS, description="Names, `server.*`, or `*`")]
Secret = Annotated[
    str,
    StringConstraints(min_length=MIN_SECRET, max_length=MAX_SECRET),
    Field(description="`whsec_` + base64, or any string, which is then the key itself"),
]
Description = Annotated[str, StringConstraints(max_length=1000)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE, description="Deliveries a minute at most; null = as fast as the receiver takes them")]
Channel = Annotated[str, StringConstraints(min_length=1, max_length=100)]
RatePerMinute = Field(None, validation_alias=AliasChoices("rate_per_minute", "ratePerMinute"))


class WebhookCreate(BaseModel):
    """`POST /api/webhooks`. Without a secret one is generated. `ordered`: in the order of the log, one at a time."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url
    events: Events
    active: bool = True
    secret: Secret | None = None
    ordered: bool = False
    description: Description | None = None
    rate_per_minute: Rate | None = RatePerMinute


class WebhookUpdate(BaseModel):
    """`PATCH /api/webhooks/{id}`: what is not given stays. `active: true` brings back one that was switched off."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url | None = None
    events: Events | None = None
    active: bool | None = None
    ordered: bool | None = None
    description: Description | None = None
    rate_per_minute: Rate | None = RatePerMinute


class IntegrationCreate(BaseModel):
    """`POST /api/integrations/{service}`: a webhook whose bodies are that service's messages. `project_uuid`: of that project alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: Url = Field(validation_alias=AliasChoices("webhook_url", "webhookUrl"))
    events: Events
    channel: Channel | None = None
    project_uuid: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, validation_alias=AliasChoices("project_uuid", "projectUuid")
    )


class SecretRotate(BaseModel):
    """`POST /api/webhooks/{id}/rotate-secret`: so long, in seconds, both secrets sign."""

    model_config = ConfigDict(extra="forbid", strict=True)

    secret: Secret | None = None
    overlap_seconds: int = Field(86_400, ge=0, le=604_800, validation_alias=AliasChoices("overlap_seconds", "overlapSeconds"))


class WebhookTest(BaseModel):
    """`POST /api/webhooks/{id}/test`: the name that the delivery carries."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event: EventName = "test.ping"


class Recover(BaseModel):
    """`POST /api/webhooks/{id}/recover`: what failed, or was never sent, of the events since then (RFC 3339)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: Annotated[str, StringConstraints(max_length=100)]
    until: Annotated[str, StringConstraints(max_length=100)] | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint without its secrets. `servers`: it is told of these alone (None: of all); `scopes`: of those that events need to be heard
    of, what whoever chose its events had; `disabled` says why the hub switched it off."""

    id: str
    space_id: str
    url: str
    events: tuple[str, ...]
    active: bool
    ordered: bool
    format: Format
    channel: str | None
    project_id: str | None
    servers: frozenset[str] | None
    scopes: tuple[str, ...]
    description: str
    rate_per_minute: int | None
    disabled: Literal["gone", "failing"] | None
    failing_since: float | None
    previous_until: float | None
    created_at: float
    updated_at: float
    revision: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint, and what came back last. `attempts` counts all of them."""

    id: str
    event: str
    status: Status
    attempts: int
    created_at: float
    next_at: float | None
    last_at: float | None
    body: str
    response_status: int | None
    response_excerpt: str | None
    error: str | None
    duration_ms: int | None
