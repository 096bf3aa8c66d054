"""Servers that misbehave: a clear error to their own caller, told in status and log, and nobody else notices."""

import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.flows.processes import resident_bytes
from tests.flows.running_hub import Json, RunningHub
from tests.flows.waiting import until

BAD_SERVER = str(Path(__file__).resolve().parents[1] / "fakes" / "bad_stdio.py")
START_S = 3
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub of its own, with little patience."""
    settings = {"PLUGHUB_START_TIMEOUT_S": str(START_S)}
    with RunningHub(tmp_path_factory.mktemp("bad") / "data", settings=settings) as running:
        assert running.execute(running.demo(), "echo", {"text": "awake"}).status_code == 200
        yield running


def bad(hub: RunningHub, mode: str) -> Json:
    return hub.register(f"bad {mode}", sys.executable, [BAD_SERVER, mode])


def beside_neighbours(hub: RunningHub, server: Json, tool: str, **more: int) -> httpx2.Response:
    """Call the server; while that goes on, and after it, its neighbour answers as ever."""
    demo = hub.demo()
    with ThreadPoolExecutor(1) as thread:
        call: Future[httpx2.Response] = thread.submit(hub.execute, server, tool, {"text": "a"}, **more)
        for _ in range(5):
            begun = time.monotonic()
            answer = hub.execute(demo, "echo", {"text": "neighbour"})
            assert (answer.status_code, answer.json()["result"]) == (200, "neighbour")
            assert time.monotonic() - begun < 2
        return call.result()


def logs(hub: RunningHub, server: Json) -> str:
    answer = hub.api("GET", f"/api/servers/{server['uuid']}/logs")
    assert answer.status_code == 200, answer.text
    return answer.text


def check_failed_start(hub: RunningHub, server: Json, answer: httpx2.Response, status: int, code: str, *words: str) -> None:
    """The caller, the status and every other door say the same."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["executed"]) == (status, code, "no"), answer.text
    now = until(lambda: found if (found := hub.server(server["uuid"]))["status"] == "error" else None, "status error")
    for word in words:
        assert word in answer.json()["message"]
        assert word in now["last_error"]


