"""What is done to a server and told of its life, over REST on both databases."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from plughub.api.log_shapes import HealthHistory, HealthOfServer, ServerStats, ServerTest
from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio
FAKES = Path(__file__).resolve().parents[1] / "fakes"
PATH = "/api/servers"


async def stdio(served: Served, *args: str) -> str:
    """A real command that knows no `tools/list`, registered and connected."""
    config = {"command": sys.executable, "args": ["-S", "-E", str(FAKES / "stdio_servers.py"), *args]}
    made = (await served.call("POST", PATH, {"name": "Command", "type": "STDIO", "config": config})).json()
    await served.call("GET", f"{PATH}/{made['uuid']}/tools")
    server: str = made["uuid"]
    return server


async def until_seen(served: Served, server: str, status: str) -> list[Json]:
    """The history once it begins with that state: it is written beside the answers."""
    with anyio.fail_after(10):
        while True:
            found = await served.call("GET", f"{PATH}/{server}/health/history?limit=100")
            HealthHistory.model_validate(found.json())
            history: list[Json] = found.json()["history"]
            if history and history[0]["status"] == status:
                return history


async def pid(served: Served, server: str) -> int:
    answer = await served.rpc("tools/call", {"name": "environment"}, path=f"/servers/{server}/mcp")
    found: int = json.loads(answer.json()["result"]["content"][0]["text"])["pid"]
    return found


@pytest.mark.requirement("servers.test", "servers.test-on-v1")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_server_that_works_says_what_it_is(served: Served, era: str) -> None:
    async with upstream(served, FakeMcp(era=era)) as made:
        answer = await served.call("POST", f"{PATH}/{made['uuid']}/test")
        found = ServerTest.model_validate(answer.json())
        assert (answer.status_code, found.success, found.error, found.tools_count, found.era) == (200, True, None, 1, era)
        assert found.protocol_version == ("2025-11-25" if era == "legacy" else "2026-07-28")
        assert found.server_info == {"name": "fake", "version": "1", "x-own": [1, None]} and found.capabilities == {"tools": {}}
        assert found.latency_ms is not None and found.connect_ms is not None
        v1 = (await served.call("POST", f"/v1/mcps/{made['uuid']}/test")).json()
        assert v1["success"] is True and v1["data"].pop("latency_ms") >= 0
        assert v1["data"] == {
            "reachable": True,
            "protocol_version": found.protocol_version,
            "tools_count": 1,
            "resources_count": 0,
            "error": None,
        }
        assert (await served.call("GET", f"{PATH}/{made['uuid']}")).json()["tools_count"] == 1
    demo = (await served.call("POST", f"/v1/mcps/{served.demo_id}/test")).json()["data"]
    assert demo["reachable"] and demo["resources_count"] == 1


@pytest.mark.requirement("servers.test", "servers.test-on-v1")
async def test_what_is_wrong_with_a_server_is_the_answer_and_no_error(served: Served) -> None:
    body = {"name": "Down", "type": "STDIO", "config": {"command": "/no/such/command"}}
    made = (await served.call("POST", PATH, body)).json()
    await served.call("GET", f"{PATH}/{made['uuid']}/tools")
    for _ in range(2):
        answer = await served.call("POST", f"{PATH}/{made['uuid']}/test")
        found = ServerTest.model_validate(answer.json())
        assert (answer.status_code, found.success, found.tools_count) == (200, False, None)
        assert found.error is not None and found.error.code == "UPSTREAM_ERROR"
        assert found.error.message.endswith("command not found: /no/such/command"), "no word of a back-off: it was tried"
    v1 = (await served.call("POST", f"/v1/mcps/{made['uuid']}/test")).json()
    assert (v1["success"], v1["data"]["reachable"], v1["data"]["tools_count"]) == (True, False, None)
    assert "command not found" in v1["data"]["error"]
    await served.call("PATCH", f"{PATH}/{made['uuid']}", {"enabled": False})
    disabled = (await served.call("POST", f"{PATH}/{made['uuid']}/test")).json()
    assert (disabled["success"], disabled["error"]["code"]) == (False, "SERVER_DISABLED")
    refused = await served.call("POST", f"{PATH}/{made['uuid']}/restart")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "SERVER_DISABLED")


@pytest.mark.requirement("servers.restart")
async def test_a_restart_gives_a_new_process_and_disturbs_no_other_server(served: Served) -> None:
    server = await stdio(served, "legacy")
    before = await pid(served, server)
    held = {"name": "hold", "arguments": {"key": "a"}}
    hold = asyncio.create_task(served.rpc("tools/call", held, path=f"/servers/{server}/mcp"))
    fake = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(served, fake, "other") as other:
        elsewhere = asyncio.create_task(served.call("POST", f"{PATH}/{other['uuid']}/tools/echo/execute", {}))
        with anyio.fail_after(10):
            while not fake.calls or served.app.hub.pool.snapshot().in_flight < 2:
                await anyio.lowlevel.checkpoint()
        answer = await served.call("POST", f"{PATH}/{server}/restart")
        assert (answer.status_code, answer.json()["status"], answer.json()["last_error"]) == (200, "connected", None)
        assert "the server was restarted" in (await hold).json()["error"]["message"]
        assert not elsewhere.done()
        fake.held["echo"].set()
        assert (await elsewhere).status_code == 200
    assert await pid(served, server) != before
    await served.call("DELETE", f"{PATH}/{server}")


@pytest.mark.requirement("servers.restart", "upstream.restart-back-off")
async def test_a_restart_forgets_the_back_off_and_tells_how_it_went(served: Served) -> None:
    body = {"name": "Down", "type": "STDIO", "config": {"command": "/no/such/command"}}
    made = (await served.call("POST", PATH, body)).json()
    for _ in range(2):
        answer = await served.call("POST", f"{PATH}/{made['uuid']}/restart")
        assert (answer.status_code, answer.json()["status"]) == (200, "error")
        assert answer.json()["last_error"] == "command not found: /no/such/command"
    await served.call("DELETE", f"{PATH}/{made['uuid']}")


@pytest.mark.requirement("servers.health-history-stats")
async def test_health_is_looked_at_now_and_then_and_its_history_kept(served: Served) -> None:
    looks: list[str] = []
    fake = FakeMcp()
    hung = asyncio.Event()

    async def answering(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        method = seen.json.get("method", "") if seen.method == "POST" else ""
        if method == "ping":
            looks.append(method)
            if hung.is_set():
                return reply(503, b"down")
        return await fake(seen, writer)

    async with HttpServer(answering) as server:
        made = await served.register("Watched", server.url)
        path = f"{PATH}/{made['uuid']}/health"
        await until_seen(served, made["uuid"], "connected")

        async def health() -> HealthOfServer:
            answer = await served.call("GET", path)
            assert answer.status_code == 200, answer.text
            return HealthOfServer.model_validate(answer.json())

        first, again = await health(), await health()
        assert first == again and len(looks) == 1
        assert (first.status, first.last_error, first.uptime_24h) == ("connected", None, 1.0)
        assert first.latency_ms is not None and first.checked_at is not None
        served.clock.advance(31)
        together = await asyncio.gather(*(health() for _ in range(5)))
        assert len(set(map(repr, together))) == 1 and len(looks) == 2
        assert together[0].checked_at is not None and together[0].checked_at > first.checked_at
        served.clock.advance(31)
        hung.set()
        down = await health()
        assert down.status == "error" and down.last_error and down.latency_ms is None
        served.clock.advance(31)
        hung.clear()
        up = await health()
        assert (up.status, up.last_error) == ("connected", None)
        assert up.uptime_24h is not None and 0.6 < up.uptime_24h < 0.7
        history = await until_seen(served, made["uuid"], "connected")
        assert [(row["kind"], row["status"]) for row in history if row["kind"] == "probe"] == [
            ("probe", status) for status in ("connected", "error", "connected", "connected")
        ]
        page = (await served.call("GET", path + "/history?limit=2&offset=1")).json()
        assert (page["history"], page["total"], page["limit"]) == (history[1:3], len(history), 2)
        await served.call("PATCH", f"{PATH}/{made['uuid']}", {"enabled": False})
        served.clock.advance(31)
        assert (await health()).status == "disabled"
        await served.call("DELETE", f"{PATH}/{made['uuid']}")


@pytest.mark.requirement("servers.health-never-starts-a-resting-command", "upstream.idle-reaping")
async def test_a_command_that_rests_is_not_started_for_a_look(served: Served) -> None:
    server = await stdio(served, "modern")
    await until_seen(served, server, "connected")
    assert (await served.call("GET", f"{PATH}/{server}/health")).json()["status"] == "connected"
    await served.app.hub.pool.rest_idle()
    served.clock.advance(served.app.hub.settings.idle_timeout_s + 1)
    await served.app.hub.pool.rest_idle()
    history = await until_seen(served, server, "disconnected")
    children = set(served.app.hub.pool.snapshot().children)  # the one that was ended may still be among them
    rested = (await served.call("GET", f"{PATH}/{server}/health")).json()
    assert (rested["status"], rested["uptime_24h"], rested["last_error"]) == ("disconnected", 1.0, None)
    assert children.issuperset(served.app.hub.pool.snapshot().children)
    assert len(await until_seen(served, server, "disconnected")) == len(history)
    await served.call("DELETE", f"{PATH}/{server}")


@pytest.mark.requirement("servers.health-history-stats")
async def test_figures_are_what_was_called(served: Served) -> None:
    fake = FakeMcp(results={"broken": {"code": -32000, "message": "no"}})
    fake.tools = [{"name": name, "inputSchema": {}} for name in ("echo", "broken")]
    async with upstream(served, fake) as made:
        path = f"{PATH}/{made['uuid']}/stats"
        new = ServerStats.model_validate((await served.call("GET", path)).json())
        assert (new.calls, new.error_rate, new.last_called_at, new.latency.p50) == (0, 0.0, None, None)
        assert new.last_activity == made["updated_at"]
        for tool in ("echo", "echo", "echo", "broken"):
            await served.call("POST", f"{PATH}/{made['uuid']}/tools/{tool}/execute", {"parameters": {}})
        await served.app.hub.writer.flush()
        found = ServerStats.model_validate((await served.call("GET", path)).json())
        assert (found.calls, found.errors, found.error_rate, found.window_days) == (4, 1, 0.25, 30)
        assert found.latency.sample == 3 and found.latency.p50 and found.latency.p99 and found.latency.p99 >= found.latency.p50
        today = datetime.fromtimestamp(served.clock.time(), UTC).date().isoformat()
        assert (found.days[-1].date, found.days[-1].calls, len(found.days)) == (today, 4, 30)
        assert found.last_called_at == found.last_activity
