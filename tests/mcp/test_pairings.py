"""The MCP doors: any era in front, any era behind, and what neither may notice of the other."""

import asyncio
import json
from typing import Literal

import anyio
import pytest
from sqlalchemy import text

from tests.mcp.answers import error, one
from tests.serving import META, MODERN, FakeMcp, Json, RawCall, Served, events_of, text_result, upstream

pytestmark = pytest.mark.anyio
EXTRA = {"x-unknown": {"deep": [1, None, "é"]}, "_meta": {"own/key": 2}}
TASKS = "io.modelcontextprotocol/tasks"
STREAMS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


# --- one server, any pairing of eras ---


@pytest.mark.requirement("mcp.one-server-door", "mcp.payload-unchanged")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_results_pass_unchanged_in_every_pairing(lite: Served, fake: tuple[FakeMcp, Json], modern: bool) -> None:
    behind, made = fake
    sent = text_result("big 18446744073709551616", structuredContent={"n": 18446744073709551616}, isError=False, **EXTRA)
    behind.results["echo"] = sent if behind.era == "legacy" else {**sent, "resultType": "complete"}
    arguments = {"text": "é", "big": 18446744073709551616, "x": [None]}
    answer = await lite.rpc("tools/call", {"name": "echo", "arguments": arguments}, path=one(made), modern=modern, id_=11)
    assert answer.status_code == 200
    result = answer.json()["result"]
    assert {name: result[name] for name in sent if name != "_meta"} == {name: sent[name] for name in sent if name != "_meta"}
    assert result["_meta"]["own/key"] == 2
    assert result.get("resultType") == ("complete" if modern else None)
    seen = behind.calls[-1]
    params = seen.json["params"]
    assert (params["name"], params["arguments"]) == ("echo", arguments)
    assert (META + "protocolVersion" in params.get("_meta", {})) is (behind.era == "modern")
    assert seen.header("authorization") is None
    assert lite.key not in str(seen.headers) + seen.body.decode()
    if modern and behind.era == "legacy":
        assert result["_meta"][META + "serverInfo"] == behind.info


@pytest.mark.requirement("mcp.one-server-door")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_lists_are_bridged_tool_by_tool(lite: Served, modern: bool) -> None:
    tools = [
        {"name": "plain", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}, **EXTRA},
        {"name": "odd", "inputSchema": {"type": "object"}, "outputSchema": {"type": "array"}},
    ]
    behind = FakeMcp(era="modern", tools=tools, results={"odd": {"content": [], "structuredContent": [1], "resultType": "complete"}})
    async with upstream(lite, behind, "Bridged") as made:
        for path in (one(made), "/mcp"):
            found = (await lite.rpc("tools/list", path=path, modern=modern)).json()["result"]
            listed = {tool["name"].removeprefix("bridged__"): tool for tool in found["tools"]}
            assert ("outputSchema" in listed["odd"]) is modern, "older clients refuse a schema that is no object"
            assert listed["plain"]["outputSchema"] == {"type": "object"}
            assert listed["plain"]["x-unknown"] == EXTRA["x-unknown"]
            assert ("ttlMs" in found, "cacheScope" in found, "resultType" in found) == (modern, modern, modern)
        result = (await lite.rpc("tools/call", {"name": "odd"}, path=one(made), modern=modern)).json()["result"]
        assert ("structuredContent" in result) is modern


async def test_a_request_for_input_cannot_pass_to_an_older_client(lite: Served) -> None:
    asks = {"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create", "params": {}}}}
    async with upstream(lite, FakeMcp(era="modern", results={"echo": asks})) as made:
        legacy = await lite.rpc("tools/call", {"name": "echo"}, path=one(made))
        assert error(legacy)["data"]["code"] == "UPSTREAM_ERROR"
        modern = await lite.rpc("tools/call", {"name": "echo"}, path=one(made), modern=True)
        assert modern.json()["result"] == asks


