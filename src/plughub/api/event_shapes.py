"""The shapes of the event log."""

from typing import Any

from pydantic import Field

from plughub.api.models import Shape


class EventOut(Shape):
    """What happened. `contract/events.json` has the schema of each event's `data`."""

    id: str
    event: str
    type: str
    timestamp: str
    organization_id: str
    data: dict[str, Any]


class Retention(Shape):
    """How long events are kept, days; null: for good. `complete_from`: of the events up to here some are gone; null: none."""

    tool_events_days: int
    other_events_days: int | None
    complete_from: str | None


class EventList(Shape):
    """A page. With a `next_cursor` there may be more, even when the page is not full. From `last_event_id` a stream goes on without gap."""

    events: list[EventOut]
    limit: int
    next_cursor: str | None
    last_event_id: str
    retention: Retention


class TicketOut(Shape):
    """`/api/events?token=<ticket>` within `expires_in` seconds, once; the same stream is opened again for a day."""

    ticket: str
    expires_in: int = Field(examples=[30])
