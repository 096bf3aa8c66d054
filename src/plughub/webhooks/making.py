"""Events into rows of deliveries, and answers into rows of results. No I/O."""

from collections.abc import Callable, Sequence

from plughub.db.unit_of_work import Event
from plughub.events.body import event_body
from plughub.webhooks.endpoint import Endpoint
from plughub.webhooks.formatters import body_of
from plughub.webhooks.matching import delivery_id, wants
from plughub.webhooks.outbox import LEASE_S, Behind, Held, NewRow, SettledRow
from plughub.webhooks.schedule import next_attempt
from plughub.webhooks.sender import GONE, Answer
from plughub.webhooks.store import LINE


def new_rows(
    place: Behind, events: Sequence[Event], endpoints: Sequence[Endpoint], owner: str, now: float
) -> list[tuple[Endpoint, NewRow]]:
    """A delivery for each event and each endpoint that is told of it, leased by `owner` as far as the endpoint has room.

    What does not fit is due at once, for whoever has room; of an ordered webhook all stand in its line.
    """
    room = {endpoint: 0 if endpoint.hungry or endpoint.webhook.ordered else endpoint.room() for endpoint in endpoints}
    rows: list[tuple[Endpoint, NewRow]] = []
    for event in events:
        told = [endpoint for endpoint in endpoints if event.seq > endpoint.from_seq and wants(endpoint.webhook, endpoint.of_project, event)]
        if not told:
            continue
        public = event_body(event, place.organization_id, place.epoch)
        bodies: dict[tuple[str, str | None], str] = {}
        for endpoint in told:
            webhook = endpoint.webhook
            form = (webhook.format, webhook.channel)
            if form not in bodies:
                bodies[form] = body_of(public, webhook.format, webhook.channel)
            leased = room[endpoint] > 0
            room[endpoint] -= 1
            endpoint.hungry |= not leased
            next_at = now + LEASE_S if leased else LINE + event.seq if webhook.ordered else now
            id_ = delivery_id(webhook.id, place.epoch, event.seq)
            rows.append((endpoint, (id_, webhook.id, event.seq, event.name, bodies[form], next_at, owner if leased else None)))
    return rows


def settled(held: Held, answer: Answer, at: float, rolled: Callable[[float, float], float]) -> SettledRow:
    """What an attempt that ended at `at` leaves of the delivery: done, to be tried again, or failed. `rolled`: see `next_attempt`."""
    status, next_at = "delivered", None
    if answer.error is not None:
        next_at = None if answer.status == GONE else next_attempt(at, held.tries + 1, answer.retry_after_s, rolled)
        status = "failed" if next_at is None else "pending"
    came = (answer.status, answer.excerpt, answer.error, answer.duration_ms)
    return (held.id, status, held.attempts + 1, held.tries + 1, next_at, at, *came)
