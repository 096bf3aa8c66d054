"""One connection a server: made on demand, shared, rested, replaced, ended."""

import asyncio

import anyio
import pytest

from plughub.kit.errors import Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import Peer, Target
from tests.conftest import FakeClock
from tests.upstream.support import Recorder, call, http, stdio, tool

pytestmark = pytest.mark.anyio


async def test_ready_knows_a_connection_only_while_it_lives_and_for_its_revision(pool: Pool) -> None:
    target = stdio("legacy")
    assert pool.ready(target) is None
    upstream = await pool.get(target)
    assert pool.ready(target) is upstream
    assert await pool.get(target) is upstream
    assert pool.ready(stdio("legacy", revision=2)) is None
    await pool.forget("fake")
    assert pool.ready(target) is None


@pytest.mark.requirement("upstream.start-on-demand-once")
async def test_those_who_come_at_once_share_one_start(pool: Pool, hooks: Recorder) -> None:
    upstreams = await asyncio.gather(*(pool.get(stdio("legacy")) for _ in range(10)))
    assert len(set(map(id, upstreams))) == 1
    assert hooks.statuses == [("fake", "connecting", None), ("fake", "connected", None)]
    assert len(pool.snapshot().children) == 1


async def test_a_start_goes_on_when_the_one_who_asked_goes_away(pool: Pool, hooks: Recorder) -> None:
    first = asyncio.ensure_future(pool.get(stdio("legacy")))
    await hooks.until(lambda: hooks.statuses != [])
    second = asyncio.ensure_future(pool.get(stdio("legacy")))
    first.cancel()
    assert await call(await second, "echo", text="x") == "x"
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected"]


@pytest.mark.requirement("upstream.restart-back-off")
async def test_a_failed_start_is_not_repeated_at_once_and_one_later_is(pool: Pool, hooks: Recorder, clock: FakeClock) -> None:
    missing = Target("id", "space", "org", "missing", "STDIO", 1, command="no-such-command")
    for expected in ("command not found: no-such-command", r"command not found: no-such-command \(next try in 1 s\)"):
        with pytest.raises(UpstreamUnreachable, match=expected) as failed:
            await pool.get(missing)
        assert failed.value.executed == "no"
    assert len(hooks.statuses) == 2
    clock.advance(1)
    with pytest.raises(UpstreamUnreachable):
        await pool.get(missing)
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "error"] * 2
    await pool.forget("id")
    with pytest.raises(UpstreamUnreachable, match=r"command not found: no-such-command$"):
        await pool.get(missing)


@pytest.mark.requirement("servers.test")
async def test_failures_can_be_forgiven_and_then_the_next_start_is_at_once(pool: Pool) -> None:
    missing = Target("id", "space", "org", "missing", "STDIO", 1, command="no-such-command")
    for _ in range(3):
        with pytest.raises(UpstreamUnreachable, match=r"command not found: no-such-command$"):
            await pool.get(missing)
        with pytest.raises(UpstreamUnreachable, match="next try in 1 s"):
            await pool.get(missing)
        pool.forgive("id")
    pool.forgive("nobody")


async def test_a_server_that_crashes_on_every_call_is_restarted_less_and_less(pool: Pool, clock: FakeClock) -> None:
    with pytest.raises(UpstreamUnreachable, match="exited with code 1"):
        await call(await pool.get(stdio("legacy")), "leave", code=1)
    with pytest.raises(UpstreamUnreachable, match="exited with code 1"):
        await call(await pool.get(stdio("legacy")), "leave", code=1)
    with pytest.raises(UpstreamUnreachable, match="next try in 2 s"):
        await pool.get(stdio("legacy"))
    clock.advance(2)
    assert await call(await pool.get(stdio("legacy")), "echo", text="x") == "x"
    with pytest.raises(UpstreamUnreachable, match="exited with code 1"):
        await call(await pool.get(stdio("legacy")), "leave", code=1)
    assert await call(await pool.get(stdio("legacy")), "echo", text="it had answered before") == "it had answered before"


