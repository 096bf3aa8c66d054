"""Several messages in one POST: MCP 2025-03-26 and no other revision."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint

from plughub.mcp.batches import MAX_MESSAGES
from plughub.protocol import versions
from tests.mcp.answers import error, one
from tests.serving import META, MODERN, FakeMcp, Json, RawCall, Served, serving, upstream

pytestmark = pytest.mark.anyio
BATCHING = {"MCP-Protocol-Version": "2025-03-26"}


def request(id_: object, method: str, **params: object) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def notification(method: str, **params: object) -> Json:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def send(lite: Served, messages: Sequence[object], *, path: str = "/mcp", key: str | None = None, **headers: str) -> httpx2.Response:
    given = {"Accept": "application/json, text/event-stream", **headers}
    return await lite.call("POST", path, list(messages), key=key, headers=given)


async def session_of(lite: Served, version: str, path: str = "/mcp") -> str:
    answer = await lite.rpc("initialize", {"protocolVersion": version, "capabilities": {"sampling": {}}}, path=path)
    found: str = answer.headers["mcp-session-id"]
    return found


@pytest.mark.requirement("mcp.batches")
@pytest.mark.parametrize("headers", [{}, BATCHING], ids=["no header", "2025-03-26"])
async def test_requests_are_answered_in_one_array_in_their_order(lite: Served, headers: Json) -> None:
    echo = request("b", "tools/call", name="weather-server__echo", arguments={"text": "x"})
    answer = await send(lite, [request(1, "ping"), notification("notifications/initialized"), echo, request(3, "tools/list")], **headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    pinged, echoed, listed = answer.json()
    assert pinged == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert (echoed["id"], echoed["result"]["content"][0]["text"]) == ("b", "x")
    assert (listed["id"], "weather-server__echo" in json.dumps(listed)) == (3, True)


@pytest.mark.requirement("mcp.batches", "data.one-call-one-row")
async def test_every_call_of_a_batch_leaves_a_row_and_the_batch_another(lite: Served) -> None:
    echo = {"name": "weather-server__echo", "arguments": {"text": "x"}}
    answer = await send(lite, [request(1, "tools/call", **echo), request(2, "tools/call", **echo), request(3, "ping")])
    await lite.app.hub.writer.flush()
    whole = (await lite.call("GET", f"/api/logs/{answer.headers['x-request-id']}")).json()
    assert (whole["path"], whole["rpc_method"], whole["tool"]) == ("/mcp", "tools/call, tools/call, ping", None)
    rows = (await lite.call("GET", f"/api/logs?server={lite.demo_id}&limit=100")).json()["logs"]
    assert [(row["tool"], row["rpc_method"]) for row in rows[:2]] == [("echo", "tools/call")] * 2
    assert len({row["request_id"] for row in rows}) == len(rows)


@pytest.mark.requirement("mcp.batches")
async def test_what_wants_no_answer_is_a_202(lite: Served) -> None:
    answer = await send(lite, [notification("notifications/initialized"), {"jsonrpc": "2.0", "id": 9, "result": {}}])
    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.requirement("mcp.batches")
async def test_a_refused_message_leaves_its_error_and_the_others_run(lite: Served) -> None:
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    messages = [
        request(1, "nope"),
        5,
        [request(2, "ping")],
        {"jsonrpc": "1.0", "id": 3, "method": "ping"},
        request(4, "initialize", protocolVersion="2025-03-26"),
        request(5, "tools/list", _meta=meta),
        request(6, "tools/call", name="nobody__tool"),
        request(7, "ping"),
    ]
    found = (await send(lite, messages)).json()
    assert [each["id"] for each in found] == [1, None, None, None, 4, 5, 6, 7]
    assert [each.get("error", {}).get("code") for each in found] == [-32601, -32600, -32600, -32600, -32600, -32600, -32602, None]


@pytest.mark.requirement("mcp.batches")
@pytest.mark.parametrize(("sent", "code"), [(b'[{"jsonrpc":"2.0"', -32700), (b"[\xff]", -32700), (b"[1,]", -32700), (b"[]", -32600)])
async def test_a_body_that_cannot_be_read_refuses_all(lite: Served, sent: bytes, code: int) -> None:
    answer = await lite.call("POST", "/mcp", sent, headers=BATCHING)
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (400, code, None)


@pytest.mark.requirement("mcp.batches")
async def test_a_batch_has_a_bound(lite: Served) -> None:
    most = [request(number, "ping") for number in range(MAX_MESSAGES)]
    assert len((await send(lite, most)).json()) == MAX_MESSAGES
    answer = await send(lite, [*most, notification("notifications/initialized")])
    assert (answer.status_code, error(answer)["code"]) == (400, -32600)


@pytest.mark.requirement("mcp.batches")
@pytest.mark.parametrize("version", [version for version in versions.SUPPORTED if version != "2025-03-26"])
async def test_no_other_revision_has_batches(lite: Served, version: str) -> None:
    answer = await send(lite, [request(1, "ping")], **{"MCP-Protocol-Version": version})
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (400, -32600, None)
    if version in versions.LEGACY:  # whatever the header says
        session = await session_of(lite, version)
        assert (await send(lite, [request(1, "ping")], **{"Mcp-Session-Id": session})).status_code == 400
        assert (await send(lite, [request(1, "ping")], **{"Mcp-Session-Id": session, **BATCHING})).status_code == 400


@pytest.mark.requirement("mcp.batches", "limits.refusal")
async def test_every_message_is_counted_and_those_over_the_limit_are_refused_alone(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Batching", "free"))
    answer = await send(lite, [request(0, "ping"), *(request(number, "tools/list") for number in range(1, 13))], key=key)
    found = answer.json()
    assert ["error" in each for each in found] == [False] * 11 + [True] * 2
    assert found[-1]["error"]["data"]["policy"] == "burst"
    assert answer.headers["x-ratelimit-remaining"] == "90"
    left = (await lite.call("GET", "/api/rate-limit", key=key)).json()
    assert left["concurrency"] == {"limit": 2, "remaining": 2}


@pytest.mark.requirement("mcp.batches", "limits.concurrency")
async def test_a_batch_holds_one_place_and_runs_no_more_at_once_than_the_tier_allows(sqlite_template: Path, tmp_path: Path) -> None:
    file = tmp_path / "plughub.db"
    file.write_bytes(sqlite_template.read_bytes())
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with serving(f"sqlite:///{file}", tmp_path, allow_private_addresses=("127.0.0.0/8",)) as hub:
        hub.key = await hub.key_of(await hub.organization("Together", "free"))
        async with upstream(hub, behind) as made:
            messages = [request(number, "tools/call", name="echo", arguments={}) for number in range(5)]
            running = asyncio.create_task(send(hub, messages, path=one(made)))
            with anyio.fail_after(5):
                while len(behind.calls) < 2:
                    await checkpoint()
                assert (await hub.call("GET", "/api/rate-limit")).json()["concurrency"]["remaining"] == 1
                assert len(behind.calls) == 2
                behind.held["echo"].set()
                answer = await running
            assert [each["result"]["content"][0]["text"] for each in answer.json()] == ["ok"] * 5
            assert (await hub.call("GET", "/api/rate-limit")).json()["concurrency"]["remaining"] == 2


@pytest.mark.requirement("mcp.batches", "mcp.progress", "mcp.resumable")
async def test_what_is_told_on_the_way_makes_the_answer_a_stream(lite: Served) -> None:
    async with upstream(lite, FakeMcp(progress={"echo": 2})) as made:
        session = await session_of(lite, "2025-03-26", one(made))
        call = request(1, "tools/call", name="echo", _meta={"progressToken": "t"})
        answer = await send(lite, [call, request(2, "ping")], path=one(made), **{"Mcp-Session-Id": session})
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert [frame.get("method") or frame["id"] for frame in frames] == ["notifications/progress"] * 2 + [1, 2]
        headers = {"accept": "text/event-stream", "mcp-session-id": session, "last-event-id": "1-2"}
        again = await RawCall(lite, "GET", one(made), headers).piece(b"").run()
        assert again.body.count(b'"id":1,') == again.body.count(b'"id":2,') == 1
        assert b"notifications/progress" not in again.body


@pytest.mark.requirement("mcp.batches", "keys.open-streams-close-on-revocation")
async def test_a_revoked_key_ends_the_stream_of_a_batch_with_errors(lite: Served) -> None:
    behind = FakeMcp(progress={"echo": 1}, held={"echo": asyncio.Event()})
    made_key = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
    async with upstream(lite, behind) as made:
        messages = [request(1, "ping"), request(2, "tools/call", name="echo", _meta={"progressToken": "t"})]
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        call = RawCall(lite, "POST", one(made), headers, made_key["key"]).piece(json.dumps(messages).encode())
        running = call.start()
        await call.answer.until(lambda: b"notifications/progress" in call.answer.body)
        await lite.call("DELETE", f"/api/auth/keys/{made_key['id']}")
        with anyio.fail_after(5):
            await running
        frames = [json.loads(line.removeprefix("data: ")) for line in call.answer.body.decode().splitlines() if line.startswith("data: {")]
        assert call.answer.complete
        assert (frames[1]["result"], frames[2]["error"]["data"]["code"]) == ({}, "GONE")


@pytest.mark.requirement("mcp.batches", "mcp.cancel")
async def test_one_request_of_a_batch_is_cancelled_alone(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(lite, behind) as made:
        session = {"Mcp-Session-Id": await session_of(lite, "2025-03-26", one(made))}
        messages = [request(name, "tools/call", name="echo") for name in ("a", "b")]
        running = asyncio.create_task(send(lite, messages, path=one(made), **session))
        with anyio.fail_after(5):
            while len(behind.calls) < 2:
                await checkpoint()
            told = await send(lite, [notification("notifications/cancelled", requestId="a")], path=one(made), **session)
            assert told.status_code == 202
            behind.held["echo"].set()
            first, second = (await running).json()
        assert (first["id"], first["error"]["code"]) == ("a", -32800)
        assert (second["id"], second["result"]["content"][0]["text"]) == ("b", "ok")


@pytest.mark.requirement("mcp.batches", "keys.scope-missing-answers-403")
async def test_each_message_needs_its_own_scope(lite: Served) -> None:
    key = await lite.key_of(await lite.operator(), scopes=["read:servers"])
    pinged, listed = (await send(lite, [request(1, "ping"), request(2, "tools/list")], key=key)).json()
    assert "result" in pinged
    assert listed["error"]["data"]["required_scope"] == "execute:tools"
