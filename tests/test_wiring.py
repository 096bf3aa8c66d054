"""From what connections report to status, logs and events."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
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
from plughub.servers.health import Seen, list_seen
from plughub.servers.logs import ServerLogs
from plughub.servers.status import ServerState, StatusBoard
from plughub.servers.store import find_profile, insert_server
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
        self.clock = clock
        self.wiring = Wiring(database, self.board, self.logs, max_news=3)
        self.space_id = space_id
        self.heard: list[Event] = []
        self._changed = asyncio.Event()
        database.listeners += [self._hear, self.board.follow, self.wiring.follow]

    async def _hear(self, events: Sequence[Event]) -> None:
        self.heard += events
        self._changed.set()

    async def target(self, slug: str = "s") -> Target:
        """A server that is registered, as it is reached."""
        async with self.database.unit_of_work() as uow:
            profile_id = await find_profile(uow.connection, self.space_id, None, None)
            values = {"id": new_id(), "space_id": self.space_id, "profile_id": profile_id, "slug": slug, "name": slug, "description": ""}
            values |= {"transport": "STDIO", "sealed_config": b"", "enabled": True, "revision": 1, "created_at": 0.0, "updated_at": 0.0}
            await insert_server(uow, values)
        return Target(values["id"], self.space_id, "o", slug, "STDIO", 1, command="x")

    async def later(self, seconds: float) -> None:
        """So much time goes by, and what is due then is written."""
        self.clock.advance(seconds)
        self.wiring.wake()
        for _ in range(3):  # until the writer has begun
            await checkpoint()
        await self.written()

    async def written(self) -> None:
        """Nothing that is due waits."""
        with anyio.fail_after(10):
            while not self.wiring.idle:
                await checkpoint()

    async def history(self, target: Target) -> list[str]:
        """The states that its history tells, oldest first."""
        async with self.database.read() as connection:
            return [seen.status for seen in (await list_seen(connection, target.server_id, 100, 0)).items][::-1]

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


def report(desk: Desk, target: Target, *states: str) -> None:
    """What the supervisor reports: `lost` is a connection that ended by itself, `rest` one that the hub has ended."""
    for state in states:
        told = {"lost": ("error", "it fell"), "failed": ("error", "it did not start"), "rest": ("disconnected", None)}
        status, error = told.get(state, (state, None))
        desk.wiring.status(target, status, error)  # type: ignore[arg-type]


@pytest.mark.requirement("servers.events-mean-what-they-say")
async def test_connected_lost_and_failed_are_three_things_and_a_rest_is_none(desk: Desk) -> None:
    await desk.wiring.start()
    target = await desk.target("web")
    for states, told in (
        (("connecting", "connected"), ("server.connected", None)),
        (("rest",), None),
        (("connecting", "connected"), None),
        (("lost",), ("server.disconnected", "it fell")),
        (("connecting", "failed"), ("server.error", "it did not start")),
        (("connecting", "failed"), None),
        (("connecting", "connected"), ("server.connected", None)),
        (("rest", "connecting", "failed"), ("server.error", "it did not start")),
        (("connecting", "connected", "rest"), ("server.connected", None)),
    ):
        before = len(desk.heard)
        report(desk, target, *states)
        await desk.later(11)
        assert desk.told()[before:] == ([told] if told else []), states
    assert desk.heard[0].data == {"server_uuid": target.server_id, "slug": "web"}
    assert desk.heard[1].data == {"server_uuid": target.server_id, "slug": "web", "error": "it fell", "previous": "connected"}
    assert {(event.server_id, event.space_id) for event in desk.heard} == {(target.server_id, desk.space_id)}
    assert (await desk.history(target))[:4] == ["connected", "disconnected", "connected", "error"]


@pytest.mark.requirement("servers.events-are-debounced")
async def test_a_server_that_flaps_makes_one_event_in_ten_seconds_and_the_last_state_wins(desk: Desk) -> None:
    await desk.wiring.start()
    target = await desk.target()
    at = []
    for second in range(60):
        report(
            desk,
            target,
            *(("connecting", "connected", "lost") if second % 2 else ("connecting", "connected", "lost", "connecting", "connected")),
        )
        await desk.later(1)
        at += [desk.clock.time()] * (len(desk.heard) - len(at))
    assert 3 <= len(at) <= 7 and all(later - earlier >= 10 for earlier, later in pairwise(at)), at
    report(desk, target, "connecting", "connected", "lost", "connecting", "failed")
    await desk.later(20)
    await desk.later(20)
    assert desk.told()[-1] == ("server.error", "it did not start")
    assert all(one.name != other.name for one, other in pairwise(desk.heard)), "no state is told twice"
    assert len(await desk.history(target)) <= 2 * 60


@pytest.mark.requirement("servers.events-are-debounced")
async def test_what_is_back_before_its_fall_was_told_is_no_news(desk: Desk) -> None:
    await desk.wiring.start()
    target = await desk.target()
    report(desk, target, "connecting", "connected")
    await desk.later(1)
    report(desk, target, "lost", "connecting", "connected")
    await desk.later(30)
    assert desk.told() == [("server.connected", None)]


@pytest.mark.requirement("servers.events-are-debounced")
async def test_the_last_state_is_told_at_the_end_and_not_again_after_a_restart(
    desk: Desk, database: Database, tmp_path: Path, clock: FakeClock
) -> None:
    await desk.wiring.start()
    target = await desk.target()
    report(desk, target, "connecting", "connected")
    await desk.later(1)
    report(desk, target, "lost", "connecting", "failed")
    await desk.wiring.aclose()
    assert desk.told() == [("server.connected", None), ("server.error", "it did not start")], "though it was too soon"
    after = Desk(database, tmp_path, clock, desk.space_id)
    await after.wiring.start()
    report(after, target, "connecting", "failed")
    await after.later(11)
    assert after.told() == []
    report(after, target, "connecting", "connected")
    await after.until_heard(1)
    assert after.told() == [("server.connected", None)]
    await after.wiring.aclose()


@pytest.mark.requirement("servers.events-are-debounced")
async def test_two_processes_tell_a_state_once_and_what_was_seen_earlier_is_no_news(
    desk: Desk, database: Database, tmp_path: Path, clock: FakeClock
) -> None:
    other = Wiring(database, StatusBoard(clock, 100), ServerLogs(tmp_path / "other", 10_000, clock))
    target = await desk.target()
    await desk.wiring.start()
    await other.start()
    for wiring in (desk.wiring, other):
        wiring.status(target, "connected", None)
    await desk.until_heard(1)
    await desk.later(20)
    other.wake()
    assert desk.told() == [("server.connected", None)]
    other.status(target, "error", "it fell there")
    await desk.until_heard(2)
    await desk.later(1)
    report(desk, target, "lost")  # which was told already
    await desk.later(1)
    report(desk, target, "connecting", "connected")
    await desk.later(1)
    other.status(target, "connecting", None)
    other.status(target, "error", "not there")  # later than what waits here
    await desk.later(1)
    await other.aclose()  # the end does not wait
    await desk.later(30)
    assert desk.told() == [("server.connected", None), ("server.disconnected", "it fell there"), ("server.error", "not there")]


@pytest.mark.requirement("servers.events-are-debounced")
async def test_a_look_that_fails_is_an_error_until_one_is_good(desk: Desk) -> None:
    await desk.wiring.start()
    target = await desk.target()
    report(desk, target, "connecting", "connected")
    for status, error in (("connected", None), ("error", "no answer"), ("error", "no answer"), ("connected", None)):
        await desk.later(60)
        desk.wiring.probed(target, Seen(desk.clock.time(), "probe", status, error=error))
        assert desk.board.get(target.server_id).status == status
    await desk.later(60)
    assert desk.told() == [("server.connected", None), ("server.error", "no answer"), ("server.connected", None)]
    assert await desk.history(target) == ["connected"], "looks are kept by whoever looks"


async def test_of_changes_that_wait_the_newest_of_a_server_wins_even_when_there_is_no_room(desk: Desk) -> None:
    targets = [await desk.target(f"s{number}") for number in range(5)]
    for target in targets:
        desk.wiring.status(target, "connected", None)
    desk.wiring.status(targets[0], "connecting", None)
    desk.wiring.status(targets[0], "error", "a")
    desk.wiring.status(targets[0], "error", "b")
    await desk.wiring.start()
    await desk.wiring.aclose()
    assert sorted(str(event.data["slug"]) for event in desk.heard) == ["s0", "s1", "s2"], "the bound is three servers"
    assert desk.told() == [("server.error", "b"), ("server.connected", None), ("server.connected", None)]


async def test_what_waits_is_written_at_the_end_once(desk: Desk) -> None:
    await desk.wiring.start()
    first, second = await desk.target("a"), await desk.target("b")
    desk.wiring.status(first, "connected", None)
    for _ in range(3):  # into the middle of the write
        await checkpoint()
    desk.wiring.status(second, "connected", None)
    await desk.wiring.aclose()
    async with desk.database.read() as connection:
        kept = [event for event in await list_since(connection, desk.space_id, 0) if event.name == "server.connected"]
    assert [event.server_id for event in kept] == [first.server_id, second.server_id]


async def test_a_write_that_fails_is_logged_and_tried_again(desk: Desk, warnings: None) -> None:
    await desk.wiring.start()
    first, second = await desk.target("first"), await desk.target("second")
    await rename(desk.database, "event", "gone_event")
    with capture_logs() as logs, anyio.fail_after(10):
        desk.wiring.status(first, "connected", None)
        while not logs:
            await checkpoint()
    assert {line["event"] for line in logs} == {"server_events_not_written"}
    await rename(desk.database, "gone_event", "event")
    desk.wiring.status(second, "connected", None)
    await desk.until_heard(2)
    assert [event.data["slug"] for event in desk.heard] == ["first", "second"]


async def test_a_database_that_is_gone_does_not_break_the_end(desk: Desk, warnings: None) -> None:
    await desk.wiring.start()
    target = await desk.target()
    await rename(desk.database, "event", "gone_event")
    with capture_logs() as logs:
        desk.wiring.status(target, "connected", None)
        await desk.wiring.aclose()
    assert [line["event"] for line in logs] == ["server_events_not_written"]
    await rename(desk.database, "gone_event", "event")


async def test_a_space_that_is_gone_costs_its_own_news_alone(desk: Desk) -> None:
    desk.wiring.status(Target(new_id(), new_id(), "o", "lost", "STDIO", 1), "connected", None)
    desk.wiring.status(await desk.target("kept"), "connected", None)
    await desk.wiring.start()
    await desk.until_heard(1)
    assert [event.data["slug"] for event in desk.heard] == ["kept"]


@pytest.mark.requirement("servers.delete")
async def test_a_deleted_server_leaves_no_log_no_status_and_no_late_news(desk: Desk) -> None:
    gone, other = await desk.target("gone"), await desk.target("other")
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
    await desk.wiring.start()
    await desk.wiring.aclose()
    assert [(event.name, event.data["slug"]) for event in desk.heard] == [("server.deleted", "gone"), ("server.connected", "other")]


async def test_what_is_reported_never_raises(desk: Desk, tmp_path: Path, warnings: None) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    target = await desk.target()

    def report_all() -> None:
        desk.wiring.log(target, "line \ud800")
        desk.wiring.notification(target, "notifications/tools/list_changed", {})
        desk.wiring.notification(target, "\ud800", {"x": b"1"})
        for status in ("connecting", "connected", "error", "disconnected"):
            desk.wiring.status(target, status, "e \ud800")  # type: ignore[arg-type]

    report_all()
    with capture_logs() as logs:
        await desk.delete(target)
    assert [line["event"] for line in logs] == ["server_log_not_removed"]
    await desk.wiring.aclose()
    report_all()


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
async def test_after_a_restart_of_the_hub_a_server_has_as_many_tools_as_it_listed_last(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    url = f"sqlite:///{tmp_path}/plughub.db"
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("a", "b")]
    async with HttpServer(FakeMcp(tools=tools)) as server:
        async with serving(url, tmp_path) as before:
            key, path = before.key, f"/api/servers/{(await before.register('counted', server.url))['uuid']}"
            assert (await before.call("GET", path + "/tools", key=key)).status_code == 200
        async with serving(url, tmp_path, secrets=before.secrets) as after:
            assert (await after.call("GET", path, key=key)).json()["tools_count"] == 2
            tools.append({"name": "c", "inputSchema": {"type": "object"}})
            assert (await after.rpc("tools/list", key=key)).status_code == 200
            assert (await after.call("GET", path, key=key)).json()["tools_count"] == 3


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
