"""From what connections report to status, logs and events."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import anyio
import pytest
import structlog
from anyio.lowlevel import checkpoint
from sqlalchemy import text
from structlog.testing import capture_logs

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.kit.ids import new_id
from plughub.servers.logs import ServerLogs
from plughub.servers.status import ServerState, StatusBoard
from plughub.upstream.target import Target
from plughub.wiring import Wiring
from tests.conftest import FakeClock
from tests.fakes.http_servers import HttpServer
from tests.serving import FakeMcp, serving, upstream

pytestmark = pytest.mark.anyio


class Desk:
    """A wiring on a real database, and what the database's listeners hear of it."""

    def __init__(self, database: Database, folder: Path, clock: FakeClock, space_id: str) -> None:
        self.database = database
        self.board = StatusBoard(clock, 100)
        self.logs = ServerLogs(folder / "logs", 10_000, clock)
        self.wiring = Wiring(database, self.board, self.logs, max_news=3)
        self.space_id = space_id
        self.heard: list[Event] = []
        self._changed = asyncio.Event()
        database.listeners += [self._hear, self.board.follow, self.wiring.follow]

    async def _hear(self, events: Sequence[Event]) -> None:
        self.heard += events
        self._changed.set()

    def target(self, slug: str = "s") -> Target:
        return Target(new_id(), self.space_id, "o", slug, "STDIO", 1, command="x")

    async def until_heard(self, count: int) -> list[tuple[str, object]]:
        with anyio.fail_after(10):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.told()

    def told(self) -> list[tuple[str, object]]:
        return [(event.name, event.data.get("error")) for event in self.heard]

    async def delete(self, target: Target) -> None:
        async with self.database.unit_of_work() as uow:
            data = {"server_uuid": target.server_id, "slug": target.slug}
            uow.emit("server.deleted", space_id=self.space_id, server_id=target.server_id, data=data)


@pytest.fixture
async def desk(database: Database, tmp_path: Path, clock: FakeClock, tenant: Organization) -> AsyncIterator[Desk]:
    desk = Desk(database, tmp_path, clock, tenant.live_space_id)
    yield desk
    await desk.wiring.aclose()


