"""POST /api/servers/{uuid}/tools/{tool}/execute, and what every door shares: one way through, no database, one row."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextvars import ContextVar
from urllib.parse import quote

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import event, text

from plughub.api.models import Executed
from tests.serving import META, FakeMcp, Json, RawCall, Served, events_of, text_result, upstream

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake(lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    """An upstream of the older revisions."""
    behind = FakeMcp()
    async with upstream(lite, behind) as made:
        yield behind, made


def path(made: Json, tool: str = "echo") -> str:
    return f"/api/servers/{made['uuid']}/tools/{tool}/execute"


@pytest.mark.requirement("call.execute", "demo.structured-weather")
async def test_a_real_tool_is_called(served: Served) -> None:
    url = f"/api/servers/{served.demo_id}/tools/get_weather/execute"
    answer = await served.call("POST", url, {"parameters": {"location": "San Francisco, CA"}})
    assert answer.status_code == 200
    read = Executed.model_validate(answer.json())
    assert read.result == read.structuredContent == json.loads(read.content[0]["text"])
    assert read.result["location"] == "San Francisco, CA"
    assert read.isError is False
    assert read.metadata.server_uuid == served.demo_id
    assert read.metadata.tool == "get_weather"
    assert read.metadata.request_id == answer.headers["x-request-id"]


@pytest.mark.requirement("call.result-unwrapped")
@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (text_result("plain"), "plain"),
        (text_result('{"a":1}'), {"a": 1}),
        (text_result("12 apples"), "12 apples"),
        (text_result("", structuredContent=[1]), [1]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, [{"type": "text", "text": t} for t in "ab"]),
        ({"content": []}, []),
    ],
)
async def test_the_result_is_unwrapped(lite: Served, fake: tuple[FakeMcp, Json], result: Json, wanted: object) -> None:
    behind, made = fake
    behind.results["echo"] = result
    answer = (await lite.call("POST", path(made), {})).json()
    assert answer["result"] == wanted
    assert answer["content"] == result["content"]
    assert answer.get("structuredContent") == result.get("structuredContent")


@pytest.mark.requirement("servers.input-required-is-an-error")
async def test_a_tool_that_asks_for_input_is_an_error_that_says_so(lite: Served) -> None:
    behind = FakeMcp(era="modern", results={"echo": {"resultType": "input_required", "inputRequests": {}}})
    async with upstream(lite, behind) as made:
        answer = await lite.call("POST", path(made), {})
        assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (502, "no")
        assert "asks for input" in answer.json()["message"]


@pytest.mark.requirement("call.tool-error-is-200")
async def test_a_tools_own_error_is_a_200(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.results["echo"] = text_result("no such city", isError=True)
    answer = await lite.call("POST", path(made), {})
    assert (answer.status_code, answer.json()["isError"], answer.json()["result"]) == (200, True, "no such city")


@pytest.mark.requirement("json.arguments-pass-unchanged", "upstream.credentials-stay")
@pytest.mark.parametrize(
    "arguments", [b'{ "a" : 18446744073709551616, "a":1.0E+400,"\\u00e9":"\\ud83d\\ude00"}', b"{}", b'{"x":[[],{"y":null}],"z":-0.0}']
)
async def test_arguments_pass_byte_for_byte(lite: Served, fake: tuple[FakeMcp, Json], arguments: bytes) -> None:
    behind, made = fake
    body = b'{"parameters": ' + arguments + b"}"
    headers = {"X-Secret": "not-for-servers", "Cookie": "a=b", "traceparent": "x"}
    assert (await lite.call("POST", path(made), body, headers=headers)).status_code == 200
    seen = behind.calls[-1]
    assert b'"arguments":' + arguments in seen.body
    assert seen.header("authorization") is None and seen.header("x-secret") is None and seen.header("cookie") is None


@pytest.mark.requirement("json.duplicate-envelope-keys-refused", "errors.unknown-field-is-400", "errors.invalid-field-is-named")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"parameters":{},"parameters":{}}', None),
        (b'{"parameters":[]}', "parameters"),
        (b'{"parameters":null}', "parameters"),
        (b'{"parameters":"{}"}', "parameters"),
        (b'{"timeout_ms":0}', "timeout_ms"),
        (b'{"timeout_ms":300001}', "timeout_ms"),
        (b'{"timeout_ms":"5"}', "timeout_ms"),
        (b'{"timeout_ms":1e99}', "timeout_ms"),
        (b'{"timeout_ms":1.5}', "timeout_ms"),
        (b'{"timeout_ms":-99999999999999999999999999}', "timeout_ms"),
        ('{"timeout_ms":"' + "é" * 60 + '"}', "timeout_ms"),
        ('{"timeout_ms":"x' + "é" * 60 + '"}', "timeout_ms"),
        (b'{"arguments":{}}', "arguments"),
        (b"[]", None),
        (b"", None),
    ],
)
async def test_a_wrong_body_never_reaches_the_server(
    lite: Served, fake: tuple[FakeMcp, Json], body: bytes | str, field: str | None
) -> None:
    behind, made = fake
    answer = await lite.call("POST", path(made), body if isinstance(body, bytes) else body.encode())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_PARAMETER")
    assert answer.json()["error"]["details"].get("field") == field
    assert behind.calls == []


@pytest.mark.requirement("errors.tool-not-found-suggests")
async def test_an_unknown_tool_is_a_404_with_the_nearest_name(lite: Served) -> None:
    answer = await lite.call("POST", f"/api/servers/{lite.demo_id}/tools/get_whether/execute", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TOOL_NOT_FOUND")
    assert answer.json()["message"] == "Tool 'get_whether' not found. Did you mean 'get_weather'?"
    for odd in ("%00", "a%2Fb", "x" * 3000, "%ff", "%F0%9F%98%80"):
        answer = await lite.call("POST", f"/api/servers/{lite.demo_id}/tools/{odd}/execute", {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TOOL_NOT_FOUND"), odd


async def test_a_tool_may_have_any_name(lite: Served) -> None:
    names = ["a/b", "mit leerzeichen", "é", "..", "50%", "a?b#c"]
    behind = FakeMcp(tools=[{"name": name, "inputSchema": {}} for name in names], results={name: text_result(name) for name in names})
    async with upstream(lite, behind) as made:
        for name in names:
            call = RawCall(lite, "POST", "/", {"content-type": "application/json"})
            call.scope["path"] = path(made, name)
            call.scope["raw_path"] = path(made, quote(name, safe="")).encode()
            answer = await call.piece(b"{}").run()
            assert (answer.status, json.loads(answer.body)["result"]) == (200, name)


async def test_a_tool_that_came_later_is_found(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    assert (await lite.call("POST", path(made), {})).status_code == 200
    behind.tools.append({"name": "later", "inputSchema": {}})
    lite.clock.advance(6)
    assert (await lite.call("POST", path(made, "later"), {})).status_code == 200


@pytest.mark.requirement("call.upstream-error-is-502", "upstream.executed-told-apart")
@pytest.mark.parametrize(("code", "status", "name"), [(-32000, 502, "UPSTREAM_ERROR"), (-32602, 400, "INVALID_PARAMETER")])
async def test_an_error_of_the_server_is_told(lite: Served, fake: tuple[FakeMcp, Json], code: int, status: int, name: str) -> None:
    behind, made = fake
    behind.results["echo"] = {"code": code, "message": "no tea", "data": {"x": 18446744073709551616}}
    answer = await lite.call("POST", path(made), {})
    details = answer.json()["error"]["details"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, name)
    assert (details["mcp_error"], details["rpc_error"]) == ("no tea", behind.results["echo"])
    assert details["executed"] == ("no" if status == 400 else "unknown")


@pytest.mark.parametrize(
    "result", [b"null", b"[]", b'{"isError":"yes"}', b'"text"', b'{"content":5}', b'{"content":[{"type":"text","text":5}]}']
)
async def test_a_result_that_cannot_be_read_is_an_error_not_a_crash(lite: Served, fake: tuple[FakeMcp, Json], result: bytes) -> None:
    behind, made = fake
    behind.results["echo"] = result
    answer = await lite.call("POST", path(made), {})
    assert answer.status_code in (200, 502), answer.text


@pytest.mark.requirement("upstream.timeout", "call.caller-timeout")
async def test_a_call_that_takes_too_long_is_a_504(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    assert (await lite.call("POST", path(made), {})).status_code == 200
    behind.held["echo"] = asyncio.Event()
    answer = await lite.call("POST", path(made), {"timeout_ms": 50})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "UPSTREAM_TIMEOUT")
    assert answer.json()["error"]["details"]["executed"] == "unknown"


@pytest.mark.requirement("servers.disabled-is-409")
async def test_a_disabled_server_is_a_409(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    await lite.call("PATCH", f"/api/servers/{made['uuid']}", {"enabled": False})
    answer = await lite.call("POST", path(made), {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "SERVER_DISABLED")


# --- streams ---

STREAM = {"Accept": "text/event-stream"}


@pytest.mark.requirement("call.execute-stream")
async def test_a_stream_is_progress_and_then_the_result(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.progress["echo"] = 3
    answer = await lite.call("POST", path(made), {}, headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    frames = events_of(answer.content)
    assert frames[:-1] == [("progress", {"progress": n, "x": "y"}) for n in (1, 2, 3)]
    name, last = frames[-1]
    assert (name, Executed.model_validate(last).result) == ("result", "ok")


@pytest.mark.requirement("call.execute-stream")
async def test_a_quiet_stream_is_the_result_alone_and_an_early_error_is_an_ordinary_one(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    answer = await lite.call("POST", path(made), {}, headers=STREAM)
    assert [name for name, _ in events_of(answer.content)] == ["result"]
    behind.results["echo"] = {"code": -1, "message": "early"}
    answer = await lite.call("POST", path(made), {}, headers=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")


@pytest.mark.requirement("call.execute-stream")
async def test_a_failure_in_the_middle_of_a_stream_is_an_error_frame(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.progress["echo"], behind.held["echo"] = 1, asyncio.Event()
    answer = await lite.call("POST", path(made), {"timeout_ms": 100}, headers=STREAM)
    (first, _), (last, told) = events_of(answer.content)
    assert (answer.status_code, first, last, told["error"]["code"]) == (200, "progress", "error", "UPSTREAM_TIMEOUT")
    assert told["request_id"] == answer.headers["x-request-id"]


async def test_line_breaks_of_the_server_do_not_break_a_frame(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.results["echo"] = b'{"content":[],\r\n"structuredContent":\n{"a":\r1}}'
    answer = await lite.call("POST", path(made), {}, headers=STREAM)
    ((name, told),) = events_of(answer.content)
    assert (name, told["result"]) == ("result", {"a": 1})


@pytest.mark.requirement("upstream.cancel", "limits.concurrency")
async def test_leaving_a_stream_cancels_the_call_and_gives_the_place_back(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.progress["echo"], behind.held["echo"] = 1, asyncio.Event()
    call = RawCall(lite, "POST", path(made), {"content-type": "application/json", **STREAM})
    task = call.piece(b"{}").start()
    await call.answer.until(lambda: b"progress" in call.answer.body)
    assert in_flight(lite) == 1
    call.leave()
    await task
    assert in_flight(lite) == 0
    assert not call.answer.complete


@pytest.mark.requirement("upstream.cancel")
async def test_leaving_a_plain_call_cancels_it_too(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.held["echo"] = asyncio.Event()
    call = RawCall(lite, "POST", path(made), {"content-type": "application/json"})
    task = call.piece(b"{}").start()
    with anyio.fail_after(5):
        while not behind.calls:
            await anyio.lowlevel.checkpoint()
    call.leave()
    await task
    assert call.answer.messages == []
    assert in_flight(lite) == 0


async def test_a_body_that_breaks_off_is_no_call(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    call = RawCall(lite, "POST", path(made), {"content-type": "application/json"})
    call.piece(b'{"parameters":', more=True).leave()
    answer = await call.run()
    assert answer.messages == [] and behind.calls == [] and in_flight(lite) == 0


def in_flight(served: Served) -> int:
    limits = served.app.hub.limits
    return sum(meter.in_flight for meter in limits._meters.values())  # type: ignore[attr-defined]


# --- the hot path ---

# The batching writer, news of servers, uses and announcements of keys, what counts and prunes, and on PostgreSQL the follower: on their
# own time.
BACKGROUND = re.compile(
    r"UPDATE space SET seq|UPDATE hub SET change_no|(INSERT INTO|DELETE FROM) (event|server_health|key_address)|BEGIN|SELECT space.id"
    r"|UPDATE (api_key|retired_secret) SET last_used_at|SELECT api_key.*(rotation_told|expiry_told)"
    r"|SELECT (event.name, event.at|api_key.id, api_key.created_at|key_address)|.*\b(usage_cell|usage_cursor|key_flag|alert)\b"
    r"|SELECT .*change_no|.*\b(node|job)\b",
    re.DOTALL,
)


@pytest.mark.requirement("call.no-database", "keys.last-use")
async def test_a_tool_call_touches_no_database(served: Served) -> None:
    """Counted where the driver is, on every engine of the hub; the batching writer's own statements come after the call."""
    engines = {engine.sync_engine for engine in vars(served.database).values() if hasattr(engine, "sync_engine")}
    assert engines
    seen: list[str] = []
    # What runs because of a call inherits its context; jobs and whatever else began with the hub do not.
    called = ContextVar("called", default=False)

    def statement(connection, cursor, sql, parameters, context, many):
        if called.get():
            seen.append(sql)

    demo = served.demo_id
    profile = (await served.call("GET", "/api/profiles")).json()["profiles"][0]
    told = {"tools": {"echo": {"name": "repeat"}}}
    assert (await served.call("PUT", f"/api/profiles/{profile['uuid']}/servers/{demo}", told)).status_code == 200
    repeat = {"name": "weather-server__repeat", "arguments": {"text": "x"}}
    calls = [
        lambda: served.call("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": {"text": "x"}}),
        lambda: served.call("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": {"text": "x"}}, headers=STREAM),
        lambda: served.call("POST", "/v1/mcp/invoke", {"mcp_id": demo, "tool": "echo", "arguments": {"text": "x"}}),
        lambda: served.rpc("tools/call", {"name": "echo", "arguments": {"text": "x"}}, path=f"/servers/{demo}/mcp"),
        lambda: served.rpc("tools/call", {"name": "weather-server__echo", "arguments": {"text": "x"}}, modern=True),
        lambda: served.rpc("tools/list"),
        lambda: served.rpc("tools/call", repeat, path=f"/mcp/{profile['slug']}"),
        lambda: served.call("GET", "/api/rate-limit"),
        lambda: served.call("GET", "/api/servers", key="nonsense"),
    ]
    for call in calls:
        await call()
    for engine in engines:
        event.listen(engine, "before_cursor_execute", statement)
    called.set(True)
    try:
        for call in calls * 3:
            answer = await call()
            assert answer.status_code == 401 or "result" in answer.text or answer.request.method == "GET"
        assert [sql for sql in seen if not BACKGROUND.match(sql)] == []
        assert (await served.call("GET", "/api/servers")).status_code == 200
        assert any("FROM server" in sql for sql in seen), "the listener hears"
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", statement)


