"""The log of a server, live."""

import json

import anyio
import pytest

from plughub.kit.caller import TIERS
from plughub.kit.errors import Unavailable
from plughub.upstream.target import Target
from tests.serving import Json, RawCall, Served, events_of

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}


async def quiet(served: Served, key: str | None = None) -> str:
    """A server that nothing but the test writes about."""
    body = {"name": "Quiet", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:1/mcp"}, "enabled": False}
    made: str = (await served.call("POST", "/api/servers", body, key=key)).json()["uuid"]
    return made


def say(served: Served, server_id: str, line: str) -> None:
    """What upstream reports of the server's stderr."""
    served.app.wiring.log(Target(server_id, "", "", "quiet", "STDIO", 1), line)


def told(call: RawCall) -> list[tuple[str, Json]]:
    return events_of(call.answer.body)


def lines(call: RawCall) -> list[str]:
    return [data["line"] for event, data in told(call) if event == "log"]


@pytest.mark.requirement("servers.logs-live")
@pytest.mark.parametrize("asked", ["accept", "follow"])
async def test_the_last_lines_come_first_then_each_new_one_and_the_end_with_the_server(lite: Served, asked: str) -> None:
    server = await quiet(lite)
    for number in range(5):
        say(lite, server, f"old {number}")
    call = RawCall(lite, "GET", f"/api/servers/{server}/logs", SSE if asked == "accept" else None).piece(b"")
    call.scope["query_string"] = b"limit=2" if asked == "accept" else b"limit=2&follow=1"
    running = call.start()
    await call.answer.until(lambda: len(lines(call)) == 2)
    assert call.answer.headers["content-type"].startswith("text/event-stream")
    assert "etag" not in call.answer.headers and call.answer.headers["x-ratelimit-remaining"]
    say(lite, server, "new \ud800 1")
    say(lite, server, "new 2")
    await call.answer.until(lambda: len(lines(call)) == 4)
    assert lines(call) == ["old 3", "old 4", "new ? 1", "new 2"]
    assert told(call)[-1][1]["at"] == "2027-01-15T08:00:00.000Z"
    assert (await lite.call("DELETE", f"/api/servers/{server}")).status_code == 204
    assert (await running).complete
    assert told(call)[-1] == ("end", {"reason": "server_deleted"})
    whole = await lite.call("GET", f"/api/servers/{lite.demo_id}/logs?follow=0")
    assert whole.headers["content-type"] == "application/json" and whole.headers["etag"]


@pytest.mark.requirement("servers.logs-live", "keys.open-streams-close-on-revocation")
async def test_the_stream_ends_with_its_key_and_with_the_hub(lite: Served) -> None:
    server = await quiet(lite)
    made = (await lite.call("POST", "/api/auth/keys", {"name": "reader"})).json()
    calls = [RawCall(lite, "GET", f"/api/servers/{server}/logs", SSE, key).piece(b"") for key in (made["key"], None)]
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call.run)
            await call.answer.until(lambda call=call: len(call.answer.messages) > 1)
        await lite.call("DELETE", f"/api/auth/keys/{made['id']}")
        await calls[0].answer.until(lambda: calls[0].answer.complete)
        assert [(event, data["error"]["code"]) for event, data in told(calls[0])] == [("error", "GONE")]
        assert not calls[1].answer.complete
        lite.app.hub.streams.stop_all(Unavailable("stopping"), resting_only=True)
    assert [(event, data["error"]["code"]) for event, data in told(calls[1])] == [("error", "UNAVAILABLE")]


@pytest.mark.requirement("servers.logs-live")
async def test_a_slow_reader_is_told_what_it_missed_and_holds_nothing_up(lite: Served) -> None:
    server = await quiet(lite)
    call = RawCall(lite, "GET", f"/api/servers/{server}/logs", SSE).piece(b"")
    running = call.start()
    await call.answer.until(lambda: len(call.answer.messages) > 1)
    for number in range(1000):
        say(lite, server, f"line {number}")
    await call.answer.until(lambda: any(event == "dropped" for event, _ in told(call)))
    say(lite, server, "after")
    await call.answer.until(lambda: "after" in lines(call))
    kept = len(lines(call)) - 1
    assert lines(call)[:-1] == [f"line {number}" for number in range(kept)] and kept < 1000
    assert [data for event, data in told(call) if event == "dropped"] == [{"lines": 1000 - kept}]
    call.leave()
    await running
    assert lite.app.hub.logs._readers == {} and lite.app.hub.streams._feeds == {}


@pytest.mark.requirement("limits.stream-cap")
async def test_streams_rest_beside_the_calls_and_are_ten_times_as_many(lite: Served) -> None:
    organization = await lite.organization("Streaming", "pro")
    key = await lite.key_of(organization)
    server = await quiet(lite, key)
    path, calls = f"/api/servers/{server}/logs", []
    async with anyio.create_task_group() as group:
        for _ in range(100):
            lite.clock.advance(2)
            calls.append(RawCall(lite, "GET", path, SSE, key).piece(b""))
            group.start_soon(calls[-1].run)
            await calls[-1].answer.until(lambda: bool(calls[-1].answer.messages))
        left = (await lite.call("GET", "/api/rate-limit", key=key)).json()
        assert left["concurrency"] == {"limit": 10, "remaining": 10}
        refused = await lite.call("GET", path, key=key, headers=SSE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert refused.json()["error"]["details"] | {"hint": ""} == {"policy": "streams", "limit": 100, "retry_after": 1, "hint": ""}
        assert (await lite.call("GET", "/api/rate-limit", key=key)).json() == left, "a refusal spends nothing"
        assert (await lite.call("GET", path, key=key)).status_code == 200
        calls[0].leave()
        another = RawCall(lite, "GET", path, SSE, key).piece(b"")
        while lite.app.hub.limits.peek(organization.id, TIERS["pro"]).streams == 100:  # type: ignore[attr-defined]
            await anyio.lowlevel.checkpoint()
        group.start_soon(another.run)
        await another.answer.until(lambda: bool(another.answer.messages))
        assert another.answer.status == 200
        for call in (*calls[1:], another):
            call.leave()


@pytest.mark.parametrize(("query", "status"), [("limit=0", 400), ("limit=1001", 400), ("limit=x", 400), ("limit=%D9%A1", 400)])
async def test_what_cannot_be_streamed_is_an_ordinary_error(lite: Served, query: str, status: int) -> None:
    for accept in (SSE, {}):
        answer = await lite.call("GET", f"/api/servers/{lite.demo_id}/logs?{query}", headers=accept)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (status, "limit")
    missing = await lite.call("GET", "/api/servers/nope/logs", headers=SSE)
    assert (missing.status_code, json.loads(missing.content)["error"]["code"]) == (404, "NOT_FOUND")
    listed = await lite.key_of(await lite.operator(), servers=[])
    assert (await lite.call("GET", f"/api/servers/{lite.demo_id}/logs", key=listed, headers=SSE)).status_code == 403