async def test_a_new_revision_replaces_the_old_and_the_old_one_does_not_come_back(pool: Pool) -> None:
    old = await pool.get(stdio("legacy", env={"V": "1"}))
    async with anyio.create_task_group() as group:

        async def under_way() -> None:
            with pytest.raises(UpstreamUnreachable, match="changed or removed"):
                await old.request(tool("hold", key="a"))

        group.start_soon(under_way)
        await anyio.wait_all_tasks_blocked()
        new = await pool.get(stdio("legacy", env={"V": "2"}, revision=2))
    assert new is not old
    assert await pool.get(stdio("legacy", revision=1)) is new
    assert pool.snapshot().servers == 1


async def test_forgetting_during_a_start_fails_those_who_wait(pool: Pool) -> None:
    waiting = asyncio.ensure_future(pool.get(stdio("silent", script="bad_stdio.py")))
    with anyio.fail_after(5):
        while not pool.snapshot().children:
            await anyio.lowlevel.checkpoint()
    with anyio.fail_after(5):
        await pool.forget("fake")
        with pytest.raises(UpstreamUnreachable, match="changed or removed"):
            await waiting


@pytest.mark.requirement("upstream.idle-reaping")
async def test_what_nobody_uses_is_rested_and_comes_back(pool: Pool, clock: FakeClock, settings: Settings, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    clock.advance(settings.idle_timeout_s - 1)
    await call(upstream, "echo", text="x")
    await pool.rest_idle()
    clock.advance(settings.idle_timeout_s - 1)
    await pool.rest_idle()
    assert pool.ready(stdio("legacy")) is upstream
    clock.advance(1)
    await pool.rest_idle()
    assert pool.ready(stdio("legacy")) is None
    assert hooks.last() == ("disconnected", None)
    assert await call(await pool.get(stdio("legacy")), "echo", text="back") == "back"


async def test_what_is_under_way_is_no_idleness(pool: Pool, clock: FakeClock, settings: Settings) -> None:
    upstream = await pool.get(stdio("legacy"))
    async with anyio.create_task_group() as group:
        group.start_soon(upstream.request, tool("hold", key="a"))
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            clock.advance(settings.idle_timeout_s)
            await pool.rest_idle()
        assert pool.ready(stdio("legacy")) is upstream
        await call(upstream, "release", key="a")


async def test_the_era_is_remembered_for_a_restart(pool: Pool, clock: FakeClock, settings: Settings) -> None:
    await call(await pool.get(stdio("legacy")), "echo", text="x")
    clock.advance(settings.idle_timeout_s)
    await pool.rest_idle()
    clock.advance(settings.idle_timeout_s)
    await pool.rest_idle()
    report = await call(await pool.get(stdio("legacy")), "report")
    assert "server/discover" not in report and "initialize" in report


async def test_closing_fails_what_is_under_way_and_everything_after(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:

            async def under_way() -> None:
                with pytest.raises(UpstreamUnreachable, match="shutting down"):
                    await upstream.request(tool("hold", key="a"))

            group.start_soon(under_way)
            await anyio.wait_all_tasks_blocked()
            await pool.aclose()
    with pytest.raises(Unavailable):
        await pool.get(stdio("legacy"))
    assert pool.snapshot().children == () and pool.snapshot().warden_pid is None
    assert hooks.last() == ("disconnected", None)


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 70])
async def test_a_host_name_that_can_be_none_is_an_error_in_words(pool: Pool, hooks: Recorder, host: str) -> None:
    with pytest.raises(UpstreamUnreachable, match="the url's host name is not a valid one") as failed:
        await pool.get(http(f"http://{host}/mcp"))
    assert failed.value.executed == "no"
    assert hooks.last() == ("error", failed.value.reason)