@pytest.mark.requirement("mcp.all-methods")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_tasks_are_of_one_era_and_announced_to_clients_of_that_alone(
    lite: Served, era: Literal["legacy", "modern"], modern: bool
) -> None:
    tasks: Json = {"tasks": {"list": {}}} if era == "legacy" else {"extensions": {TASKS: {}, "own/thing": {"x": 1}}}
    same = modern == (era == "modern")
    method = "server/discover" if modern else "initialize"
    params = {} if modern else {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    task = {"taskId": "t-1", "status": "working", "ttl": 60000, **({"resultType": "complete"} if era == "modern" else {})}
    behind = FakeMcp(era=era, capabilities={"tools": {}, **tasks}, answers={"tasks/get": task})
    async with upstream(lite, behind, "Tasks") as made:
        told = (await lite.rpc(method, params, path=one(made), modern=modern)).json()["result"]["capabilities"]
        if same:
            assert told == {"tools": {}, **tasks}
            assert (await lite.rpc("tasks/get", {"taskId": "t-1"}, path=one(made), modern=modern)).json()["result"] == task
        else:
            assert told == ({"tools": {}} if era == "legacy" else {"tools": {}, "extensions": {"own/thing": {"x": 1}}})


async def test_result_of_a_kind_that_an_older_client_cannot_read_is_an_error(lite: Served) -> None:
    begun = {"resultType": "task", "task": {"taskId": "t-1", "status": "working"}}
    async with upstream(lite, FakeMcp(era="modern", results={"echo": begun})) as made:
        legacy = await lite.rpc("tools/call", {"name": "echo"}, path=one(made))
        assert error(legacy)["data"]["code"] == "UPSTREAM_ERROR"
        assert (await lite.rpc("tools/call", {"name": "echo"}, path=one(made), modern=True)).json()["result"] == begun
        rest = await lite.call("POST", f"/api/servers/{made['uuid']}/tools/echo/execute", {"parameters": {}})
        assert (rest.status_code, rest.json()["error"]["code"]) == (502, "UPSTREAM_ERROR")


@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_an_error_of_the_server_passes_as_it_is(lite: Served, fake: tuple[FakeMcp, Json], modern: bool) -> None:
    behind, made = fake
    behind.results["echo"] = {"code": -32050, "message": "out of tea", "data": {"x": [1]}}
    answer = await lite.rpc("tools/call", {"name": "echo"}, path=one(made), modern=modern, id_="e")
    assert (answer.status_code, answer.json()["id"]) == (200, "e")
    assert error(answer) == behind.results["echo"]


@pytest.mark.requirement("mcp.status-by-number")
@pytest.mark.parametrize("code", [-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022, -32002, 5])
async def test_a_servers_error_has_the_status_of_its_number_for_modern_clients(lite: Served, fake: tuple[FakeMcp, Json], code: int) -> None:
    behind, made = fake
    behind.results["echo"] = {"code": code, "message": "no", "data": {"requiredCapabilities": {"sampling": {}}}}
    legacy = await lite.rpc("tools/call", {"name": "echo"}, path=one(made))
    assert (legacy.status_code, error(legacy)) == (200, behind.results["echo"])
    modern = await lite.rpc("tools/call", {"name": "echo"}, path=one(made), modern=True, id_="e")
    expected = 404 if code == -32601 else 400 if code in (-32700, -32600, -32602, -32020, -32021, -32022) else 200
    assert (modern.status_code, modern.json()["id"], error(modern)) == (expected, "e", behind.results["echo"])


@pytest.mark.parametrize("result", [b"null", b"1", b"[]", b'"x"', b'{"_meta":5}', b'{"content":[],"_meta":null}'])
async def test_a_result_that_cannot_be_bridged_is_an_error_not_a_crash(lite: Served, fake: tuple[FakeMcp, Json], result: bytes) -> None:
    behind, made = fake
    behind.results["echo"] = result
    for modern in (False, True):
        answer = await lite.rpc("tools/call", {"name": "echo"}, path=one(made), modern=modern)
        assert answer.status_code == 200, answer.text
        assert answer.json().get("error", {"data": {"code": "UPSTREAM_ERROR"}})["data"]["code"] == "UPSTREAM_ERROR"


async def test_a_server_that_cannot_be_reached_is_an_error_in_the_answer(lite: Served) -> None:
    made = await lite.register("Nobody", "http://127.0.0.1:1/mcp")
    for path, params in ((one(made), {"name": "echo"}), ("/mcp", {"name": f"{made['slug']}__echo"})):
        answer = await lite.rpc("tools/call", params, path=path, id_=6)
        assert (answer.status_code, answer.json()["id"]) == (200, 6)
        assert error(answer)["data"]["executed"] == "no"
    await lite.call("DELETE", f"/api/servers/{made['uuid']}")
    gone = await lite.rpc("tools/call", {"name": "echo"}, path=one(made))
    assert gone.status_code == 404


@pytest.mark.requirement("mcp.same-ids-of-two-clients")
async def test_equal_ids_of_many_clients_are_kept_apart(lite: Served) -> None:
    async def call(number: int) -> str:
        answer = await lite.rpc("tools/call", {"name": "weather-server__echo", "arguments": {"text": f"t{number}"}}, id_=1)
        assert answer.json()["id"] == 1
        return str(answer.json()["result"]["content"][0]["text"])

    assert await asyncio.gather(*(call(number) for number in range(100))) == [f"t{number}" for number in range(100)]


# --- progress and leaving ---


@pytest.mark.requirement("mcp.progress")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
@pytest.mark.parametrize("token", ["tok", 0, 17])
async def test_progress_comes_as_a_stream_under_the_callers_token(
    lite: Served, fake: tuple[FakeMcp, Json], modern: bool, token: str | int
) -> None:
    behind, made = fake
    behind.progress["echo"] = 3
    for path, name in ((one(made), "echo"), ("/mcp", f"{made['slug']}__echo")):
        params = {"name": name, "_meta": {"progressToken": token, "own/x": 1}}
        answer = await lite.rpc("tools/call", params, path=path, modern=modern, id_=2)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        frames = [message for _, message in events_of(answer.content)]
        assert [frame["params"]["progress"] for frame in frames[:-1]] == [1, 2, 3]
        assert all(frame["params"]["progressToken"] == token and frame["params"]["x"] == "y" for frame in frames[:-1])
        assert frames[-1]["id"] == 2
        assert frames[-1]["result"]["content"][0]["text"] == "ok"
        meta = behind.calls[-1].json["params"]["_meta"]
        assert meta["own/x"] == 1
        assert meta["progressToken"] != token or isinstance(token, int)


@pytest.mark.requirement("mcp.accept")
@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_a_client_that_does_not_accept_streams_gets_none(lite: Served, fake: tuple[FakeMcp, Json], accept: str, modern: bool) -> None:
    behind, made = fake
    behind.progress["echo"] = 3
    params = {"name": "echo", "_meta": {"progressToken": 1}}
    answer = await lite.rpc("tools/call", params, path=one(made), modern=modern, headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["content"][0]["text"] == "ok"


@pytest.mark.requirement("mcp.progress")
async def test_without_a_token_there_is_no_stream(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.progress["echo"] = 3
    answer = await lite.rpc("tools/call", {"name": "echo"}, path=one(made))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["content"][0]["text"] == "ok"


@pytest.mark.requirement("upstream.cancel", "limits.concurrency")
async def test_leaving_a_modern_stream_cancels_the_call(lite: Served) -> None:
    behind = FakeMcp(era="modern", progress={"echo": 1}, held={"echo": asyncio.Event()})
    async with upstream(lite, behind) as made:
        params = {"name": "echo", "_meta": {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, "progressToken": 1}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
        call = RawCall(lite, "POST", one(made), {**STREAMS, **headers})
        task = call.piece(body).start()
        await call.answer.until(lambda: b'"progress":1' in call.answer.body)
        call.leave()
        await task
        assert not call.answer.complete
        await recorded(lite, made, "CANCELLED")
        assert not lite.app.hub.streams._feeds, "nor is a stream left"
        told = await lite.call("GET", "/api/rate-limit")
        assert told.json()["concurrency"]["remaining"] == told.json()["concurrency"]["limit"]


async def recorded(lite: Served, made: Json, outcome: str) -> None:
    """Wait until the call's row is in the event log."""
    with anyio.fail_after(5):
        while True:
            async with lite.database.read() as connection:
                query = text("SELECT outcome FROM event WHERE server_id = :id AND tool IS NOT NULL")
                rows = [row[0] for row in await connection.execute(query, {"id": made["uuid"]})]
            if outcome in rows:
                return


async def test_leaving_an_older_stream_lets_the_call_run_on(lite: Served) -> None:
    held = asyncio.Event()
    behind = FakeMcp(progress={"echo": 1}, held={"echo": held})
    async with upstream(lite, behind) as made:
        params = {"name": "echo", "_meta": {"progressToken": 1}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        call = RawCall(lite, "POST", one(made), STREAMS)
        task = call.piece(body).start()
        await call.answer.until(lambda: b'"progress":1' in call.answer.body)
        call.leave()
        held.set()
        await task
        await recorded(lite, made, "ok")