@pytest.fixture
def warnings() -> Iterator[None]:
    """Whatever another test has silenced is heard."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.mark.requirement("servers.live-status")
async def test_every_change_becomes_one_event(desk: Desk) -> None:
    desk.wiring.start()
    target = desk.target("web")
    for status, error, told in (
        ("connecting", None, 0),
        ("connected", None, 1),
        ("connected", None, 1),
        ("error", "it fell", 2),
        ("connecting", None, 2),
        ("error", "it fell", 2),
        ("error", "it fell again", 3),
        ("connecting", None, 3),
        ("connected", None, 4),
        ("disconnected", None, 5),
        ("disconnected", None, 5),
    ):
        desk.wiring.status(target, status, error)  # type: ignore[arg-type]
        assert len(await desk.until_heard(told)) == told, (status, error)
    await desk.wiring.aclose()
    assert desk.told() == [
        ("server.connected", None),
        ("server.error", "it fell"),
        ("server.error", "it fell again"),
        ("server.connected", None),
        ("server.disconnected", None),
    ]
    assert desk.heard[0].data == {"server_uuid": target.server_id, "slug": "web"}
    assert {(event.server_id, event.space_id) for event in desk.heard} == {(target.server_id, desk.space_id)}


async def test_of_changes_that_wait_the_newest_of_a_server_wins_even_when_there_is_no_room(desk: Desk) -> None:
    targets = [desk.target(f"s{number}") for number in range(5)]
    for target in targets:
        desk.wiring.status(target, "connected", None)
    desk.wiring.status(targets[0], "error", "a")
    desk.wiring.status(targets[0], "error", "b")
    desk.wiring.start()
    await desk.wiring.aclose()
    assert sorted(str(event.data["slug"]) for event in desk.heard) == ["s0", "s1", "s2"], "the bound is three servers"
    assert desk.told() == [("server.error", "b"), ("server.connected", None), ("server.connected", None)]


async def test_what_waits_is_written_at_the_end_once(desk: Desk) -> None:
    desk.wiring.start()
    first, second = desk.target(), desk.target()
    desk.wiring.status(first, "connected", None)
    for _ in range(3):  # into the middle of the write
        await checkpoint()
    desk.wiring.status(second, "connected", None)
    await desk.wiring.aclose()
    async with desk.database.read() as connection:
        kept = [event for event in await list_since(connection, desk.space_id, 0) if event.name == "server.connected"]
    assert [event.server_id for event in kept] == [first.server_id, second.server_id]


async def test_a_write_that_fails_is_logged_and_tried_again(desk: Desk, warnings: None) -> None:
    desk.wiring.start()
    await rename(desk.database, "event", "gone_event")
    with capture_logs() as logs, anyio.fail_after(10):
        desk.wiring.status(desk.target("first"), "connected", None)
        while not logs:
            await checkpoint()
    assert {line["event"] for line in logs} == {"server_events_not_written"}
    await rename(desk.database, "gone_event", "event")
    desk.wiring.status(desk.target("second"), "connected", None)
    await desk.until_heard(2)
    assert [event.data["slug"] for event in desk.heard] == ["first", "second"]


async def test_a_database_that_is_gone_does_not_break_the_end(desk: Desk, warnings: None) -> None:
    desk.wiring.start()
    await rename(desk.database, "event", "gone_event")
    with capture_logs() as logs:
        desk.wiring.status(desk.target(), "connected", None)
        await desk.wiring.aclose()
    assert [line["event"] for line in logs] == ["server_events_not_written"]
    await rename(desk.database, "gone_event", "event")


async def test_a_space_that_is_gone_costs_its_own_news_alone(desk: Desk) -> None:
    desk.wiring.status(Target(new_id(), new_id(), "o", "lost", "STDIO", 1), "connected", None)
    desk.wiring.status(desk.target("kept"), "connected", None)
    desk.wiring.start()
    await desk.until_heard(1)
    assert [event.data["slug"] for event in desk.heard] == ["kept"]


@pytest.mark.requirement("servers.delete")
async def test_a_deleted_server_leaves_no_log_no_status_and_no_late_news(desk: Desk) -> None:
    gone, other = desk.target("gone"), desk.target("other")
    for target in (gone, other):
        desk.wiring.log(target, "said")
        desk.wiring.status(target, "connected", None)
    await desk.delete(gone)
    desk.wiring.status(gone, "disconnected", None)
    desk.wiring.log(gone, "said too late")
    desk.wiring.count_tools(gone, 1)
    assert desk.logs.tail(gone.server_id, 9) == [] and not desk.logs.path(gone.server_id).exists()
    assert desk.board.get(gone.server_id) == ServerState()
    assert len(desk.logs.tail(other.server_id, 9)) == 1
    desk.wiring.start()
    await desk.wiring.aclose()
    assert [(event.name, event.data["slug"]) for event in desk.heard] == [("server.deleted", "gone"), ("server.connected", "other")]


async def test_what_is_reported_never_raises(desk: Desk, tmp_path: Path, warnings: None) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    target = desk.target()

    def report() -> None:
        desk.wiring.log(target, "line \ud800")
        desk.wiring.notification(target, "notifications/tools/list_changed", {})
        desk.wiring.notification(target, "\ud800", {"x": b"1"})
        for status in ("connecting", "connected", "error", "disconnected"):
            desk.wiring.status(target, status, "e \ud800")  # type: ignore[arg-type]

    report()
    with capture_logs() as logs:
        await desk.delete(target)
    assert [line["event"] for line in logs] == ["server_log_not_removed"]
    await desk.wiring.aclose()
    report()


@pytest.mark.requirement("servers.delete")
async def test_servers_that_are_deleted_at_once_leave_nothing_behind(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path) as served:
        await served.settled()
        made = []
        for number in range(3):
            body = {"name": f"s{number}", "type": "STDIO", "config": {"command": "sh", "args": ["-c", "echo noise >&2; cat"]}}
            made.append((await served.call("POST", "/api/servers", body)).json()["uuid"])
            assert (await served.call("DELETE", f"/api/servers/{made[-1]}")).status_code == 204
        async with upstream(served, FakeMcp()) as web:
            made.append(web["uuid"])
            await served.call("GET", f"/api/servers/{web['uuid']}/tools")
        operator = await served.operator()
    database = Database(f"sqlite:///{tmp_path}/plughub.db", served.clock)
    async with database.read() as connection:
        events = await list_since(connection, operator.live_space_id, 0)
    await database.aclose()
    for server_id in made:
        assert not list((tmp_path / "logs").glob(f"{server_id}*"))
        assert [event.name for event in events if event.server_id == server_id and event.change_no][-1] == "server.deleted"


@pytest.mark.requirement("servers.live-status")
async def test_after_a_restart_of_the_hub_tools_are_counted_when_somebody_lists_them(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    url = f"sqlite:///{tmp_path}/plughub.db"
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("a", "b")]
    async with HttpServer(FakeMcp(tools=tools)) as server:
        async with serving(url, tmp_path) as before:
            key, path = before.key, f"/api/servers/{(await before.register('counted', server.url))['uuid']}"
        async with serving(url, tmp_path, secrets=before.secrets) as after:
            assert (await after.call("GET", path, key=key)).json()["tools_count"] is None
            assert (await after.rpc("tools/list", key=key)).status_code == 200
            assert (await after.call("GET", path, key=key)).json()["tools_count"] == 2


async def rename(database: Database, table: str, name: str) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


async def test_a_creation_that_is_told_late_outdates_no_list(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path) as served:
        await served.settled()
        hub, founder = served.app.hub, (await served.operator()).founder()
        assert (await served.call("GET", f"/api/servers/{served.demo_id}/tools")).status_code == 200
        target = await hub.exchange.target(founder, served.demo_id)
        kept = hub.catalog.known(target)
        assert kept is not None
        created = Event(founder.space_id, 1, "server.created", 0.0, 1, served.demo_id, None, {})
        await served.app.wiring.follow([created])
        assert hub.catalog.known(target) is kept
