"""The shapes of webhooks and their deliveries."""

from typing import Literal

from plughub.api.models import Shape


class WebhookOut(Shape):
    """`url` with `***` for what may be secret in it. `disabled_reason`: why the hub switched it off; `failing_since`: no attempt has
    gone well since; `previous_secret_until`: so long the secret before the last rotation signs too."""

    id: str
    url: str
    events: list[str]
    active: bool
    ordered: bool
    format: Literal["webhook", "slack", "teams", "discord"]
    channel: str | None
    project_uuid: str | None
    servers: Literal["*"] | list[str]
    description: str
    rate_per_minute: int | None
    disabled_reason: Literal["gone", "failing"] | None
    failing_since: str | None
    previous_secret_until: str | None
    created_at: str
    updated_at: str


class WebhookMade(WebhookOut):
    """`secret`: shown this once, and only when it was generated here."""

    secret: str | None = None


class WebhookList(Shape):
    """A page of webhooks."""

    webhooks: list[WebhookOut]
    total: int
    limit: int
    offset: int


class WebhookDeleted(Shape):
    """It is told of nothing more."""

    id: str
    deleted: Literal[True]


class ResponseOut(Shape):
    """What came back last: `status` is null when there was no answer; `body` is its beginning, `error` what is wrong with it."""

    status: int | None
    body: str | None
    error: str | None
    duration_ms: int | None


class DeliveryOut(Shape):
    """One event on its way to one webhook. `message_id` is the `webhook-id` of every attempt. `request_body` is the beginning of what is
    sent. `next_attempt_at` is null when there is none, and while one is under way or waits for its place in an order."""

    id: str
    message_id: str
    event: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: str
    last_attempt_at: str | None
    next_attempt_at: str | None
    request_body: str
    response: ResponseOut | None


class DeliveryList(Shape):
    """A page, newest first."""

    deliveries: list[DeliveryOut]
    limit: int
    next_cursor: str | None


class WebhookTried(Shape):
    """`success`: the receiver answered with a 2xx in time."""

    success: bool
    delivery: DeliveryOut


class RecoveredOut(Shape):
    """So many deliveries are sent again. With a `next_since` there may be more: ask again from there."""

    recovered: int
    next_since: str | None
