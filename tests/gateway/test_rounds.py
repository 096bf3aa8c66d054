"""Servers are looked at without being asked: by one process, spread in time, seldom where it is of no use."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from plughub.events.log import list_since
from plughub.gateway.rounds import Rounds
from plughub.servers.rounds import IDLE_AFTER_S
from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.serving import FakeMcp, Json, Served

pytestmark = pytest.mark.anyio
FAKES = Path(__file__).resolve().parents[1] / "fakes"
EVERY_S = 60.0


class Watched(FakeMcp):
    """A server that counts how often it is looked at; while it is `down` it answers nothing else than that."""

    down = False
    looks = 0

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json.get("method") == "ping":
            self.looks += 1
        if self.down:
            return reply(503, b"down")
        return await super().__call__(seen, writer)


def rounds_of(served: Served) -> Rounds:
    hub = served.app.hub
    return Rounds(hub.probes, hub.exchange, hub.pool, hub.database, EVERY_S)


async def pass_(served: Served, rounds: Rounds, seconds: float, step_s: float = 5.0) -> None:
    """So much time goes by, with a round every `step_s`."""
    for _ in range(int(seconds / step_s)):
        served.clock.advance(step_s)
        while await rounds.go_round():
            await rounds.looked()
    served.app.wiring.wake()
    await anyio.lowlevel.checkpoint()
    with anyio.fail_after(10):
        while not served.app.wiring.idle:
            await anyio.lowlevel.checkpoint()


async def told(served: Served, server: str) -> list[tuple[str, str | None]]:
    """What the log was told of the server's states."""
    space_id = (await served.operator()).live_space_id
    async with served.database.read() as connection:
        events = [event for event in await list_since(connection, space_id, 0, 10_000) if event.server_id == server]
    names = ("server.connected", "server.disconnected", "server.error")
    return [(event.name, event.data.get("error")) for event in events if event.name in names]


@asynccontextmanager
async def watched(served: Served, fake: Watched) -> AsyncIterator[str]:
    """The server, registered and connected for the first time."""
    async with HttpServer(fake) as server:
        made = await served.register("watched", server.url)
        await served.call("GET", f"/api/servers/{made['uuid']}/tools")
        yield made["uuid"]
        await served.call("DELETE", f"/api/servers/{made['uuid']}")


@pytest.mark.requirement("servers.health-rounds")
async def test_a_server_over_http_is_looked_at_every_minute_or_so_and_one_that_is_switched_off_never(served: Served) -> None:
    rounds, fake, off = rounds_of(served), Watched(), Watched()
    async with watched(served, fake) as server, watched(served, off) as other:
        await served.call("PATCH", f"/api/servers/{other}", {"enabled": False})
        await pass_(served, rounds, 10 * EVERY_S)
        assert 8 <= fake.looks <= 11 and off.looks == 0
        health = (await served.call("GET", f"/api/servers/{server}/health")).json()
        assert (health["status"], health["uptime_24h"]) == ("connected", 1.0)
        assert await told(served, server) == [("server.connected", None)], "what stays as it is is no event"
        await served.call("PATCH", f"/api/servers/{other}", {"enabled": True})
        await pass_(served, rounds, 2 * EVERY_S)
        assert off.looks > 0


@pytest.mark.requirement("servers.health-rounds", "servers.events-mean-what-they-say")
async def test_a_server_that_fails_is_looked_at_less_and_less_and_told_of_once(served: Served) -> None:
    rounds, fake = rounds_of(served), Watched()
    async with watched(served, fake) as server:
        await pass_(served, rounds, 2 * EVERY_S)
        fake.down, before = True, fake.looks
        await pass_(served, rounds, 3600.0, 15.0)
        # After 1, 2, 4, 8, 15, 15 minutes …: the first looks find a session that is gone, later ones cannot even shake hands.
        history = (await served.call("GET", f"/api/servers/{server}/health/history?limit=100")).json()["history"]
        failed = [row for row in history if row["kind"] == "probe" and row["status"] == "error"]
        assert 4 <= len(failed) <= 8
        assert [name for name, _ in await told(served, server)] == ["server.connected", "server.error"]
        assert (await told(served, server))[-1][1]
        assert (await served.call("GET", f"/api/servers/{server}")).json()["status"] == "error"
        fake.down = False
        await pass_(served, rounds, 1000.0, 15.0)
        assert [name for name, _ in await told(served, server)] == ["server.connected", "server.error", "server.connected"]
        before = fake.looks
        await pass_(served, rounds, 5 * EVERY_S)
        assert fake.looks - before >= 4, "from then on as often as before"


