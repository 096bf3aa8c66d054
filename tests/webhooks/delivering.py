"""A deliverer on a database of its own, driven turn by turn, and receivers that say what they got."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from standardwebhooks import Webhook as Verifier

from plughub.db.engine import Database
from plughub.events.follower import Follower
from plughub.events.tail import Tail
from plughub.identity.service import Organization
from plughub.kit.caller import SCOPES, TIERS, Caller
from plughub.kit.crypto import Sealer
from plughub.webhooks.deliverer import Deliverer
from plughub.webhooks.deliveries import DeliveryFilter, list_deliveries
from plughub.webhooks.schemas import Delivery, Webhook, WebhookCreate
from plughub.webhooks.service import Keeper, create_webhook, get_webhook
from tests.conftest import FakeClock
from tests.fakes.http_servers import HttpServer, Seen, reply

LOCAL = (ip_network("127.0.0.0/8"),)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """Answers as told: `status` for all, or `statuses` one after the other first."""

    status: int = 200
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def __call__(self, seen: Seen, _writer: Any) -> bytes | None:
        return reply(self.statuses.pop(0) if self.statuses else self.status, self.body, "text/plain", self.headers)

    @property
    def server(self) -> HttpServer:
        return HttpServer(self)


class Delivering:
    """One hub's deliverer, its maker, and what it takes to make things happen."""

    def __init__(self, database: Database, operator: Organization, clock: FakeClock, sealer: Sealer, owner: str = "o" * 36) -> None:
        self.database = database
        self.clock = clock
        self.keeper = Keeper(sealer, LOCAL)
        self.tail = Tail(database, Follower(database))
        self.deliverer = Deliverer(database, self.keeper, self.tail, owner=owner)
        self.caller = caller_of(operator)
        database.listeners += [self.tail.follow, self.deliverer.follow]

    async def webhook(self, url: str, *events: str, **given: Any) -> Webhook:
        """Made, with a known secret unless told otherwise."""
        body = WebhookCreate(url=url, events=list(events or ("*",)), **{"secret": SECRET, **given})
        async with self.database.unit_of_work() as uow:
            made, _ = await create_webhook(uow, self.caller, body, self.keeper)
        return made

    async def happen(self, count: int = 1, name: str = "server.error", server_id: str | None = None, **data: Any) -> None:
        """So many events in one transaction."""
        async with self.database.unit_of_work() as uow:
            for at in range(count):
                uow.emit(name, space_id=self.caller.space_id, server_id=server_id, data={"n": at, **data})

    async def rounds(self, count: int = 1) -> None:
        """Turns, each with all its attempts, and one that settles them."""
        for _ in range(count):
            self.deliverer.wake()
            await self.deliverer.turn()
            await self.deliverer.quiet()
        await self.deliverer.turn()

    async def deliveries(self, webhook: Webhook, **wanted: Any) -> list[Delivery]:
        """Newest first."""
        async with self.database.read() as connection:
            rows, _ = await list_deliveries(connection, self.caller, webhook.id, DeliveryFilter(**wanted), None, 1000)
        return rows

    async def now_is(self, webhook: Webhook) -> Webhook:
        async with self.database.read() as connection:
            return await get_webhook(connection, self.caller, webhook.id, self.keeper)


def caller_of(organization: Organization) -> Caller:
    space_id = organization.founder("live").space_id
    return Caller(organization.id, space_id, "live", "", "secret", SCOPES, None, TIERS["enterprise"], operator=True, stdio_allowed=True)


def verified(seen: Sequence[Seen], secret: str = SECRET) -> list[dict[str, Any]]:
    """The bodies, each checked with the official library as of the time that it was signed."""
    bodies = []
    for request in seen:
        headers = dict(request.headers)
        expected = Verifier(secret).sign(headers["webhook-id"], _time(headers), request.body.decode())
        assert expected in headers["webhook-signature"].split(" ")
        bodies.append(json.loads(request.body))
    return bodies


def _time(headers: dict[str, str]) -> datetime:
    return datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