async def test_a_start_that_fails_in_a_way_nobody_foresaw_is_an_error_all_the_same(pool: Pool, hooks: Recorder, clock: FakeClock) -> None:
    odd = Target("id", "space", "org", "odd", "STDIO", 1, command="x", args=(1,))  # type: ignore[arg-type]
    with pytest.raises(UpstreamUnreachable, match=r"the start failed unexpectedly \(TypeError\)") as failed:
        await pool.get(odd)
    assert failed.value.executed == "no"
    assert hooks.last() == ("error", failed.value.reason)
    assert hooks.logged("plughub: ", "TypeError", "argument of type 'int'")
    with pytest.raises(UpstreamUnreachable, match="next try in 1 s"):
        await pool.get(odd)


async def test_a_caller_in_a_hurry_leaves_and_the_start_goes_on(pool: Pool, hooks: Recorder) -> None:
    patient = asyncio.ensure_future(pool.get(stdio("slow", script="bad_stdio.py")))
    with anyio.fail_after(5):
        with pytest.raises(UpstreamTimeout, match=r"the server did not start within 0\.05 s") as failed:
            await pool.get(stdio("slow", script="bad_stdio.py"), timeout_s=0.05)
        assert failed.value.executed == "no"
        assert hooks.last() == ("connecting", None)
        assert await call(await patient, "echo", text="x") == "x"
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected"]
    assert await pool.get(stdio("slow", script="bad_stdio.py"), timeout_s=0.05) is pool.ready(stdio("slow", script="bad_stdio.py"))


async def test_one_bad_server_does_not_hold_up_another(pool: Pool) -> None:
    stuck = asyncio.ensure_future(pool.get(stdio("silent", script="bad_stdio.py", slug="stuck")))
    down = asyncio.ensure_future(pool.get(http("http://127.0.0.1:1/mcp", slug="down")))
    with anyio.fail_after(3):
        assert await call(await pool.get(stdio("legacy")), "echo", text="fine") == "fine"
    stuck.cancel()
    await asyncio.wait((stuck, down))
    assert isinstance(down.exception(), UpstreamUnreachable)


def client(*names: str, holder: str = "") -> Peer:
    capabilities = b"{" + b",".join(b'"%b":{}' % name.encode() for name in names) + b"}"
    return Peer(lambda method, params: None, None, capabilities, holder=holder)


@pytest.mark.requirement("upstream.lent-connections")
async def test_children_of_lent_connections_are_counted_and_end_with_their_server(pool: Pool) -> None:
    target = stdio("legacy")
    await pool.get(target)
    async with pool.lent(target, client("sampling"), 5) as own:
        assert await call(own, "echo", text="x") == "x"
        found = pool.snapshot()
        assert (len(found.children), found.lent, found.in_flight) == (2, 1, 1)
    found = pool.snapshot()
    assert (len(found.children), found.lent, found.in_flight) == (2, 1, 0)
    with pytest.raises(UpstreamUnreachable, match="removed"):
        async with pool.lent(target, client("sampling"), 5) as own:
            calling = asyncio.ensure_future(call(own, "hold", key="k"))
            await pool.forget("fake")
            await calling
    with anyio.fail_after(5):
        while pool.snapshot().children:
            await asyncio.sleep(0)


async def test_a_stop_while_a_connection_is_lent_leaves_no_child(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    pool = Pool(settings, hooks, clock=clock)
    await pool.start()
    target = stdio("legacy", "stubborn")
    await pool.get(target)
    with pytest.raises(UpstreamUnreachable, match="shutting down"):
        async with pool.lent(target, client("roots", holder="a"), 5) as own:
            calling = asyncio.ensure_future(call(own, "hold", key="k"))
            await pool.aclose()
            await calling
    assert pool.snapshot().children == ()


async def test_who_only_borrows_keeps_the_server_from_resting(pool: Pool, settings: Settings, clock: FakeClock) -> None:
    target = stdio("legacy")
    live = await pool.get(target)
    for _ in range(3):
        clock.advance(settings.idle_timeout_s - 1)
        async with pool.lent(target, client("sampling"), 5) as own:
            await call(own, "echo", text="x")
        await pool.rest_idle()
    assert pool.ready(target) is live
