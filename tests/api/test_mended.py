"""Faults that were found by breaking the hub, each as it was found."""

import json
import time
from typing import Any

import pytest

from plughub.gateway.streams import MAX_WAITING_BYTES, OpenStreams
from plughub.kit.clock import SystemClock
from plughub.kit.errors import Malformed
from plughub.kit.strict_json import MAX_MEMBERS, loads
from plughub.servers.logs import ServerLogs
from tests.serving import RawCall, Served

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("json.strict-management-bodies")
def test_a_doubled_key_among_many_is_found_in_linear_time() -> None:
    names = ",".join(f'"k{n}":1' for n in range(MAX_MEMBERS - 2))
    began = time.process_time()
    with pytest.raises(Malformed, match="appears twice"):
        loads(f'{{{names},"k1":1}}'.encode(), limit_bytes=10**7)
    assert time.process_time() - began < 0.5
    with pytest.raises(Malformed, match="more than"):
        loads(("{" + ",".join(f'"{n}":1' for n in range(MAX_MEMBERS + 1)) + "}").encode(), limit_bytes=10**7)


async def test_many_unknown_fields_are_not_all_repeated(lite: Served) -> None:
    body: dict[str, Any] = {"name": "n", "type": "STDIO", "config": {"command": "c"}, **{f"x{n}": 1 for n in range(5000)}}
    answer = await lite.call("POST", "/api/servers", body)
    assert answer.status_code == 400
    assert len(answer.json()["error"]["details"]["errors"]) == 20


@pytest.mark.requirement("mcp.challenge")
@pytest.mark.parametrize("segment", ["%E2%82%AC", "a%0d%0aX-Evil:%201", "a%22,%20foo=%22b"])
async def test_a_hostile_path_gets_an_ordinary_401_with_a_harmless_challenge(lite: Served, segment: str) -> None:
    path = f"/servers/{segment}/mcp"
    call = RawCall(lite, "POST", path, {"content-type": "application/json"}, key="").piece(b"{}")
    answer = await call.run()
    assert (answer.status, json.loads(answer.body)["error"]["data"]["code"]) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == (
        'Bearer resource_metadata="http://localhost/.well-known/oauth-protected-resource/mcp", scope="execute:tools"'
    )


async def disabled(lite: Served) -> str:
    body = {"name": "off", "type": "STDIO", "config": {"command": "no-such-command"}, "enabled": False}
    return str((await lite.call("POST", "/api/servers", body)).json()["uuid"])


@pytest.mark.requirement("servers.disabled-is-409")
async def test_a_disabled_server_is_not_started_by_a_handshake(lite: Served) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await lite.rpc("initialize", params, path=f"/servers/{await disabled(lite)}/mcp")
    assert answer.json()["error"]["data"]["code"] == "SERVER_DISABLED"


@pytest.mark.requirement("keys.scope-missing-answers-403")
@pytest.mark.parametrize("path", ["/mcp", "/servers/{demo}/mcp"])
async def test_a_handshake_needs_the_scope_to_call_tools(lite: Served, path: str) -> None:
    key = (await lite.call("POST", "/api/auth/keys", {"name": "k", "scopes": ["read:profile"]})).json()["key"]
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await lite.rpc("initialize", params, path=path.replace("{demo}", lite.demo_id), key=key)
    assert (answer.status_code, answer.json()["error"]["data"]["required_scope"]) == (403, "execute:tools")


async def test_a_new_name_leaves_the_running_call_alone(lite: Served) -> None:
    path = f"/api/servers/{lite.demo_id}/tools/generate_text/execute"
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    call = RawCall(lite, "POST", path, headers).piece(b'{"parameters":{"prompt":"a long evening"}}')
    running = call.start()
    await call.answer.until(lambda: b"event: progress" in call.answer.body)
    renamed = await lite.call("PATCH", f"/api/servers/{lite.demo_id}", {"name": "Renamed"})
    assert renamed.json()["name"] == "Renamed"
    assert (await running).body.decode().strip().split("\n\n")[-1].startswith("event: result")


def test_a_feed_that_nobody_reads_is_bounded_in_bytes() -> None:
    class Anybody:
        key_id = "k"
        credential = "key"
        generation = 0
        until = None

    feed = OpenStreams(SystemClock()).open(Anybody())  # type: ignore[arg-type]
    for _ in range(20):
        feed.push(b"x" * (MAX_WAITING_BYTES // 8))
    assert len(feed.take()) <= MAX_WAITING_BYTES
    assert feed.dropped == 12
    feed.push(b"y")
    assert feed.take() == b"y"


def test_the_log_of_a_removed_server_does_not_come_back(tmp_path: Any) -> None:
    logs = ServerLogs(tmp_path, 10_000, SystemClock())
    logs.write("s", "first")
    logs.remove("s")
    logs.write("s", "a last word of its process")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.requirement("data.one-call-one-row")
async def test_an_impossible_tool_name_is_recorded_in_short(lite: Served) -> None:
    await lite.rpc("tools/call", {"name": "n" * 100_000 + "\0", "arguments": {}}, path=f"/servers/{lite.demo_id}/mcp")
    await lite.app.hub.writer.flush()
    async with lite.database.read() as connection:
        kept = (await connection.exec_driver_sql("SELECT tool FROM event WHERE name LIKE 'tool.%' ORDER BY seq DESC LIMIT 1")).scalar_one()
    assert kept == "n" * 256
