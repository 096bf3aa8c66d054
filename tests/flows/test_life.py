"""Starts, stops, restarts and sudden deaths of the hub."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.flows.packages import Packages
from tests.flows.processes import descendants
from tests.flows.running_hub import PLUGHUB, Json, RunningHub, environment
from tests.flows.waiting import until, until_ended

BAD_SERVER = str(Path(__file__).resolve().parents[1] / "fakes" / "bad_stdio.py")
REFUSED_S = 20


@pytest.mark.requirement("run.second-start-keeps-everything")
def test_a_second_start_on_the_same_data_keeps_servers_and_keys(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data") as hub:
        operator = hub.key
        made = hub.register("Bad one", sys.executable, [BAD_SERVER, "garbage"])
        key = hub.api("POST", "/api/auth/keys", {"name": "script"}).json()["key"]
        revoked = hub.api("POST", "/api/auth/keys", {"name": "gone"}).json()
        assert hub.api("DELETE", f"/api/auth/keys/{revoked['id']}").status_code == 200
        assert hub.execute(made, "echo", {"text": "a"}).json()["result"] == "a"
        assert hub.stop() == 0
    with RunningHub(tmp_path / "data") as hub:
        assert hub.key == operator
        servers = hub.api("GET", "/api/servers", key=key).json()["servers"]
        assert sorted(server["slug"] for server in servers) == sorted([made["slug"], "weather-server"])
        assert hub.execute(made, "echo", {"text": "b"}).json()["result"] == "b"
        assert hub.api("GET", "/api/servers", key=revoked["key"]).status_code == 410


@pytest.mark.requirement("run.second-process-refused")
def test_a_second_process_on_the_same_data_is_refused_in_words(hub: RunningHub) -> None:
    done = subprocess.run(hub.command(), capture_output=True, text=True, timeout=REFUSED_S, env=environment())
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert str(hub.data_dir) in said
    assert "Traceback" not in said
    assert hub.api("GET", "/ready").status_code == 200


@pytest.mark.requirement("run.options-and-environment")
def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    command = [PLUGHUB, "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    wrong = environment({"PLUGHUB_LOG_LEVEL": "loud"})
    done = subprocess.run(command, capture_output=True, text=True, timeout=REFUSED_S, env=wrong)
    assert done.returncode != 0
    assert "PLUGHUB_LOG_LEVEL" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.requirement("run.refuses-public-bind-without-tls")
def test_a_public_address_without_tls_is_refused(tmp_path: Path) -> None:
    command = [PLUGHUB, "serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REFUSED_S, env=environment())
    assert done.returncode != 0
    assert "--insecure-http" in done.stdout + done.stderr


@pytest.mark.requirement("run.files-are-private")
def test_what_a_hub_keeps_is_private_in_an_open_folder_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    with RunningHub(data) as hub:
        noisy = hub.register("noisy", sys.executable, [BAD_SERVER, "garbage"])
        assert hub.execute(noisy, "echo", {"text": "a"}).status_code == 200
        until(lambda: any((data / "logs").glob("*")), "a log of the server")
        made = list(data.rglob("*"))
        assert {"plughub.db", "plughub.db-wal", "logs", "secrets.json"} <= {path.name for path in made}
        assert [path for path in made if path.stat().st_mode & 0o077] == []


@pytest.mark.requirement("http.slow-requests-end")
def test_an_unfinished_body_gives_its_place_back(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data", settings={"PLUGHUB_REQUEST_TIMEOUT_S": "0.5"}) as hub:
        address = hub.url.removeprefix("http://").split(":")
        head = f"POST /api/servers/{hub.demo()['uuid']}/tools/echo/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
        with socket.create_connection((address[0], int(address[1])), timeout=10) as client:
            client.sendall(f"{head}Authorization: Bearer {hub.key}\r\nContent-Type: application/json\r\n\r\n{{".encode())
            assert client.recv(1000) == b""
        left = hub.api("GET", "/api/rate-limit").json()["concurrency"]
        assert left["remaining"] == left["limit"]


@pytest.mark.requirement("run.stops-in-order")
def test_at_sigterm_a_running_call_is_answered_and_every_child_ends(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data") as hub:
        path = f"{hub.url}/api/servers/{hub.demo()['uuid']}/tools/slow/execute"
        headers = {"Authorization": f"Bearer {hub.key}", "Accept": "text/event-stream"}
        with httpx2.stream("POST", path, json={"parameters": {"seconds": 1.5}}, headers=headers, timeout=20) as answer:
            lines = answer.iter_lines()
            assert "progress" in next(lines)
            pidfds = watch(hub)
            hub.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert "event: result" in rest
        assert "Waited 1.5 seconds" in "".join(rest)
        assert hub.end() == 0
        assert until_ended(pidfds) == 0


@pytest.mark.requirement("run.stops-with-an-answer")
def test_calls_that_outlast_a_stop_are_told_so(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data", settings={"PLUGHUB_SHUTDOWN_GRACE_S": "1"}) as hub:
        server = hub.demo()["uuid"]
        slow = {"seconds": 60}
        execute = (f"/api/servers/{server}/tools/slow/execute", {"parameters": slow})
        rpc = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
        calls = [
            execute,
            ("/v1/mcp/invoke", {"mcp_id": server, "tool": "slow", "arguments": slow}),
            (f"/servers/{server}/mcp", {**rpc, "params": {"name": "slow", "arguments": slow}}),
        ]
        told = {"name": "slow", "arguments": slow, "_meta": {"progressToken": 1}}
        streams = [execute, (f"/servers/{server}/mcp", {**rpc, "params": told})]
        with ThreadPoolExecutor() as threads:
            answers = [threads.submit(hub.api, "POST", path, body) for path, body in calls]
            begun = [threading.Event() for _ in streams]
            bodies = [threads.submit(read_stream, hub, *stream, event) for stream, event in zip(streams, begun, strict=True)]
            assert all(event.wait(10) for event in begun)
            until(lambda: busy(hub) == len(calls) + len(streams), "all calls under way")
            hub.process.send_signal(signal.SIGTERM)
            seen = [answer.result() for answer in answers]
            ends = [body.result() for body in bodies]
        assert hub.end() == 0
        assert [answer.status_code for answer in seen] == [503, 503, 503]
        assert seen[0].json()["error"]["code"] == "UNAVAILABLE" and "stopping" in seen[0].json()["message"]
        assert seen[1].json()["success"] is False and seen[2].json()["error"]["data"]["code"] == "UNAVAILABLE"
        assert "event: error" in ends[0] and "UNAVAILABLE" in ends[0]
        assert '"id":7' in ends[1].rpartition("event: message")[2] and "UNAVAILABLE" in ends[1]
        assert "Traceback" not in hub.output


@pytest.mark.requirement("servers.logs-live", "run.stops-in-order")
def test_a_stream_that_rests_ends_at_once_with_the_hub(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data", settings={"PLUGHUB_SHUTDOWN_GRACE_S": "300"}) as hub:
        headers = {"Authorization": f"Bearer {hub.key}", "Accept": "text/event-stream"}
        with httpx2.stream("GET", f"{hub.url}/api/servers/{hub.demo()['uuid']}/logs", headers=headers, timeout=20) as answer:
            lines = answer.iter_lines()
            next(lines)
            hub.process.send_signal(signal.SIGTERM)
            rest = "".join(lines)
        assert "event: error" in rest and "UNAVAILABLE" in rest
        assert hub.end() == 0


def busy(hub: RunningHub) -> int:
    places = hub.api("GET", "/api/rate-limit").json()["concurrency"]
    return int(places["limit"] - places["remaining"])


def read_stream(hub: RunningHub, path: str, body: Json, begun: threading.Event) -> str:
    headers = {"Authorization": f"Bearer {hub.key}", "Accept": "application/json, text/event-stream"}
    with httpx2.stream("POST", hub.url + path, json=body, headers=headers, timeout=20) as answer:
        lines = []
        for line in answer.iter_lines():
            begun.set()
            lines.append(line)
    return "\n".join(lines)


def watch(hub: RunningHub) -> list[int]:
    """A descriptor for each process below the hub."""
    return [os.pidfd_open(pid) for pid in descendants(hub.process.pid)]


@pytest.mark.requirement("upstream.no-orphans-after-kill")
def test_kill_9_of_the_hub_leaves_no_child_and_no_grandchild(tmp_path: Path, packages: Packages) -> None:
    note = tmp_path / "grandchild"
    with RunningHub(tmp_path / "data") as hub:
        memory = hub.register("memory", packages.node, [packages.memory_script])
        parent = hub.register("parent", sys.executable, [BAD_SERVER, "grandchild", str(note)])
        calls: list[tuple[Json, str, Json]] = [
            (hub.demo(), "echo", {"text": "a"}),
            (memory, "read_graph", {}),
            (parent, "echo", {"text": "b"}),
        ]
        for server, tool, arguments in calls:
            answer = hub.execute(server, tool, arguments)
            assert answer.status_code == 200, answer.text
        family = descendants(hub.process.pid)
        commands = "\n".join(family.values())
        assert "demo_server.py" in commands and packages.memory_script in commands and BAD_SERVER in commands
        assert int(note.read_text()) in family
        pidfds = watch(hub)
        hub.kill()
        assert until_ended(pidfds) == 0


@pytest.mark.requirement("run.second-start-keeps-everything")
def test_a_hub_that_was_killed_starts_again_with_what_it_had_answered(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data") as hub:
        made = hub.register("kept", sys.executable, [BAD_SERVER, "garbage"])
        hub.kill()
    with RunningHub(tmp_path / "data") as hub:
        assert hub.server(made["uuid"])["slug"] == made["slug"]


@pytest.mark.requirement("servers.delete", "upstream.whole-group-ended")
def test_deleting_a_server_ends_its_processes(hub: RunningHub, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    server = hub.register("short lived", sys.executable, [BAD_SERVER, "grandchild", str(note)])
    assert hub.execute(server, "echo", {"text": "a"}).status_code == 200
    mine = [pid for pid, command in descendants(hub.process.pid).items() if str(note) in command] + [int(note.read_text())]
    assert len(mine) == 2
    pidfds = [os.pidfd_open(pid) for pid in mine]
    assert hub.api("DELETE", f"/api/servers/{server['uuid']}").status_code == 204
    assert until_ended(pidfds) == 0
    assert hub.api("GET", f"/api/servers/{server['uuid']}").status_code == 404
    assert hub.execute(server, "echo", {"text": "a"}).status_code == 404
