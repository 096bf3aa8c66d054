"""Usage over REST, as whoever watches their keys asks for it; and what the log keeps of a call."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from sqlalchemy import func, select

from plughub.db.usage_tables import usage_cursor
from plughub.gateway.call_record import MAX_CAPTURED, MAX_LOOKED_AT
from plughub.kit.ids import parse_public_id
from plughub.usage.rollup import roll_up
from tests.serving import FakeMcp, Json, Served, text_result, upstream

pytestmark = pytest.mark.anyio
SECRET = "sesame-open-12345"


@pytest.fixture
async def fake(served: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    fake = FakeMcp(
        tools=[{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "fails", "refuses", "large")],
        results={
            "echo": text_result("ok"),
            "fails": {**text_result(f"no such row; my key is {SECRET}"), "isError": True},
            "refuses": {"code": -32000, "message": f"broken by {SECRET}", "data": {"why": [1, 2]}},
            "large": text_result("x" * 20_000),
        },
    )
    async with upstream(served, fake, headers={"X-Own": SECRET}) as made:
        yield fake, made


async def call(served: Served, made: Json, tool: str, key: str | None = None, **parameters: Any) -> str:
    path = f"/api/servers/{made['uuid']}/tools/{tool}/execute"
    answer = await served.call("POST", path, {"parameters": parameters}, key=key)
    await served.app.hub.writer.flush()
    return str(answer.headers["x-request-id"])


async def get(served: Served, path: str, key: str | None = None) -> Json:
    await served.app.hub.writer.flush()
    answer = await served.call("GET", path, key=key)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


@pytest.mark.requirement("keys.usage", "usage.as-of-now")
async def test_a_call_made_just_now_is_in_the_usage_of_its_key(served: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    body = {"name": "watched", "scopes": ["execute:tools", "read:usage", "read:servers"]}
    key = (await served.call("POST", "/api/auth/keys", body)).json()
    path = f"/api/auth/keys/{key['id']}/usage"
    for tool in ("echo", "echo", "fails", "refuses"):
        await call(served, made, tool, key["key"], text="x")
    await served.call("GET", "/api/servers", key=key["key"])
    await served.call("DELETE", f"/api/servers/{made['uuid']}", key=key["key"])
    await served.app.hub.uses.flush()
    seen = await get(served, path + "?period=day")
    for _ in range(2):
        totals = seen["totals"]
        assert (totals["requests"], totals["calls"], totals["errors"], totals["error_rate"]) == (6, 4, 2, 0.5)
        assert totals["by_status"] | {"ok": 2, "tool_error": 1, "upstream_error": 1} == totals["by_status"]
        assert seen["by_status"] | {"ok": 3, "refused": 1} == seen["by_status"]
        assert totals["bytes_in"] == 4 * len('{"text": "x"}') and totals["bytes_out"] > 0 and totals["latency_ms"]["p99"] > 0
        assert [(day["requests"], day["calls"]) for day in seen["by_day"]][-1] == (6, 4)
        assert [(one["server_uuid"], one["name"], one["calls"]) for one in seen["by_server"]] == [(made["uuid"], "fake", 4)]
        assert [(one["tool"], one["calls"], one["errors"]) for one in seen["by_tool"]] == [
            ("echo", 2, 0),
            ("fails", 1, 1),
            ("refuses", 1, 1),
        ]
        assert [(row["method"], row["tool"]) for row in seen["recent"]][:3] == [("DELETE", None), ("GET", None), ("POST", "refuses")]
        assert [one["address"] for one in seen["addresses"]] == ["127.0.0.1"] and seen["flags"] == [] and seen["as_of"] is None
        listed = (await get(served, "/v1/api-keys?per_page=100"))["data"]
        for shown in (next(one for one in listed if one["id"] == key["id"]), (await get(served, f"/v1/api-keys/{key['id']}"))["data"]):
            counted = {"total_requests": 6, "requests_today": 6, "requests_this_week": 6, "requests_this_month": 6}
            assert shown["usage"] == counted and shown["last_used"]
        await roll_up(served.database)
        seen = await get(served, path + "?period=week")
        assert len(seen["by_day"]) == 7
    told = (await get(served, f"/v1/api-keys/{key['id']}/usage?period=week"))["data"]
    assert (told["total_requests"], told["by_status"], told["by_day"][-1]["requests"]) == (6, {"success": 3, "error": 3}, 6)
    assert [(one["name"], one["requests"]) for one in told["by_mcp"]] == [("fake", 4)]


@pytest.mark.requirement("usage.exact")
async def test_the_hub_counts_by_itself(served: Served) -> None:
    with anyio.fail_after(10):
        while True:
            async with served.database.read() as connection:
                if (await connection.execute(select(func.max(usage_cursor.c.seq)))).scalar():
                    return


@pytest.mark.requirement("usage.list")
async def test_usage_is_grouped_and_filtered_and_never_of_more_than_the_grant(served: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    organization = await served.operator()
    narrow = await served.key_of(organization, scopes=["read:usage", "execute:tools"], servers=[made["uuid"]])
    blind = await served.key_of(organization, scopes=["read:usage"], servers=[])
    await call(served, made, "echo", narrow)
    await call(served, made, "large")
    await call(served, {"uuid": served.demo_id}, "echo", text="x")
    everything = await get(served, "/api/usage?dimension=tool&granularity=minute&period=hour")
    assert {(row["server_uuid"], row["tool"]) for row in everything["usage"]} >= {(made["uuid"], "large"), (served.demo_id, "echo")}
    assert all(row["at"].endswith(":00.000Z") and row["key_id"] is None for row in everything["usage"])
    own = await get(served, "/api/usage?dimension=server", narrow)
    assert [(row["server_uuid"], row["calls"]) for row in own["usage"]] == [(made["uuid"], 2)]
    assert own["totals"]["calls"] == 2
    assert (await get(served, "/api/usage?dimension=server", blind))["usage"] == []
    one = await get(served, f"/api/usage?dimension=tool&server={made['uuid']}&tool=large")
    assert [(row["tool"], row["calls"]) for row in one["usage"]] == [("large", 1)]
    by_key = await get(served, f"/api/usage?dimension=key&server={made['uuid']}&limit=1&offset=1")
    assert (by_key["total"], len(by_key["usage"])) == (2, 1) and parse_public_id("key", by_key["usage"][0]["key_id"])
    for headers, query in (({"Accept": "text/csv"}, ""), ({}, "&format=csv")):
        answer = await served.call("GET", f"/api/usage?dimension=tool&server={made['uuid']}{query}", headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(answer.text)))
        assert {(line["tool"], line["calls"], line["ok"]) for line in lines} == {("echo", "1", "1"), ("large", "1", "1")}


@pytest.mark.requirement("logs.error-texts")
async def test_what_the_server_said_of_its_failure_is_in_the_story_without_its_secrets(served: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    told = {tool: await get(served, f"/api/logs/{await call(served, made, tool)}") for tool in ("echo", "fails", "refuses")}
    assert told["echo"]["error_text"] is None
    assert told["fails"]["error_text"] == "no such row; my key is ***" and told["fails"]["is_tool_error"]
    assert told["refuses"]["error_text"] == 'broken by ***\n{"why": [1, 2]}'
    assert all(one["arguments"] is None and one["result"] is None for one in told.values())


@pytest.mark.requirement("logs.capture")
async def test_arguments_and_results_are_kept_when_somebody_has_said_so_redacted_and_bounded(
    served: Served, fake: tuple[FakeMcp, Json]
) -> None:
    fake_server, made = fake
    path = f"/api/servers/{made['uuid']}"
    assert (await get(served, path))["capture"] is False
    changed = (await served.call("PATCH", path, {"capture": True})).json()
    assert changed["capture"] is True
    [deed] = (await get(served, f"/api/audit-logs?action=server.updated&object={made['uuid']}&limit=1"))["audit_logs"]
    assert deed["changes"] == {"capture": {"before": False, "after": True}}
    given = {"text": "plain", "password": "hunter2", "deep": [{"api_key": 7, "note": f"say {SECRET}", "n": 1.5}], "nul": "\0"}
    story = await get(served, f"/api/logs/{await call(served, made, 'echo', None, **given)}")
    assert fake_server.calls[-1].json["params"]["arguments"] == given, "the server gets what was sent"
    shown = {"text": "plain", "password": "***", "deep": [{"api_key": "***", "note": "say ***", "n": 1.5}], "nul": "\0"}
    assert (story["arguments"], story["result"]) == (shown, text_result("ok"))
    large = await get(served, f"/api/logs/{await call(served, made, 'large', None, text='y' * MAX_LOOKED_AT)}")
    assert large["arguments"] == {"truncated": True, "bytes": MAX_LOOKED_AT + len('{"text": ""}')}
    assert large["result"]["truncated"] and len(large["result"]["head"]) < MAX_CAPTURED < large["result"]["bytes"]
    await served.call("PATCH", path, {"capture": False})
    off = await get(served, f"/api/logs/{await call(served, made, 'echo', None, text='after')}")
    assert (off["arguments"], off["result"]) == (None, None)
    assert SECRET not in json.dumps([story, large, off])


@pytest.mark.requirement("logs.list")
async def test_the_log_is_filtered_by_key(served: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    key = (await served.call("POST", "/api/auth/keys", {"name": "one of many"})).json()
    await call(served, made, "echo", key["key"])
    await call(served, made, "echo")
    rows = (await get(served, f"/api/logs?key={key['id']}"))["logs"]
    assert [(row["tool"], row["key_id"]) for row in rows] == [("echo", key["id"])]
    assert (await served.call("GET", "/api/logs?key=x")).status_code == 400


@pytest.mark.requirement("usage.metrics")
async def test_metrics_count_calls_by_door_and_outcome_and_name_no_key_and_no_tool(served: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    for tool in ("echo", "fails", "refuses"):
        await call(served, made, tool)
    text = (await served.call("GET", "/metrics")).text
    assert 'plughub_tool_calls_total{door="api",outcome="tool_error"}' in text
    assert 'plughub_tool_call_seconds_bucket{door="api",le="+Inf"}' in text and "plughub_events_lag_seconds 0.0" in text
    assert "plughub_server_calls" not in text and made["uuid"] not in text and "fails" not in text
