"""The log of requests: one row each, found again, seen by those who may."""

import asyncio
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest

from plughub.api.log_shapes import RequestList, RequestStory
from plughub.kit.ids import new_id
from tests.serving import FakeMcp, Json, RawCall, Served, serving, text_result, upstream

pytestmark = pytest.mark.anyio
PATH = "/api/logs"


async def logs(served: Served, query: str = "", key: str | None = None) -> list[Json]:
    await served.app.hub.writer.flush()
    answer = await served.call("GET", f"{PATH}?{query}", key=key)
    assert answer.status_code == 200, answer.text
    RequestList.model_validate(answer.json())
    found: list[Json] = answer.json()["logs"]
    return found


async def row_of(served: Served, answer: httpx2.Response, key: str | None = None) -> Json:
    rows = await logs(served, f"request_id={answer.headers['x-request-id']}", key)
    assert len(rows) == 1
    return rows[0]


async def story_of(served: Served, answer: httpx2.Response, key: str | None = None) -> Json:
    await served.app.hub.writer.flush()
    found = await served.call("GET", f"{PATH}/{answer.headers['x-request-id']}", key=key)
    assert found.status_code == 200, found.text
    RequestStory.model_validate(found.json())
    told: Json = found.json()
    return told


def brief(row: Json) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("door", "method", "path", "rpc_method", "status", "http_status", "error", "tool"))


@pytest.mark.requirement("logs.one-row-a-request", "data.one-call-one-row")
async def test_every_request_leaves_exactly_one_row(served: Served) -> None:
    organization = await served.organization("Logged")
    key = await served.key_of(organization)
    fake = FakeMcp(results={"broken": {"code": -32000, "message": "no"}, "wrong": {"code": -32602, "message": "args"}})
    fake.results["sad"] = text_result("no", isError=True)
    fake.tools = [{"name": name, "inputSchema": {}} for name in ("echo", "broken", "wrong", "sad")]
    operators = await served.key_of(await served.operator())
    async with upstream(served, fake, "logged") as made:
        server = made["uuid"]
        one = f"/servers/{server}/mcp"
        execute, args = "/api/servers/{uuid}/tools/{tool}/execute", {"parameters": {}}

        async def run(tool: str) -> httpx2.Response:
            return await served.call("POST", f"/api/servers/{server}/tools/{tool}/execute", args)

        invoke = {"mcp_id": server, "tool": "sad", "arguments": {}}
        begin = len(await logs(served, f"server={server}&limit=100"))
        called = [
            (await served.call("GET", f"/api/servers/{server}"), ("api", "GET", "/api/servers/{uuid}", None, "ok", 200, None, None)),
            (await run("echo"), ("api", "POST", execute, None, "ok", 200, None, "echo")),
            (await run("sad"), ("api", "POST", execute, None, "error", 200, None, "sad")),
            (await run("broken"), ("api", "POST", execute, None, "error", 502, "UPSTREAM_ERROR", "broken")),
            (await run("wrong"), ("api", "POST", execute, None, "error", 400, "UPSTREAM_ERROR", "wrong")),
            (await run("nope"), ("api", "POST", execute, None, "error", 404, "TOOL_NOT_FOUND", "nope")),
            (await served.call("POST", "/v1/mcp/invoke", invoke), ("v1", "POST", "/v1/mcp/invoke", None, "error", 502, None, "sad")),
            (await served.rpc("tools/list", path=one), ("mcp", "POST", "/servers/{uuid}/mcp", "tools/list", "ok", 200, None, None)),
            (
                await served.rpc("tools/call", {"name": "echo"}, path=one),
                ("mcp", "POST", "/servers/{uuid}/mcp", "tools/call", "ok", 200, None, "echo"),
            ),
            (
                await served.rpc("tools/call", {"name": "logged__echo"}, modern=True),
                ("mcp", "POST", "/mcp", "tools/call", "ok", 200, None, "echo"),
            ),
            (
                await served.rpc("tools/call", {"name": "logged__echo"}, path="/mcp/default"),
                ("mcp", "POST", "/mcp/{profile_slug}", "tools/call", "ok", 200, None, "echo"),
            ),
        ]
        for answer, expected in called:
            row = await row_of(served, answer)
            assert brief(row) == expected
            assert (row["server_uuid"], row["http_status"]) == (server, answer.status_code)
            assert row["duration_ms"] > 0
        assert len(await logs(served, f"server={server}&limit=100")) - begin == len(called)
    others = [
        (await served.call("GET", "/api/servers?limit=3&token=canary", key=operators), ("api", "GET", "/api/servers", 200, None)),
        (await served.call("GET", f"/api/servers/{new_id()}"), ("api", "GET", "/api/servers/{uuid}", 404, "NOT_FOUND")),
        (await served.call("POST", "/api/auth/keys", {"name": ""}), ("api", "POST", "/api/auth/keys", 400, "INVALID_PARAMETER")),
        (await served.call("GET", "/v1/mcps"), ("v1", "GET", "/v1/mcps", 200, None)),
        (await served.call("GET", "/api/servers", headers={"If-None-Match": "*"}), ("api", "GET", "/api/servers", 304, None)),
        (await served.rpc("ping"), ("mcp", "POST", "/mcp", 200, None)),
        (await served.rpc("no/such"), ("mcp", "POST", "/mcp", 200, "NOT_FOUND")),
        (await served.rpc("tools/call", {"name": "no__such"}), ("mcp", "POST", "/mcp", 200, "TOOL_NOT_FOUND")),
        (await served.call("POST", "/mcp", b"{"), ("mcp", "POST", "/mcp", 400, "INVALID_PARAMETER")),
    ]
    for answer, expected in others:
        row = await row_of(served, answer)
        assert tuple(row[name] for name in ("door", "method", "path", "http_status", "error")) == expected
        assert row["server_uuid"] is None and "canary" not in json.dumps(row)
    refused = await served.call("GET", "/api/servers", key="")
    assert await logs(served, f"request_id={refused.headers['x-request-id']}") == [], "nobody's request is in nobody's log"
    assert await logs(served, key=key) == []