@pytest.mark.requirement("servers.health-never-starts-a-resting-command", "servers.health-rounds", "upstream.idle-reaping")
async def test_a_command_is_looked_at_while_it_runs_and_no_look_keeps_it_from_its_rest(served: Served) -> None:
    rounds, pool = rounds_of(served), served.app.hub.pool
    server = await command(served)
    await pass_(served, rounds, 3 * EVERY_S)
    looks = await probes(served, server)
    assert looks >= 2
    for _ in range(12):
        await pass_(served, rounds, EVERY_S)
        await pool.rest_idle()
    assert server not in pool.connected()
    looks = await probes(served, server)
    await pass_(served, rounds, 5 * EVERY_S)
    assert await probes(served, server) == looks and server not in pool.connected()
    assert await told(served, server) == [("server.connected", None)], "that it rests is no event"
    await served.call("DELETE", f"/api/servers/{server}")


@pytest.mark.requirement("servers.events-mean-what-they-say", "servers.events-are-debounced")
async def test_a_process_that_is_killed_is_told_once_and_so_is_its_return(served: Served) -> None:
    server = await command(served)
    rounds = rounds_of(served)
    await pass_(served, rounds, 15)
    for _ in range(3):  # it flaps within the time of one event
        os.kill(await pid(served, server), signal.SIGKILL)
        with anyio.fail_after(10):
            while server in served.app.hub.pool.connected():
                await anyio.lowlevel.checkpoint()
    await pass_(served, rounds, 15)
    [first, second] = await told(served, server)
    assert first == ("server.connected", None) and second[0] == "server.disconnected"
    assert second[1] and "signal" in second[1].lower()
    await pid(served, server)
    await pass_(served, rounds, 30)
    assert [name for name, _ in await told(served, server)] == ["server.connected", "server.disconnected", "server.connected"]
    await served.call("DELETE", f"/api/servers/{server}")


@pytest.mark.requirement("servers.health-rounds")
async def test_where_nothing_has_happened_for_a_week_a_look_an_hour_is_enough(served: Served) -> None:
    rounds, fake = rounds_of(served), Watched()
    async with watched(served, fake):
        await served.app.hub.writer.flush()
        await pass_(served, rounds, 2 * EVERY_S)
        served.clock.advance(IDLE_AFTER_S)
        await pass_(served, rounds, EVERY_S)
        before = fake.looks
        await pass_(served, rounds, 3 * 3600.0, 60.0)
        assert 2 <= fake.looks - before <= 4


async def command(served: Served) -> str:
    """A real command, registered and connected."""
    config = {"command": sys.executable, "args": ["-S", "-E", str(FAKES / "stdio_servers.py"), "legacy"]}
    made: Json = (await served.call("POST", "/api/servers", {"name": "Command", "type": "STDIO", "config": config})).json()
    await pid(served, made["uuid"])
    return str(made["uuid"])


async def pid(served: Served, server: str) -> int:
    answer = await served.rpc("tools/call", {"name": "environment"}, path=f"/servers/{server}/mcp")
    found: int = json.loads(answer.json()["result"]["content"][0]["text"])["pid"]
    return found


async def probes(served: Served, server: str) -> int:
    history: list[Json] = (await served.call("GET", f"/api/servers/{server}/health/history?limit=100")).json()["history"]
    return sum(row["kind"] == "probe" for row in history)
