"""A server's own times, through every door."""

import asyncio

import pytest

from tests.fakes.http_servers import HttpServer, Seen
from tests.serving import FakeMcp, Json, Served

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("servers.own-times")]


def code_of(answer: Json) -> str:
    """The `/api` code of an error of any door."""
    error = answer["error"]
    return str(error["data"]["code"] if "data" in error else error["code"]).lower()


async def test_the_call_time_of_a_server_holds_at_every_door_and_the_callers_own_wins(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with HttpServer(behind) as server:
        made = await lite.register("fake", server.url)
        path = f"/api/servers/{made['uuid']}"
        [listed] = (await lite.call("GET", f"{path}/tools")).json()["tools"]
        assert listed["name"] == "echo"
        changed = await lite.call("PATCH", path, {"config": {"callTimeoutMs": 50}})
        assert (changed.json()["config"]["call_timeout_ms"], changed.json()["status"]) == (50, "connected")
        mcp_id = (await lite.call("GET", "/v1/mcps")).json()["data"][-1]["id"]
        invoke = {"mcp_id": mcp_id, "tool": "echo", "arguments": {}}
        answers = [
            await lite.call("POST", f"{path}/tools/echo/execute", {}),
            await lite.call("POST", "/v1/mcp/invoke", invoke),
            await lite.rpc("tools/call", {"name": "echo"}, path=f"/servers/{made['uuid']}/mcp"),
            await lite.rpc("tools/call", {"name": f"{made['slug']}__echo"}),
        ]
        assert [answer.status_code for answer in answers] == [504, 504, 200, 200]
        assert [code_of(answer.json()) for answer in answers] == ["upstream_timeout", "mcp_timeout", "upstream_timeout", "upstream_timeout"]
        assert all("within 0.05 s" in answer.text for answer in answers)
        assert sum(seen.json.get("method") == "initialize" for seen in server.seen) == 1, "the connection went on"
        sooner = [
            await lite.call("POST", f"{path}/tools/echo/execute", {"timeout_ms": 20}),
            await lite.call("POST", "/v1/mcp/invoke", {**invoke, "timeout": 20}),
        ]
        assert all("within 0.02 s" in answer.text for answer in sooner)


async def test_the_start_time_of_a_server_is_for_connecting_and_shaking_hands(lite: Served) -> None:
    async def deaf(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async with HttpServer(deaf) as server:
        config = {"url": server.url, "start_timeout_ms": 60}
        made = (await lite.call("POST", "/api/servers", {"name": "Deaf", "type": "STREAMABLE_HTTP", "config": config})).json()
        assert made["config"]["start_timeout_ms"] == 60
        answer = await lite.call("GET", f"/api/servers/{made['uuid']}/tools")
        assert answer.status_code == 504, answer.text
        assert "did not answer initialize" in answer.text
        assert "did not answer initialize" in (await lite.call("GET", f"/api/servers/{made['uuid']}")).json()["last_error"]


async def test_a_changed_start_time_holds_for_the_next_start_which_may_be_at_once(lite: Served) -> None:
    silent = {"command": "/bin/cat", "args": ["/dev/zero"], "start_timeout_ms": 50}
    made = (await lite.call("POST", "/api/servers", {"name": "Silent", "type": "STDIO", "config": silent})).json()
    path = f"/api/servers/{made['uuid']}"
    assert "within 0.05 s" in (await lite.call("GET", f"{path}/tools")).text
    await lite.call("PATCH", path, {"config": {"start_timeout_ms": 80}})
    assert "within 0.08 s" in (await lite.call("GET", f"{path}/tools")).text