@pytest.mark.requirement("logs.one-row-a-request")
async def test_a_client_that_leaves_and_a_call_that_is_cancelled_are_rows_too(lite: Served) -> None:
    call = RawCall(lite, "POST", "/api/auth/keys", {"content-type": "application/json", "transfer-encoding": "chunked"})
    call.piece(b'{"name":"x"', more=True).leave()
    await call.run()
    fake = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(lite, fake) as made:
        await lite.call("GET", f"/api/servers/{made['uuid']}/tools")
        path = f"/api/servers/{made['uuid']}/tools/echo/execute"
        held = RawCall(lite, "POST", path, {"content-type": "application/json"}).piece(b"{}")
        running = held.start()
        while not fake.calls:
            await asyncio.sleep(0)
        held.leave()
        await running
        cancelled, left = (await logs(lite, "method=POST&status=error&limit=2"))[:2]
    assert (cancelled["error"], cancelled["http_status"], cancelled["path"]) == (
        "CANCELLED",
        499,
        "/api/servers/{uuid}/tools/{tool}/execute",
    )
    assert (left["error"], left["http_status"], left["path"]) == ("CLIENT_GONE", 499, "/api/auth/keys")


@pytest.mark.requirement("logs.list", "http.paging")
async def test_requests_are_listed_newest_first_in_pages_and_filtered(served: Served) -> None:
    organization = await served.organization("Filtered")
    key = await served.key_of(organization)
    begin = served.clock.time()
    answers = []
    for number in range(7):
        served.clock.advance(1)
        answers.append(await served.call("GET", "/api/servers" if number % 2 else "/v1/mcps", key=key))
    answers.append(await served.rpc("tools/list", key=key))
    answers.append(await served.call("GET", f"/api/servers/{new_id()}", key=key))
    ids = [answer.headers["x-request-id"] for answer in reversed(answers)]
    found, query = [], "limit=4"
    await served.app.hub.writer.flush()
    for expected in (4, 4, 1):
        page = (await served.call("GET", f"{PATH}?{query}&until=2099-01-01T00:00:00Z", key=key)).json()
        found += [row["request_id"] for row in page["logs"] if row["path"] != PATH]
        query = f"limit=4&cursor={page['next_cursor']}"
        assert (len(page["logs"]), page["next_cursor"] is None) == (expected, expected == 1)
    assert found == ids, "new rows come before the first page and move none of the others"

    async def got(filters: str) -> list[str]:
        return [row["request_id"] for row in await logs(served, filters + "&limit=100", key) if row["path"] != PATH]

    assert await got("door=v1") == [answers[n].headers["x-request-id"] for n in (6, 4, 2, 0)]
    assert await got("door=mcp&method=tools/list") == await got("method=tools/list") == [ids[1]]
    assert await got("method=POST") == [ids[1]] and len(await got("method=GET")) == 8
    assert await got("status=error") == await got("status=NOT_FOUND") == [ids[0]]
    assert len(await got("status=ok")) == 8 and await got("tool=echo") == []
    (third,) = await logs(served, f"request_id={ids[-3]}", key)
    stamp = third["at"]
    assert await got(f"since={stamp}&until={stamp}") == []
    assert await got(f"until={stamp}") == ids[-2:] and await got(f"since={stamp}") == ids[:-2]
    assert begin < served.clock.time()
    for wrong in (
        "limit=0",
        "limit=101",
        "cursor=x",
        "cursor=1_x",
        "cursor=nan_1",
        "cursor=-1_-1",
        "since=yesterday",
        "until=2027-01-01",
        "server=x",
        "door=back",
        "status=%25",
        "method=%22",
    ):
        answer = await served.call("GET", f"{PATH}?{wrong}", key=key)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, wrong.split("=")[0]), wrong
    assert await logs(served, "tool=%00", key) == []


