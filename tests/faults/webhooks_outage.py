"""A receiver that is down for days and then gets everything by recover, on a held clock; and payloads for every official library."""

import random
import time
from typing import Any

from plughub.db.audit import THE_HUB
from plughub.db.engine import Database
from plughub.db.migrate import migrate
from plughub.identity.service import ensure_operator
from plughub.kit.crypto import Sealer
from plughub.webhooks.deliveries import recover
from plughub.webhooks.formatters import own_body, with_retry_count
from plughub.webhooks.schedule import DAY_S, HOUR_S
from plughub.webhooks.schemas import WebhookUpdate
from plughub.webhooks.service import update_webhook
from plughub.webhooks.signing import Signer, generate_secret
from tests.conftest import CHAIN, FakeClock
from tests.faults.board import Board
from tests.flows.running_hub import RunningHub
from tests.webhooks.delivering import Delivering, Receiver, verified
from tests.webhooks.judges import Sent, headers_of, node_judges, python_judges


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """72 h down and back, 120 h down and switched off; 15 cases and random payloads."""
    await _outage(hub, board, 72, 10_000 if full else 200)
    await _outage(hub, board, 120, 1200 if full else 240)
    _judged(board, 10_000 if full else 300)


async def _outage(hub: RunningHub, board: Board, hours: int, count: int) -> None:
    clock = FakeClock()
    database = Database(f"sqlite:///{hub.data_dir.with_name(f'outage-{hours}.db')}", clock, CHAIN)
    await migrate(database)
    async with database.unit_of_work() as uow:
        operator = await ensure_operator(uow)
    assert operator is not None
    delivering, down = Delivering(database, operator, clock, Sealer({1: b"s" * 32})), Receiver(status=500)
    async with down.server as server:
        webhook = await delivering.webhook(server.url, "server.error")
        began = clock.time()
        for hour in range(hours):
            clock.now = began + hour * HOUR_S
            await delivering.happen(count // hours)
            await _work(delivering)
        clock.now = began + hours * HOUR_S
        await delivering.happen(1)
        await _work(delivering)
        now_is = await delivering.now_is(webhook)
        switched_off = hours * HOUR_S >= 5 * DAY_S
        board.none(
            f"down for {hours} h: active" if switched_off else f"down for {hours} h: switched off",
            [now_is] * (now_is.active is switched_off),
        )
        down.status, tried = 200, len(server.seen)
        if switched_off:
            async with database.unit_of_work() as uow:
                await update_webhook(uow, delivering.caller, webhook.id, WebhookUpdate(active=True), delivering.keeper)
        await recover(database, THE_HUB, delivering.caller, webhook.id, (began, began + 100 * DAY_S), delivering.keeper)
        await _work(delivering)
        made = count // hours * hours + 1
        before = {dict(seen.headers)["webhook-id"] for seen in server.seen[:tried]}
        after = [dict(seen.headers)["webhook-id"] for seen in server.seen[tried:]]
        board.at_most(f"of {made} events not delivered", made - len(set(after)), 0)
        board.at_most("delivered twice", len(after) - len(set(after)), 0)
        board.none("under another id than before", sorted(before - set(after)))
        verified(server.seen)
        await delivering.deliverer.aclose()
    await database.aclose()


async def _work(delivering: Delivering) -> None:
    """Turns until one finds nothing to do."""
    while True:
        delivering.deliverer.wake()
        await delivering.deliverer.turn()
        await delivering.deliverer.quiet()
        if not delivering.deliverer.busy:
            return


def _judged(board: Board, count: int) -> None:
    random_ = random.Random(17)
    secrets, all_sent = [generate_secret(), "a plain secret"], []
    for number in range(count):
        event = {"id": f"evt_e_{number}", "event": "tool.executed", "data": _value(random_, 3)}
        body = with_retry_count(own_body({**event, "data": {"value": event["data"]}}), number % 6)
        secret, old = secrets[number % 2], secrets[1 - number % 2]
        signer = Signer.of(secret, old if number % 3 == 0 else None)
        lines = signer.headers(f"msg_{number}", int(time.time()), body)
        all_sent.append(Sent(secret, headers_of(lines), body.decode()))
    flipped = [Sent(sent.secret, sent.headers, sent.body.replace("evt_e_", "evt_f_", 1)) for sent in all_sent]
    board.none(f"of {count} refused in Python", [sent.body[:200] for sent in all_sent if python_judges(sent) != [True, True]])
    board.none("changed, and accepted in Python", [sent.body[:200] for sent in flipped if any(python_judges(sent))])
    node = node_judges(all_sent)
    board.none("refused under Node", [one for one in node if not (one["standard"] and one["svix"])])
    # In an overlap the documented header is signed with the secret before.
    board.none("refused by the documented check", [n for n, one in enumerate(node) if one["documented"] is (n % 3 == 0)])
    board.none("changed, and accepted under Node", [one for one in node_judges(flipped) if any(one.values())])


def _value(random_: random.Random, depth: int) -> Any:
    kind = random_.randrange(7 if depth else 5)
    if kind == 5:
        return [_value(random_, depth - 1) for _ in range(random_.randrange(4))]
    if kind == 6:
        return {str(random_.choice([random_.randrange(100), "ü", "a b"])): _value(random_, depth - 1) for _ in range(random_.randrange(4))}
    number = random_.uniform(-1, 1) * 10 ** random_.randrange(-20, 30)
    text = "".join(chr(random_.choice([random_.randrange(32, 127), random_.randrange(0x20, 0xD800)])) for _ in range(8))
    return [None, True, random_.randrange(-(2**60), 2**60), number, text][kind]
