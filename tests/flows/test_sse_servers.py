"""Real servers of the old HTTP+SSE transport, registered through the API and called through every door."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.flows.doors import DOORS, POSTS
from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub, environment
from tests.flows.waiting import until

# The server that the official Python SDK makes of a function.
SDK_SERVER = """
import sys
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sdk")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
async def count(steps: int, ctx: Context) -> str:
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return f"counted to {steps}"

server.run("sse", host="127.0.0.1", port=int(sys.argv[1]))
"""
CALLS: dict[str, tuple[str, Json, Any]] = {
    "sdk": ("add", {"a": 20, "b": 22}, {"result": 42}),
    "everything": ("get-sum", {"a": 20, "b": 22}, "The sum of 20 and 22 is 42."),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[str], port: int, extra: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from when it accepts connections."""
    process = subprocess.Popen(
        command, env=environment(extra), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: accepts(port), f"a connection to {command[0]}", 30)
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def sdk_port() -> Iterator[int]:
    port = free_port()
    with running([sys.executable, "-c", SDK_SERVER, str(port)], port):
        yield port


@pytest.fixture(scope="module")
def old_servers(hub: RunningHub, packages: Packages, sdk_port: int) -> Iterator[dict[str, Json]]:
    """Both, the one from npm registered as what it is not."""
    port = free_port()
    with running([packages.node, packages.everything_script, "sse"], port, {"PORT": str(port)}):
        yield {
            "sdk": register(hub, "old sdk", "SSE", sdk_port),
            "everything": register(hub, "old everything", "STREAMABLE_HTTP", port),
        }


def register(hub: RunningHub, name: str, kind: str, port: int) -> Json:
    answer = hub.api("POST", "/api/servers", {"name": name, "type": kind, "config": {"url": f"http://127.0.0.1:{port}/sse"}})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


@pytest.mark.requirement("upstream.sse-upstream", "upstream.transport-found", "call.one-way-through")
@pytest.mark.parametrize("program", POSTS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", CALLS)
def test_an_old_server_answers_through_every_door(
    hub: RunningHub, old_servers: dict[str, Json], name: str, door: str, program: str
) -> None:
    tool, arguments, result = CALLS[name]
    assert DOORS[door](POSTS[program], hub, old_servers[name], tool, arguments) == result
    now = hub.server(old_servers[name]["uuid"])
    assert (now["status"], now["last_error"]) == ("connected", None)


@pytest.mark.requirement("call.execute-stream")
def test_progress_of_an_old_server_reaches_the_caller_over_rest(hub: RunningHub, old_servers: dict[str, Json]) -> None:
    path = f"/api/servers/{old_servers['sdk']['uuid']}/tools/count/execute"
    answer = hub.api("POST", path, {"parameters": {"steps": 3}}, headers={"Accept": "text/event-stream"})
    events = [line.removeprefix("event:").strip() for line in answer.text.splitlines() if line.startswith("event:")]
    assert events == ["progress"] * 3 + ["result"]


@pytest.mark.requirement("upstream.sse-upstream")
def test_an_old_server_that_was_killed_is_an_error_and_is_found_again(hub: RunningHub) -> None:
    port = free_port()
    command = [sys.executable, "-c", SDK_SERVER, str(port)]
    with running(command, port) as process:
        server = register(hub, "mortal", "SSE", port)
        assert hub.execute(server, "add", {"a": 1, "b": 2}).json()["result"] == {"result": 3}
        os.kill(process.pid, signal.SIGKILL)
        now = until(lambda: found if (found := hub.server(server["uuid"]))["status"] == "error" else None, "status error")
        assert "the server's stream ended" in now["last_error"]
        refused = hub.execute(server, "add", {"a": 1, "b": 2})
        assert (refused.status_code, refused.json()["error"]["details"]["executed"]) == (502, "no")
    with running(command, port):
        answer = until(
            lambda: found if (found := hub.execute(server, "add", {"a": 2, "b": 2})).status_code == 200 else None, "the server back", 15
        )
        assert answer.json()["result"] == {"result": 4}