@pytest.mark.requirement("logs.grant", "keys.environments-apart")
async def test_a_key_with_a_server_list_sees_the_requests_to_its_servers_and_its_own(served: Served) -> None:
    owner = await served.organization("Granting")
    key, test = await served.key_of(owner), await served.key_of(owner, "test")
    body = {"type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:1/mcp"}, "enabled": False}
    mine, other = [(await served.call("POST", "/api/servers", {"name": n, **body}, key=key)).json()["uuid"] for n in "ab"]
    listed = await served.key_of(owner, servers=[mine], scopes=["read:servers"])
    seen = await served.call("GET", f"/api/servers/{mine}", key=key)
    hidden = [await served.call("GET", f"/api/servers/{other}", key=key), await served.call("GET", "/api/servers", key=key)]
    own = [await served.call("GET", f"/api/servers/{other}", key=listed), await served.call("GET", "/v1/mcps", key=listed)]
    rows = {row["request_id"] for row in await logs(served, key=listed)}
    assert rows >= {answer.headers["x-request-id"] for answer in (seen, *own)}
    assert not rows & {answer.headers["x-request-id"] for answer in hidden}
    assert (await story_of(served, own[0], listed))["server"] == {"uuid": other, "slug": None, "name": None}
    assert {row["request_id"] for row in await logs(served, f"server={mine}", key)} >= {seen.headers["x-request-id"]}
    for answer in hidden:
        assert (await served.call("GET", f"{PATH}/{answer.headers['x-request-id']}", key=listed)).status_code == 404
    stranger = await served.key_of(await served.organization("Strange"))
    for foreign in (test, stranger):
        assert await logs(served, f"server={mine}", foreign) == []
        assert (await served.call("GET", f"{PATH}/{seen.headers['x-request-id']}", key=foreign)).status_code == 404