@pytest.mark.requirement("bad-input.command-not-found", "servers.create-never-dials")
def test_a_command_that_does_not_exist(hub: RunningHub) -> None:
    server = hub.register("missing", "no-such-command-anywhere", ["--now"])
    assert server["last_error"] is None
    answer = beside_neighbours(hub, server, "echo")
    check_failed_start(hub, server, answer, 502, "UPSTREAM_ERROR", "command not found", "no-such-command-anywhere")
    answer = hub.api("POST", "/v1/mcp/invoke", {"mcp_id": server["uuid"], "tool": "echo", "arguments": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "mcp_unreachable")


@pytest.mark.requirement("bad-input.exits-at-once", "servers.logs")
def test_a_server_that_exits_at_once(hub: RunningHub) -> None:
    server = bad(hub, "exits")
    answer = beside_neighbours(hub, server, "echo")
    check_failed_start(hub, server, answer, 502, "UPSTREAM_ERROR", "code 3", "cannot open the database")
    assert "cannot open the database" in logs(hub, server)


@pytest.mark.requirement("bad-input.never-answers")
def test_a_server_that_never_answers_the_handshake(hub: RunningHub) -> None:
    server = bad(hub, "silent")
    answer = beside_neighbours(hub, server, "echo")
    check_failed_start(hub, server, answer, 504, "UPSTREAM_TIMEOUT")


@pytest.mark.requirement("bad-input.never-answers", "upstream.executed-told-apart")
def test_an_address_that_takes_the_connection_and_says_nothing(hub: RunningHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config = {"url": f"http://127.0.0.1:{deaf.getsockname()[1]}/mcp"}
        server = hub.api("POST", "/api/servers", {"name": "deaf", "type": "STREAMABLE_HTTP", "config": config}).json()
        answer = beside_neighbours(hub, server, "echo")
        check_failed_start(hub, server, answer, 504, "UPSTREAM_TIMEOUT")


@pytest.mark.requirement("bad-input.garbage")
def test_a_server_that_prints_nothing_but_garbage(hub: RunningHub) -> None:
    server = bad(hub, "garbage-only")
    answer = beside_neighbours(hub, server, "echo")
    assert answer.status_code in (502, 504)
    assert hub.server(server["uuid"])["status"] == "error"
    assert "Welcome to my server!" in logs(hub, server)


@pytest.mark.requirement("bad-input.garbage")
def test_a_server_that_prints_garbage_beside_its_answers(hub: RunningHub) -> None:
    server = bad(hub, "garbage")
    for text in ("one", "two"):
        assert hub.execute(server, "echo", {"text": text}).json()["result"] == text
    assert hub.server(server["uuid"])["status"] == "connected"
    assert "debug: got tools/call" in logs(hub, server)


@pytest.mark.requirement("bad-input.never-answers")
def test_a_tool_that_never_answers(hub: RunningHub) -> None:
    server = bad(hub, "never-answers")
    answer = beside_neighbours(hub, server, "bad", timeout_ms=500)
    assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (504, "unknown")
    check_still_good(hub, server)


@pytest.mark.requirement("bad-input.wrong-id")
def test_an_answer_with_a_wrong_id_reaches_nobody(hub: RunningHub) -> None:
    server = bad(hub, "wrong-id")
    answer = beside_neighbours(hub, server, "bad", timeout_ms=500)
    assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (504, "unknown")
    assert "1000000" in logs(hub, server)
    check_still_good(hub, server)


@pytest.mark.requirement("bad-input.doubled-id")
def test_the_second_answer_with_one_id_reaches_nobody(hub: RunningHub) -> None:
    server = bad(hub, "doubled-id")
    answer = beside_neighbours(hub, server, "bad")
    assert answer.json()["result"] == "first"
    check_still_good(hub, server)
    assert "second" not in hub.execute(server, "echo", {"text": "b"}).text
    until(lambda: "id" in logs(hub, server), "a line about the doubled id")


@pytest.mark.requirement("bad-input.huge-line")
def test_a_line_of_10_mb_fails_its_call_alone(hub: RunningHub) -> None:
    server = bad(hub, "huge-line")
    check_still_good(hub, server)
    before = resident_bytes(hub.process.pid)
    for _ in range(3):
        answer = beside_neighbours(hub, server, "bad")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "UPSTREAM_ERROR"), answer.text
        assert answer.json()["error"]["details"]["executed"] == "unknown"
    check_still_good(hub, server)
    assert resident_bytes(hub.process.pid) - before < 40 * MIB


@pytest.mark.requirement("bad-input.invalid-utf8")
@pytest.mark.parametrize("mode", ["invalid-utf8", "broken-json"])
def test_an_answer_that_cannot_be_read_fails_its_call_alone(hub: RunningHub, mode: str) -> None:
    server = bad(hub, mode)
    answer = beside_neighbours(hub, server, "bad", timeout_ms=1000)
    assert answer.status_code in (502, 504), answer.text
    assert answer.json()["error"]["details"]["executed"] == "unknown"
    check_still_good(hub, server)
    assert logs(hub, server)


@pytest.mark.requirement("upstream.executed-told-apart")
def test_a_server_that_dies_in_a_call_is_started_again_for_the_next(hub: RunningHub) -> None:
    server = bad(hub, "dies")
    answer = beside_neighbours(hub, server, "bad")
    assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (502, "unknown")
    assert "code 7" in answer.json()["message"]
    assert "out of luck" in logs(hub, server)
    check_still_good(hub, server)


@pytest.mark.requirement("bad-input.endless-stderr")
def test_endless_stderr_stops_nobody_and_fills_nothing(hub: RunningHub) -> None:
    server = bad(hub, "endless-stderr")
    before = resident_bytes(hub.process.pid)
    for _ in range(20):
        assert beside_neighbours(hub, server, "bad").json()["result"] == "fine"
    assert resident_bytes(hub.process.pid) - before < 40 * MIB
    assert "nothing but noise" in logs(hub, server)
    written = sum(file.stat().st_size for file in hub.data_dir.rglob("*") if file.is_file() and server["uuid"] in str(file))
    assert written <= 2 * MIB + 64 * 1024


@pytest.mark.requirement("bad-input.down-is-an-error", "servers.tools-list")
def test_a_server_that_is_down_is_an_error_and_not_an_empty_list(hub: RunningHub) -> None:
    server = hub.register("down", "no-such-command-either", [])
    answer = hub.api("GET", f"/api/servers/{server['uuid']}/tools")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "UPSTREAM_ERROR")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    assert "error" in hub.api("POST", f"/servers/{server['uuid']}/mcp", body, headers=accept).json()
    whole = hub.api("POST", "/mcp", body, headers=accept).json()["result"]
    assert "weather-server__get_weather" in [tool["name"] for tool in whole["tools"]]
    assert "down" in str(whole["_meta"])


def check_still_good(hub: RunningHub, server: Json) -> None:
    """The same server answers the next call, and says that it is connected."""
    answer = hub.execute(server, "echo", {"text": "still here"})
    assert (answer.status_code, answer.json()["result"]) == (200, "still here"), answer.text
    assert hub.server(server["uuid"])["status"] == "connected"
