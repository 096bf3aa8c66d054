"""From the log to the receiver: made once, signed, retried, given up, taken over."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import anyio
import pytest
from sqlalchemy import delete, func, insert, select

from plughub.db.audit import THE_HUB
from plughub.db.engine import Database
from plughub.db.tables import node
from plughub.db.webhook_tables import delivery
from plughub.events.catalogue import WEBHOOK_DISABLED
from plughub.events.log import list_lately
from plughub.identity.service import Organization
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.webhooks.deliveries import recover, redeliver
from plughub.webhooks.endpoint import OPENS_AFTER
from plughub.webhooks.outbox import prune_deliveries
from plughub.webhooks.schedule import DAY_S, HOUR_S, MINUTE_S, RETRIES_S
from plughub.webhooks.schemas import WebhookUpdate
from plughub.webhooks.service import delete_webhook, update_webhook
from tests.conftest import START_AT, FakeClock
from tests.events.schemas import check_body
from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.webhooks.delivering import Delivering, Receiver, verified

pytestmark = pytest.mark.anyio
ONE = new_id()


def ids(seen: list[Seen]) -> list[str]:
    return [dict(request.headers)["webhook-id"] for request in seen]


@pytest.mark.requirement("webhooks.delivered")
async def test_what_happens_is_delivered_signed_once(delivering: Delivering) -> None:
    async with Receiver().server as server:
        await delivering.happen(2)  # before: nobody is told
        webhook = await delivering.webhook(server.url, "server.error")
        await delivering.happen(3)
        await delivering.happen(1, "server.connected")
        await delivering.rounds(2)
    bodies = verified(server.seen)
    assert sorted(body["data"]["n"] for body in bodies) == [0, 1, 2]
    assert {body["event"] for body in bodies} == {"server.error"}
    assert {request.header("x-pluggedin-event") for request in server.seen} == {"server.error"}
    rows = await delivering.deliveries(webhook)
    assert [(row.status, row.attempts, row.response_status) for row in rows] == [("delivered", 1, 200)] * 3


@pytest.mark.requirement("webhooks.schedule")
async def test_a_failing_receiver_is_tried_six_times_by_the_schedule_with_the_same_id(delivering: Delivering, clock: FakeClock) -> None:
    async with Receiver(status=500, body=b"broken").server as server:
        webhook = await delivering.webhook(server.url)
        await delivering.happen()
        await delivering.rounds()
        for count, wait_s in enumerate(RETRIES_S, 1):
            assert len(server.seen) == count
            [row] = await delivering.deliveries(webhook)
            assert row.status == "pending"
            assert row.next_at == pytest.approx(clock.time() + wait_s, rel=0, abs=0.1 * wait_s)
            clock.advance(0.89 * wait_s)
            await delivering.rounds()
            assert len(server.seen) == count  # not sooner
            clock.advance(0.22 * wait_s)
            await delivering.rounds()
        clock.advance(DAY_S)
        await delivering.rounds()
    assert [body["retry_count"] for body in verified(server.seen)] == [0, 1, 2, 3, 4, 5]
    assert len(set(ids(server.seen))) == 1
    [row] = await delivering.deliveries(webhook)
    assert (row.status, row.attempts, row.next_at) == ("failed", 6, None)
    assert (row.response_status, row.response_excerpt, row.error) == (500, "broken", "the receiver answered HTTP 500 Internal Server Error")


async def test_a_receiver_that_recovers_gets_it_and_is_no_longer_failing(delivering: Delivering, clock: FakeClock) -> None:
    async with Receiver(statuses=[503]).server as server:
        webhook = await delivering.webhook(server.url)
        await delivering.happen()
        await delivering.rounds()
        assert (await delivering.now_is(webhook)).failing_since == clock.time()
        clock.advance(70)
        await delivering.rounds()
    assert len(server.seen) == 2
    assert (await delivering.now_is(webhook)).failing_since is None


@pytest.mark.requirement("webhooks.gone")
async def test_410_switches_the_webhook_off_and_says_so(delivering: Delivering, clock: FakeClock) -> None:
    async with Receiver(status=410).server as gone, Receiver().server as other:
        webhook = await delivering.webhook(gone.url, "server.error")
        await delivering.webhook(other.url, "webhook.disabled")
        await delivering.happen()
        await delivering.rounds(2)
        await delivering.happen()
        await delivering.rounds(2)
    assert len(gone.seen) == 1
    now_is = await delivering.now_is(webhook)
    assert (now_is.active, now_is.disabled) == (False, "gone")
    [body] = verified(other.seen)
    assert (body["event"], body["data"]["reason"]) == ("webhook.disabled", "gone")
    async with delivering.database.read() as connection:
        assert len(await list_lately(connection, webhook.space_id, WEBHOOK_DISABLED, START_AT - 1)) == 1
    check_body({name: value for name, value in body.items() if name != "retry_count"})


@pytest.mark.requirement("webhooks.outage-of-days")
async def test_a_receiver_that_is_down_for_days_is_switched_off_at_120_hours_and_gets_all_by_recover(
    delivering: Delivering, clock: FakeClock
) -> None:
    down = Receiver(status=500)
    async with down.server as server:
        webhook = await delivering.webhook(server.url, "server.error")
        began = clock.time()
        for _ in range(5):
            await delivering.happen(4)
            await delivering.rounds()
            clock.advance(23.99 * HOUR_S)
        assert (await delivering.now_is(webhook)).active
        clock.now = began + 5 * DAY_S - 1
        await delivering.rounds()
        assert (await delivering.now_is(webhook)).active
        clock.now = began + 5 * DAY_S
        await delivering.happen(1)
        await delivering.rounds()
        now_is = await delivering.now_is(webhook)
        assert (now_is.active, now_is.disabled, now_is.failing_since) == (False, "failing", began)
        await delivering.happen(3)  # told to nobody
        await delivering.rounds()
        down.status, tried = 200, len(server.seen)
        async with delivering.database.unit_of_work() as uow:
            await update_webhook(uow, delivering.caller, webhook.id, WebhookUpdate(active=True), delivering.keeper)
        done = await _recover(delivering, webhook.id, began)
        await delivering.rounds(30)
        again = await _recover(delivering, webhook.id, began)
        await delivering.rounds()
    assert done.count >= 3 and again.count == 0
    verified(server.seen)
    delivered = ids(server.seen[tried:])
    assert len(delivered) == len(set(delivered)) == 5 * 4 + 1 + 3
    assert set(ids(server.seen[:tried])) <= set(delivered)


async def _recover(delivering: Delivering, webhook_id: str, since: float) -> Any:
    from_then_on = (since, since + 100 * DAY_S)
    return await recover(delivering.database, THE_HUB, delivering.caller, webhook_id, from_then_on, delivering.keeper)


@pytest.mark.requirement("webhooks.ordered")
async def test_an_ordered_webhook_gets_one_after_the_other_and_waits_for_the_one_that_fails(
    delivering: Delivering, clock: FakeClock
) -> None:
    at_once = most = 0
    numbers: list[int] = []
    failing = {3}

    async def answer(seen: Seen, _writer: asyncio.StreamWriter) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        number = seen.json["data"]["n"]
        numbers.append(number)
        return reply(500 if number in failing else 200)

    async with HttpServer(answer) as server:
        webhook = await delivering.webhook(server.url, ordered=True)
        await delivering.happen(8)
        await delivering.rounds(3)
        assert numbers == [0, 1, 2, 3]
        failing.clear()
        clock.advance(MINUTE_S * 1.1)
        await delivering.rounds(3)
        assert (numbers, most) == ([0, 1, 2, 3, 3, 4, 5, 6, 7], 1)
        # Out of order and into it again, nothing is left behind.
        failing.add(0)
        await delivering.happen(3)
        await delivering.rounds(2)
        for ordered in (False, True):
            async with delivering.database.unit_of_work() as uow:
                await update_webhook(uow, delivering.caller, webhook.id, WebhookUpdate(ordered=ordered), delivering.keeper)
            failing.clear()
            clock.advance(MINUTE_S * 1.1)
            await delivering.rounds(2)
    assert sorted(numbers[9:]) == [0, 0, 1, 2]
    assert {row.status for row in await delivering.deliveries(webhook)} == {"delivered"}


@pytest.mark.requirement("webhooks.shared")
async def test_two_hubs_share_the_work_and_what_a_dead_one_held_is_taken_over(
    delivering: Delivering, database: Database, operator: Organization, clock: FakeClock, sealer: Sealer
) -> None:
    other = Delivering(database, operator, clock, sealer, "p" * 36)
    async with database.unit_of_work() as uow:
        await uow.execute(insert(node).values([{"id": letter * 36, "seen_at": 9e9, "change_no": 0} for letter in "op"]))
    async with Receiver().server as server:
        webhook = await delivering.webhook(server.url)
        for _ in range(20):
            await delivering.happen(5)
            for one in (delivering, other):
                one.deliverer.wake()
            await asyncio.gather(delivering.deliverer.turn(), other.deliverer.turn())
        await delivering.rounds()
        await other.rounds()
        assert len(server.seen) == len(set(ids(server.seen))) == 100
        # Dead with leases in hand: its transaction was committed, its attempts were not made.
        other.deliverer._closing = True
        await other.happen(3)
        other.deliverer.wake()
        await other.deliverer.turn()
        await delivering.rounds()
        assert len(server.seen) == 100
        async with database.unit_of_work() as uow:
            await uow.execute(delete(node).where(node.c.id == "p" * 36))
        # A process that is gone is missed at once; where there is but one, what it left is due at its start, or when the lease is over.
        clock.advance(4 if database.kind == "postgresql" else 31)
        await delivering.rounds()
    assert len(set(ids(server.seen))) == 103
    assert {row.status for row in await delivering.deliveries(webhook)} == {"delivered"}


async def test_a_hub_that_stops_gives_back_what_it_has_not_begun(delivering: Delivering, database: Database) -> None:
    began = asyncio.Event()

    async def never(_seen: Seen, _writer: asyncio.StreamWriter) -> bytes | None:
        began.set()
        await asyncio.Event().wait()
        return None

    async with HttpServer(never) as server:
        await delivering.webhook(server.url)
        await delivering.happen(30)
        delivering.deliverer.wake()
        await delivering.deliverer.turn()
        with anyio.fail_after(5):
            await began.wait()
            await delivering.deliverer.aclose()
    async with database.read() as connection:
        left = await connection.execute(select(func.count()).where(delivery.c.lease_owner.is_(None), delivery.c.status == "pending"))
        assert left.scalar_one() == 30


@pytest.mark.requirement("webhooks.isolated")
async def test_a_bad_receiver_delays_no_other_and_is_asked_one_at_a_time(delivering: Delivering) -> None:
    hanging = 0

    async def hang(_seen: Seen, _writer: asyncio.StreamWriter) -> bytes | None:
        nonlocal hanging
        hanging += 1
        await asyncio.Event().wait()
        return None

    async with HttpServer(hang) as bad, Receiver(status=500).server as broken, Receiver().server as good:
        await delivering.webhook(bad.url)
        await delivering.webhook(broken.url)
        await delivering.webhook(good.url)
        await delivering.happen(100)
        delivering.deliverer.wake()
        await delivering.deliverer.turn()
        with anyio.fail_after(10):
            await good.until(lambda: len(good.seen) == 100)
            await broken.until(lambda: len(broken.seen) >= OPENS_AFTER)
        assert hanging <= 10


async def test_retry_after_is_honoured_for_all_that_goes_there(delivering: Delivering, clock: FakeClock) -> None:
    receiver = Receiver(statuses=[429], headers={"Retry-After": "300"})
    async with receiver.server as server:
        webhook = await delivering.webhook(server.url)
        await delivering.happen()
        await delivering.rounds()
        await delivering.happen(5)
        await delivering.rounds()
        assert len(server.seen) == 1
        rows = await delivering.deliveries(webhook, status="pending")
    assert len(rows) == 6
    assert clock.time() + 300 in [row.next_at for row in rows]


async def test_a_later_attempt_of_a_delivery_that_was_done_is_asked_for(delivering: Delivering) -> None:
    async with Receiver().server as server:
        webhook = await delivering.webhook(server.url)
        await delivering.happen()
        await delivering.rounds()
        [row] = await delivering.deliveries(webhook)
        async with delivering.database.unit_of_work() as uow:
            await redeliver(uow, delivering.caller, webhook.id, row.id, delivering.keeper)
        await delivering.rounds()
    first, second = verified(server.seen)
    assert (first["id"], second["retry_count"]) == (second["id"], 1)
    assert len(set(ids(server.seen))) == 1


@pytest.mark.requirement("webhooks.grant")
async def test_a_webhook_of_who_may_use_some_servers_is_told_of_those_alone(delivering: Delivering) -> None:
    delivering.caller = replace(delivering.caller, servers=frozenset({ONE}))
    async with Receiver().server as server:
        await delivering.webhook(server.url, "server.*")
        for server_id in (ONE, new_id()):
            await delivering.happen(1, server_id=server_id)
        await delivering.rounds(2)
    assert [json.loads(seen.body)["data"]["server_uuid"] for seen in server.seen] == [ONE]


async def test_old_deliveries_and_those_of_deleted_webhooks_are_removed(delivering: Delivering, clock: FakeClock) -> None:
    async with Receiver().server as server:
        first, second = [await delivering.webhook(server.url) for _ in range(2)]
        await delivering.happen(3)
        await delivering.rounds()
        clock.advance(DAY_S)
        await delivering.happen(2)
        await delivering.rounds()
        assert await prune_deliveries(delivering.database, clock.time() - HOUR_S) == 6
        assert len(await delivering.deliveries(first)) == 2
        async with delivering.database.unit_of_work() as uow:
            await delete_webhook(uow, delivering.caller, second.id, delivering.keeper)
        await delivering.rounds()
        assert await prune_deliveries(delivering.database, 0) == 2
    assert len(await delivering.deliveries(first)) >= 2
