"""The shapes of what only the operator is answered."""

from typing import Literal

from plughub.api.models import Shape


class TierNumbers(Shape):
    """Calls an hour, in a burst, at once."""

    hourly: int
    burst: int
    concurrency: int


class OperatedOrganization(Shape):
    """An organisation and what it may use; `limits` are the numbers that hold, its tier's or its own."""

    id: str
    name: str
    slug: str
    tier: Literal["free", "pro", "business", "enterprise"]
    limits: TierNumbers
    operator: bool
    stdio_allowed: bool
    created_at: str


class OperatedOrganizationList(Shape):
    """A page of organisations."""

    organizations: list[OperatedOrganization]
    total: int
    limit: int
    offset: int


class OperatedOrganizationCreated(OperatedOrganization):
    """A new organisation; `key` is shown this once."""

    key: str
