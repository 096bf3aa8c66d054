"""From the log to notifications, on both databases."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from sqlalchemy import insert, select, update

from plughub.db.engine import Database
from plughub.db.tables import event, job
from plughub.db.unit_of_work import Event
from plughub.db.watch_tables import notification, notification_cursor
from plughub.identity.letters import prepare
from plughub.identity.people import insert_membership, insert_person
from plughub.identity.roles import Role
from plughub.identity.service import Organization
from plughub.jobs.loop import JobLoop
from plughub.jobs.prune_notifications import DAY_S, KIND, handler
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.notifications import service, store
from plughub.notifications.notifier import Notifier, consume
from plughub.notifications.schemas import NotificationCreate
from plughub.notifications.service import MAILS_AN_HOUR, Letters
from plughub.notifications.store import KEPT, Notification
from plughub.notifications.tellings import TELLINGS, telling_of
from plughub.settings import Settings
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio
FELL = {"server_uuid": "s", "slug": "web", "error": "it fell"}
LEAKED = {"key_id": "k", "name": "ci", "reason": "leaked", "url": "https://example.com/x"}


class Desk:
    """A notifier that runs when it is told to, and what there is then."""

    def __init__(self, database: Database, sealer: Sealer, organization: Organization) -> None:
        self.database = database
        self.sealer = sealer
        self.letters = Letters(sealer, enabled=True)
        self.notifier = Notifier(database, self.letters)
        self.organization = organization
        self.space_id = organization.live_space_id

    async def emit(self, name: str, data: Mapping[str, Any], *, server_id: str | None = None, key_id: str | None = None) -> None:
        async with self.database.unit_of_work() as uow:
            uow.emit(name, space_id=self.space_id, data=data, server_id=server_id, key_id=key_id)

    async def told(self) -> list[Notification]:
        """All, oldest first."""
        await self.notifier.tell_all()
        async with self.database.read() as connection:
            items, _ = await store.list_notifications(connection, [notification.c.space_id == self.space_id], 10_000, 0)
        return items[::-1]

    async def person(self, role: Role, *, verified: bool = True) -> str:
        async with self.database.unit_of_work() as uow:
            made = await insert_person(uow, f"{role}-{new_id()}@example.com", role, "x", verified=verified)
            await insert_membership(uow, self.organization.id, made.id, role)
        return made.id

    async def mails(self) -> list[tuple[str, str]]:
        """(role of whom, text) of the letters that wait."""
        async with self.database.read() as connection:
            payloads = (await connection.execute(select(job.c.payload).where(job.c.kind == "letter"))).scalars().all()
        found = []
        for payload in payloads:
            mail = await prepare(self.database, self.sealer, json.loads(payload), "https://hub.example.com", mails=True)
            assert mail is not None
            found.append((mail.to.partition("-")[0], mail.text))
        return sorted(found)


@pytest.fixture
async def desk(database: Database, sealer: Sealer, tenant: Organization) -> Desk:
    desk = Desk(database, sealer, tenant)
    async with database.unit_of_work() as uow:
        assert await consume(uow, desk.letters) == 0  # what was before is nobody's news
    return desk


@pytest.mark.requirement("notifications.fed-by-the-log")
async def test_an_event_becomes_a_notification_once_and_most_become_none(desk: Desk, clock: FakeClock) -> None:
    server_id, key_id = new_id(), new_id()
    await desk.emit("server.error", FELL, server_id=server_id)
    await desk.emit("server.connected", {"slug": "new"}, server_id=new_id())
    await desk.emit("key.created", {"name": "x"}, key_id=key_id)
    await desk.emit("key.revoked", {"name": "ended by hand"}, key_id=key_id)
    clock.advance(1)
    await desk.emit("key.revoked", LEAKED, key_id=key_id)
    await desk.emit("server.connected", {"slug": "web", "previous": "error"}, server_id=server_id)
    told = await desk.told()
    assert [(each.event, each.severity, each.title) for each in told] == [
        ("server.error", "WARNING", "Server 'web' has failed"),
        ("key.revoked", "ALERT", "Key 'ci' was revoked"),
        ("server.connected", "SUCCESS", "Server 'web' is back"),
    ]
    assert (told[0].message, told[0].link, told[0].server_id) == ("it fell", f"/api/servers/{server_id}/health", server_id)
    assert "https://example.com/x" in told[1].message and told[1].key_id == key_id
    assert await desk.told() == told
    async with desk.database.read() as connection:
        created = (await connection.execute(select(event).where(event.c.name == "notification.created").order_by(event.c.seq))).all()
    assert [json.loads(row.data)["notification_id"] for row in created] == [each.id for each in told]
    assert {row.server_id for row in created} == {server_id, None}


@pytest.mark.requirement("notifications.fed-by-the-log")
async def test_two_processes_at_it_tell_each_event_once(desk: Desk, database: Database, sealer: Sealer) -> None:
    others = [Database(database.url.render_as_string(hide_password=False), database.clock) for _ in range(2)]
    notifiers = [Notifier(each, Letters(sealer, enabled=False)) for each in (database, *others)]
    if database.kind == "sqlite":  # one process owns the file
        notifiers = notifiers[:1] * 3
    for number in range(20):
        await desk.emit("server.error", FELL, server_id=f"s{number}")
        await asyncio.gather(*(each.tell_all() for each in notifiers))
    for other in others:
        await other.aclose()
    assert [each.server_id for each in await desk.told()] == [f"s{number}" for number in range(20)]


@pytest.mark.requirement("notifications.fed-by-the-log")
async def test_what_is_cut_off_is_told_by_the_next_and_not_twice(desk: Desk) -> None:
    await desk.emit("server.error", FELL, server_id="s")
    with pytest.raises(ZeroDivisionError):
        async with desk.database.unit_of_work() as uow:
            assert await consume(uow, desk.letters) == 1
            raise ZeroDivisionError
    assert len(await desk.told()) == 1
    after = Notifier(desk.database, desk.letters)
    await after.start()
    await after.aclose()
    assert len(await desk.told()) == 1


@pytest.mark.requirement("notifications.fed-by-the-log")
async def test_it_is_woken_by_what_happens_and_catches_up_at_a_start(desk: Desk) -> None:
    await desk.emit("server.error", FELL, server_id="before")
    desk.database.listeners.append(desk.notifier.follow)
    await desk.notifier.start()
    await desk.emit("server.error", FELL, server_id="after")
    with anyio.fail_after(10):
        while True:
            async with desk.database.read() as connection:
                found = (await connection.execute(select(notification.c.server_id).order_by(notification.c.server_id))).scalars().all()
            if found == ["after", "before"]:
                break
    await desk.notifier.aclose()


async def test_an_event_of_a_space_that_is_gone_holds_up_nobody(desk: Desk) -> None:
    await desk.emit("server.error", FELL, server_id="s")
    async with desk.database.unit_of_work() as uow:
        await uow.execute(update(event).where(event.c.name == "server.error").values(space_id=new_id()))
    await desk.emit("server.error", FELL, server_id="t")
    assert [each.server_id for each in await desk.told()] == ["t"]


@pytest.mark.requirement("notifications.bounded")
async def test_the_same_again_is_counted_while_nobody_has_read_it(desk: Desk, clock: FakeClock) -> None:
    caller = desk.organization.founder("live")
    for number in range(3):
        clock.advance(600)
        await desk.emit("server.error", {**FELL, "error": f"fall {number}"}, server_id="s")
        await desk.emit("server.error", FELL, server_id="another")
    [one, _] = sorted(await desk.told(), key=lambda each: str(each.server_id), reverse=True)
    assert (one.times, one.message, one.last_at - one.created_at) == (3, "fall 2", 1200)
    async with desk.database.unit_of_work() as uow:
        await service.mark_read(uow, caller, one.id)
    await desk.emit("server.error", FELL, server_id="s")
    clock.advance(3601)
    await desk.emit("server.error", FELL, server_id="s")
    assert [each.times for each in await desk.told() if each.server_id == "s"] == [3, 1, 1]


@pytest.mark.requirement("notifications.bounded")
async def test_a_space_keeps_a_thousand_and_none_for_ever(desk: Desk, clock: FakeClock, settings: Settings) -> None:
    caller = desk.organization.founder("live")
    async with desk.database.unit_of_work() as uow:
        first = await service.create(uow, caller, NotificationCreate(message="m"), desk.letters)
        row = (await uow.execute(select(notification))).mappings().one()
        await uow.execute(insert(notification), [{**row, "id": new_id()} for _ in range(KEPT - 1)])
    clock.advance(1)
    for _ in range(5):
        async with desk.database.unit_of_work() as uow:
            await service.create(uow, caller, NotificationCreate(message="m"), desk.letters)
    told = await desk.told()
    assert len(told) == KEPT and sum(each.created_at > first.created_at for each in told) == 5
    clock.advance(settings.event_retention_days * DAY_S)
    jobs = JobLoop(desk.database, {KIND: handler(settings)})
    await jobs.start()
    await jobs.aclose()
    await jobs.run_due()
    assert len(await desk.told()) == 5


@pytest.mark.requirement("notifications.mail")
async def test_severe_ones_are_mailed_to_those_who_answer_for_the_organisation(desk: Desk) -> None:
    for role in ("owner", "admin", "member", "viewer"):
        await desk.person(role)  # type: ignore[arg-type]
    await desk.person("admin", verified=False)
    quiet = await desk.person("owner")
    async with desk.database.unit_of_work() as uow:
        await service.set_mail(uow, quiet, desk.organization.id, mail=False)
    await desk.emit("server.error", FELL, server_id="s")
    assert not (await desk.told())[0].mailed and await desk.mails() == []
    await desk.emit("key.revoked", {**LEAKED, "name": "ci\r\nBcc: everybody@example.com"}, key_id=new_id())
    assert (await desk.told())[1].mailed
    mails = await desk.mails()
    assert [role for role, _ in mails] == ["admin", "owner"]
    for _, text in mails:
        assert text.startswith("Key 'ci Bcc: everybody@example.com' was revoked\n") and "https://hub.example.com" in text


@pytest.mark.requirement("notifications.mail")
async def test_however_much_goes_wrong_ten_an_hour_are_mailed(desk: Desk, clock: FakeClock) -> None:
    await desk.person("owner")
    for _ in range(MAILS_AN_HOUR + 5):
        await desk.emit("key.revoked", LEAKED, key_id=new_id())
    assert sum(each.mailed for each in await desk.told()) == len(await desk.mails()) == MAILS_AN_HOUR
    clock.advance(3601)
    await desk.emit("key.revoked", LEAKED, key_id=new_id())
    assert (await desk.told())[-1].mailed


@pytest.mark.requirement("notifications.mail")
async def test_without_a_mail_server_nobody_is_written_to(desk: Desk, sealer: Sealer) -> None:
    await desk.person("owner")
    desk.notifier = Notifier(desk.database, Letters(sealer, enabled=False))
    await desk.emit("key.revoked", LEAKED, key_id=new_id())
    assert not (await desk.told())[0].mailed and await desk.mails() == []


@pytest.mark.parametrize("name", sorted(TELLINGS))
def test_every_event_of_the_table_is_told_of_whatever_its_data_lack(name: str) -> None:
    server_id = new_id()
    for data in ({}, {"slug": None, "flag": 7, "threshold": "x", "expires_at": "x", "role": [], "days": {}}, {"error": "x" * 9_000}):
        telling = telling_of(Event("s", 1, name, 0.0, 1, server_id, None, data))
        assert telling is None or (telling.title and telling.message and len(telling.message) < 700)
    whole = {"previous": "error", "reason": "leaked", "flag": "unusual_volume", "days": 1, "expires_at": 0.0, "calls": 5, "email": "a@b.c"}
    telling = telling_of(Event("s", 1, name, 0.0, 1, server_id, new_id(), whole))
    assert telling is not None and telling.link and telling.link.startswith("/api/") and "a@b.c" not in repr(telling)


async def test_the_cursor_moves_past_what_is_no_news(desk: Desk) -> None:
    for _ in range(3):
        await desk.emit("key.created", {})
    await desk.notifier.tell_all()
    async with desk.database.read() as connection:
        cursor = (await connection.execute(select(notification_cursor.c.change_no))).scalar_one()
        newest = (await connection.execute(select(event.c.change_no).order_by(event.c.change_no.desc()).limit(1))).scalar_one()
    assert cursor == newest