@pytest.mark.requirement("call.one-way-through", "data.one-call-one-row", "call.tool-events")
async def test_the_same_call_through_each_door_gives_the_same_result_and_one_row(served: Served) -> None:
    demo, arguments = served.demo_id, {"a": 20, "b": 22}
    answers = [
        await served.call("POST", f"/api/servers/{demo}/tools/add/execute", {"parameters": arguments}),
        await served.call("POST", "/v1/mcp/invoke", {"mcp_id": demo, "tool": "add", "arguments": arguments}),
        await served.rpc("tools/call", {"name": "add", "arguments": arguments}, path=f"/servers/{demo}/mcp"),
        await served.rpc("tools/call", {"name": "weather-server__add", "arguments": arguments}, modern=True),
        await served.call("POST", f"/api/servers/{demo}/tools/fail/execute", {"parameters": {"message": "x"}}),
    ]
    api, v1, one, every, failed = (answer.json() for answer in answers)
    assert api["result"] == v1["data"]["result"] == 42
    assert api["content"] == one["result"]["content"] == every["result"]["content"]
    assert failed["isError"] is True
    ids = [answer.headers["x-request-id"] for answer in answers]
    columns = "name, tool, door, outcome, is_error, server_id, request_id"
    with anyio.fail_after(5):
        while True:
            async with served.database.read() as connection:
                found = await connection.execute(text(f"SELECT {columns} FROM event WHERE request_id IS NOT NULL"))
                rows = {row.request_id: row for row in found if row.request_id in ids}
            if len(rows) == len(ids):
                break
    seen = [(rows[i].name, rows[i].tool, rows[i].door, rows[i].outcome, bool(rows[i].is_error)) for i in ids]
    assert seen == [
        ("tool.executed", "add", "api", "ok", False),
        ("tool.executed", "add", "v1", "ok", False),
        ("tool.executed", "add", "mcp", "ok", False),
        ("tool.executed", "add", "mcp", "ok", False),
        ("tool.executed", "fail", "api", "ok", True),
    ]
    assert {row.server_id for row in rows.values()} == {demo}


@pytest.mark.requirement("upstream.envelope-written-anew")
async def test_the_envelope_is_the_hubs_own(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    body = {"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "sneaky": 1}
    params = {"name": "echo", "_meta": {META + "x": 1, "mine": 1}, "other": [1]}
    answer = await lite.call(
        "POST", f"/servers/{made['uuid']}/mcp", {**body, "params": params}, headers={"MCP-Protocol-Version": "2025-11-25"}
    )
    assert answer.json()["id"] == "mine"
    sent = behind.calls[-1].json
    assert set(sent) == {"jsonrpc", "id", "method", "params"} and sent["id"] != "mine"
    assert sent["params"] == {"name": "echo", "other": [1], "_meta": {"mine": 1}}