@pytest.mark.requirement("logs.story", "logs.found-by-id")
async def test_the_story_of_a_request_is_told_by_its_row(served: Served) -> None:
    organization = await served.organization("Told", "free", stdio_allowed=True)
    key = await served.key_of(organization)
    body = {"name": "Down", "type": "STDIO", "config": {"command": "/no/such/command"}}
    down = (await served.call("POST", "/api/servers", body, key=key)).json()
    listing = await served.rpc("tools/call", {"name": "x"}, path=f"/servers/{down['uuid']}/mcp", key=key)
    story = await story_of(served, listing, key)
    assert story["server"] == {"uuid": down["uuid"], "slug": "down", "name": "Down"}
    assert (story["scope"], story["rpc_method"], story["tool"], story["path"]) == (
        "execute:tools",
        "tools/call",
        "x",
        "/servers/{uuid}/mcp",
    )
    assert story["error"]["code"] == "UPSTREAM_ERROR" and "/no/such/command" in story["error"]["message"]
    assert story["key"]["prefix"] == key[:15] and story["key"]["id"].startswith("key_")
    assert story["timings"]["total_ms"] >= 0 and story["timings"]["upstream_ms"] is None
    narrow = await served.key_of(organization, scopes=["read:servers"])
    forbidden = await story_of(served, await served.call("DELETE", f"/api/servers/{down['uuid']}", key=narrow), key)
    assert (forbidden["scope"], forbidden["http_status"], forbidden["error"]["code"]) == ("delete:servers", 403, "FORBIDDEN")
    assert forbidden["error"]["hint"] and forbidden["server"] is None, "the scope is judged before the server is looked for"
    while (refused := await served.call("GET", "/api/servers", key=key)).status_code == 200:
        pass
    served.clock.advance(3600)
    limited = await story_of(served, refused, key)
    assert (limited["error"]["code"], limited["error"]["policy"], limited["http_status"]) == ("RATE_LIMITED", "burst", 429)
    async with upstream(served, FakeMcp()) as made:
        invoke = {"mcp_id": made["uuid"], "tool": "echo", "arguments": {}, "context": {"ticket": 7}}
        called = await story_of(served, await served.call("POST", "/v1/mcp/invoke", invoke))
    assert called["context"] == {"ticket": 7}
    assert 0 < called["timings"]["upstream_ms"] <= called["timings"]["total_ms"]
    assert (called["is_tool_error"], called["error"], called["http_status"]) == (False, None, 200)


@pytest.mark.requirement("logs.found-by-id")
async def test_a_request_that_took_long_is_found_and_what_is_no_request_is_not(lite: Served) -> None:
    for slow_s in (1, 20, 600, 7200):
        stream = RawCall(lite, "GET", f"/api/servers/{lite.demo_id}/logs", {"accept": "text/event-stream"}).piece(b"")
        running = stream.start()
        await stream.answer.until(functools.partial(bool, stream.answer.messages))
        lite.clock.advance(slow_s)
        stream.leave()
        await running
        await lite.app.hub.writer.flush()
        found = await lite.call("GET", f"{PATH}/{stream.answer.headers['x-request-id']}")
        assert (found.status_code, found.json()["path"]) == (200, "/api/servers/{uuid}/logs"), slow_s
    for wrong in ("req_" + "0" * 22, "req_" + "f" * 22, "nonsense", "%00"):
        assert (await lite.call("GET", f"{PATH}/{wrong}")).status_code == 404


@pytest.mark.requirement("logs.no-secrets")
async def test_no_row_holds_what_the_caller_wrote_but_ids_of_its_own(lite: Served) -> None:
    canary = "canary-9b1d"
    await lite.call("GET", f"/api/servers?x={canary}", headers={"X-Note": canary, "User-Agent": canary})
    await lite.call("GET", f"/api/servers/{canary}")
    await lite.call("POST", "/api/auth/keys", {"name": canary, "nonsense": canary})
    await lite.call("POST", f"/api/servers/{lite.demo_id}/tools/echo/execute", {"parameters": {"text": canary}})
    await lite.call("PATCH", f"/api/servers/{lite.demo_id}", {"config": {"env": {"X": canary}, "url": canary}})
    assert canary not in json.dumps(await logs(lite, "limit=100"))


@pytest.mark.requirement("logs.full-writer-refuses-only-calls", "data.usage-rows-never-block")
async def test_a_full_writer_refuses_calls_alone(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path, event_queue=1000) as full:
        await full.settled()
        writer, operator = full.app.hub.writer, await full.operator()
        row = (operator.test_space_id, "request.completed", 1.0, None, None, None, "req", "ok", False, 1, "api", "{}")
        async with full.database.unit_of_work():  # it has the lock that the writer needs
            while not writer.full:
                writer.record(row)
            assert (await full.call("GET", "/api/servers")).status_code == 200
            assert (await full.rpc("tools/list")).status_code == 200
            refused = await full.call("POST", f"/api/servers/{full.demo_id}/tools/echo/execute", {"parameters": {"text": "x"}})
            assert (refused.status_code, writer.left_out) == (503, 3)
        assert "plughub_requests_not_logged_total 3.0" in (await full.call("GET", "/metrics", key="")).text
