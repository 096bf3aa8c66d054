"""Alerts fire once and are resolved once, whoever looks."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import insert, select

from plughub.db.engine import Database
from plughub.db.tables import job, server, server_health
from plughub.db.writer import BatchingWriter
from plughub.events.log import list_since
from plughub.identity.letters import prepare
from plughub.identity.people import insert_membership, insert_person
from plughub.identity.service import Organization
from plughub.kit.crypto import Sealer
from plughub.kit.errors import AlertNotFound, Conflict, Forbidden, Invalid
from plughub.kit.ids import new_id, public_id
from plughub.servers.schemas import ServerCreate
from plughub.servers.service import create_server
from plughub.settings import Settings
from plughub.usage.alerts import MOST, Alert, AlertCreate, AlertUpdate, create_alert, delete_alert, get_alert, list_alerts, update_alert
from plughub.usage.watch import watch
from tests.conftest import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("usage.alerts")]


class Desk:
    """Alerts of one organisation, what is called, and what is told."""

    def __init__(self, database: Database, organization: Organization, settings: Settings, sealer: Sealer) -> None:
        self.database = database
        self.organization = organization
        self.space = organization.live_space_id
        self.settings = settings
        self.sealer = sealer

    async def make(self, metric: str, threshold: float, *, mails: bool = False, **given: Any) -> Alert:
        body = AlertCreate.model_validate({"metric": metric, "threshold": threshold, **given})
        async with self.database.unit_of_work() as uow:
            return await create_alert(uow, self.organization.founder(), body, mails=mails)

    async def change(self, alert: Alert, **given: Any) -> Alert:
        async with self.database.unit_of_work() as uow:
            return await update_alert(uow, self.organization.founder(), alert.id, AlertUpdate.model_validate(given), mails=False)

    async def call(
        self, count: int, *, failed: int = 0, server_id: str = "s", duration_us: int = 1000, name: str = "tool.executed"
    ) -> None:
        writer, at = BatchingWriter(self.database, self.settings), self.database.clock.time()
        for number in range(count):
            wrong = number < failed
            writer.record((self.space, name, at, server_id, "k", "t", "r", "ok", wrong, duration_us, "api", '{"in":1,"out":1}'))
        await writer.aclose()

    async def told(self) -> list[tuple[str, float | None]]:
        """Look twice at once; what was told since the last time: the event and its value."""
        await asyncio.gather(*(watch(self.database, self.sealer) for _ in range(2)))
        return [(event.name.removeprefix("alert."), event.data["value"]) for event in await self.events()]

    async def events(self) -> list[Any]:
        async with self.database.read() as connection:
            events = await list_since(connection, self.space, 0, 100_000)
        return [event for event in events if event.name in ("alert.fired", "alert.resolved")]

    async def server(self) -> str:
        body = ServerCreate(name="s", type="STREAMABLE_HTTP", config={"url": "https://example.com/mcp"})
        async with self.database.unit_of_work() as uow:
            return (await create_server(uow, self.organization.founder(), body, self.sealer)).id


@pytest.fixture
def desk(database: Database, tenant: Organization, settings: Settings, sealer: Sealer) -> Desk:
    return Desk(database, tenant, settings, sealer)


async def test_an_alert_fires_once_and_is_resolved_once(desk: Desk, clock: FakeClock) -> None:
    alert = await desk.make("calls", 5)
    await desk.call(4)
    assert await desk.told() == []
    await desk.call(1)
    assert await desk.told() == [("fired", 5.0)] == await desk.told()
    async with desk.database.read() as connection:
        found = await get_alert(connection, desk.organization.founder(), alert.id)
    assert (found.firing, found.since_at, found.value) == (True, clock.now, 5.0)
    clock.advance(400)
    assert await desk.told() == [("fired", 5.0), ("resolved", 0.0)] == await desk.told()
    await desk.call(9)
    assert (await desk.told())[2:] == [("fired", 9.0)]
    [event, *_] = await desk.events()
    expected = {"alert_id": alert.id, "name": "calls", "metric": "calls", "threshold": 5.0, "window": 300}
    assert event.data == {**expected, "value": 5.0, "channel": "webhook"}


async def test_shares_and_times_are_of_the_window_and_of_the_server_alone(desk: Desk, clock: FakeClock) -> None:
    server_id = await desk.server()
    await desk.make("error_rate", 0.5, window=600, server=public_id("mcp", server_id))
    await desk.make("latency_p95_ms", 250, window=86_400)
    await desk.call(4, failed=4, server_id=server_id)
    await desk.call(20)
    assert await desk.told() == [], "of four calls a share says nothing, and it says nothing of other servers"
    await desk.call(6, failed=1, server_id=server_id)
    assert await desk.told() == [("fired", 0.5)]
    await desk.call(5, duration_us=300_000)
    assert [name for name, _ in await desk.told()] == ["fired", "fired"]
    clock.advance(7200)
    assert [name for name, _ in await desk.told()] == ["fired", "fired", "resolved"], "the day is not over"


async def test_a_share_of_the_hour_is_what_the_tier_allows(desk: Desk) -> None:
    await desk.make("limit_share", 0.8, window=3600)
    await desk.call(79, name="request.completed")
    assert await desk.told() == []
    await desk.call(1)
    assert await desk.told() == [("fired", 0.8)]


async def test_a_server_is_down_when_it_was_all_through_the_window(desk: Desk, clock: FakeClock) -> None:
    server_id = await desk.server()
    await desk.make("servers_down", 1, window=120, server=server_id)

    async def seen(status: str) -> None:
        values = {"id": new_id(), "server_id": server_id, "at": clock.now, "kind": "status", "status": status}
        async with desk.database.unit_of_work() as uow:
            await uow.execute(insert(server_health).values(**values))

    await seen("connected")
    clock.advance(10)
    await seen("error")
    clock.advance(119)
    assert await desk.told() == []
    clock.advance(1)
    assert await desk.told() == [("fired", 1.0)]
    await seen("connected")
    clock.advance(1)
    assert await desk.told() == [("fired", 1.0), ("resolved", 0.0)]


async def test_a_change_ends_what_fires_and_a_removal_too(desk: Desk) -> None:
    alert = await desk.make("calls", 1)
    await desk.call(1)
    await desk.told()
    assert (await desk.change(alert, threshold=1.0)).firing is False
    assert [event.data.get("reason") for event in await desk.events()] == [None, "changed"]
    assert [name for name, _ in await desk.told()] == ["fired", "resolved", "fired"]
    async with desk.database.unit_of_work() as uow:
        await delete_alert(uow, desk.organization.founder(), alert.id)
    assert [event.data.get("reason") for event in await desk.events()] == [None, "changed", None, "deleted"]
    other = await desk.make("calls", 1, enabled=False)
    assert len(await desk.told()) == 4
    await desk.change(other, enabled=True, server=None, key=None, name="Any", window=60, channel="notification", metric="calls")
    assert len(await desk.told()) == 5


async def test_a_mail_goes_to_a_member_and_to_nobody_who_is_none_any_more(desk: Desk, database: Database) -> None:
    async with database.unit_of_work() as uow:
        ada = await insert_person(uow, "ada@example.com", "Ada", "-", verified=True)
        await insert_membership(uow, desk.organization.id, ada.id, "owner")
    for wrong, field in (({"mails": False}, "channel"), ({"mails": True, "email": "bob@example.com"}, "email"), ({"mails": True}, "email")):
        with pytest.raises(Invalid) as refused:
            await desk.make("calls", 1, channel="email", **wrong)
        assert refused.value.errors[0]["field"] == field
    await desk.make("calls", 1, channel="email", email="Ada@example.com", mails=True)
    await desk.call(1)
    await desk.told()
    async with database.read() as connection:
        letters = (await connection.execute(select(job.c.payload).where(job.c.kind == "letter"))).all()
    assert len(letters) == 1
    mail = await prepare(database, desk.sealer, json.loads(letters[0].payload), "https://hub.example", mails=True)
    assert mail is not None and (mail.to, mail.subject) == ("ada@example.com", "An alert has fired")
    assert mail.text.startswith("calls: calls of 1 or more over 300 s; it is 1 now.\n\nhttps://hub.example/")


@pytest.mark.parametrize(
    "wrong",
    [{"metric": "joy"}, {"threshold": -1}, {"threshold": float("nan")}, {"window": 59}, {"window": 86_401}, {"name": ""}, {"x": 1}],
)
def test_what_is_no_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AlertCreate.model_validate({"metric": "calls", "threshold": 1, **wrong})


async def test_rules_are_bounded_and_nobody_watches_what_they_may_not_see(desk: Desk, tenant: Organization, database: Database) -> None:
    server_id = await desk.server()
    seen = await desk.make("calls", 1, server=server_id)
    hidden = await desk.make("calls", 1)
    caller = tenant.founder()
    narrow = replace(caller, servers=frozenset({server_id}))
    async with database.unit_of_work() as uow:
        assert [one.id for one in (await list_alerts(uow.connection, narrow, limit=9, offset=0)).items] == [seen.id]
        for refused in (tenant.founder("test"), narrow):
            with pytest.raises(AlertNotFound):
                await get_alert(uow.connection, refused, hidden.id)
        with pytest.raises(Forbidden):
            await update_alert(uow, narrow, seen.id, AlertUpdate(server=None), mails=False)
    for given in ({"server": new_id()}, {"key": new_id()}, {"metric": "limit_share"}, {"metric": "error_rate", "threshold": 2}):
        with pytest.raises(Invalid):
            await desk.make(**{"metric": "calls", "threshold": 1, **given})
    for _ in range(MOST - 2):
        await desk.make("calls", 1, enabled=False)
    with pytest.raises(Conflict):
        await desk.make("calls", 1)
    async with database.unit_of_work() as uow:
        await uow.execute(server.delete().where(server.c.id == server_id))
        assert (await list_alerts(uow.connection, caller, limit=1, offset=0)).total == MOST - 1
