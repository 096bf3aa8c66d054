"""Sessions of clients of the handshake revisions."""

import asyncio
import json

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.mcp.answers import error, one
from tests.serving import MODERN, FakeMcp, Json, RawCall, Served, upstream

pytestmark = pytest.mark.anyio

VERSION = {"MCP-Protocol-Version": "2025-11-25"}


async def session_of(lite: Served, path: str = "/mcp", capabilities: Json | None = None, key: str | None = None) -> str:
    params = {"protocolVersion": "2025-11-25", "capabilities": capabilities or {}, "clientInfo": {"name": "c", "version": "1"}}
    answer = await lite.rpc("initialize", params, path=path, key=key)
    assert answer.status_code == 200, answer.text
    found: str = answer.headers["mcp-session-id"]
    return found


def listening(lite: Served, session: str, path: str = "/mcp", **headers: str) -> RawCall:
    given = {"accept": "text/event-stream", "mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    return RawCall(lite, "GET", path, {**given, **headers}).piece(b"")


@pytest.mark.requirement("mcp.sessions")
async def test_initialize_opens_a_session_that_delete_ends(lite: Served) -> None:
    session = await session_of(lite)
    assert session.isascii() and session.isprintable() and " " not in session
    headers = {**VERSION, "Mcp-Session-Id": session}
    told = await lite.call("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    assert told.status_code == 202
    assert (await lite.rpc("tools/list", headers=headers)).status_code == 200
    gone = await lite.call("DELETE", "/mcp", headers=headers)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        await lite.rpc("tools/list", headers=headers),
        await lite.call("DELETE", "/mcp", headers=headers),
        await lite.call("GET", "/mcp", headers={**headers, "Accept": "text/event-stream"}),
    ):
        assert (answer.status_code, error(answer)["code"]) == (404, -32001)


@pytest.mark.requirement("mcp.sessions")
async def test_a_session_is_its_keys_and_its_doors(lite: Served) -> None:
    other = await lite.key_of(await lite.operator())
    session = {"Mcp-Session-Id": await session_of(lite)}
    for answer in (
        await lite.rpc("tools/list", key=other, headers=session),
        await lite.rpc("tools/list", path=f"/servers/{lite.demo_id}/mcp", headers=session),
        await lite.call("DELETE", "/mcp", key=other, headers=session),
        await lite.rpc("tools/list", headers={"Mcp-Session-Id": "made-up"}),
    ):
        assert (answer.status_code, error(answer)["message"]) == (404, "Session not found")
    assert (await lite.rpc("tools/list", headers=session)).status_code == 200


async def test_a_modern_request_ignores_the_session_header(lite: Served) -> None:
    answer = await lite.rpc("tools/list", modern=True, headers={"Mcp-Session-Id": "made-up"})
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"MCP-Protocol-Version": MODERN}])
async def test_get_and_delete_need_a_session(lite: Served, method: str, headers: Json) -> None:
    answer = await lite.call(method, "/mcp", headers={"Accept": "text/event-stream", **headers})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.requirement("mcp.sessions-bounded")
async def test_sessions_are_bounded_per_key_and_forgotten_when_idle(lite: Served) -> None:
    sessions = lite.app.sessions
    key = await lite.key_of(await lite.operator())
    before = len(sessions)
    most = lite.app.hub.settings.max_sessions_per_key
    first = await session_of(lite, key=key)
    ids = [await session_of(lite, key=key) for _ in range(most)]
    assert len(sessions) - before == most
    assert (await lite.rpc("ping", key=key, headers={"Mcp-Session-Id": first})).status_code == 404
    lite.clock.advance(lite.app.hub.settings.session_idle_s - 1)
    assert (await lite.rpc("ping", key=key, headers={"Mcp-Session-Id": ids[0]})).status_code == 200
    lite.clock.advance(2)
    sessions.sweep()
    assert (await lite.rpc("ping", key=key, headers={"Mcp-Session-Id": ids[0]})).status_code == 200
    assert (await lite.rpc("ping", key=key, headers={"Mcp-Session-Id": ids[1]})).status_code == 404
    lite.clock.advance(lite.app.hub.settings.session_idle_s + 1)
    sessions.sweep()
    assert len(sessions) == 0


@pytest.mark.requirement("mcp.sessions", "keys.open-streams-close-on-revocation")
async def test_a_session_ends_with_its_key_and_its_stream_with_it(lite: Served) -> None:
    made = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
    session = await session_of(lite, key=made["key"])
    call = RawCall(lite, "GET", "/mcp", {"accept": "text/event-stream", "mcp-session-id": session}, made["key"]).piece(b"")
    running = call.start()
    await call.answer.until(lambda: bool(call.answer.body))
    await lite.call("DELETE", f"/api/auth/keys/{made['id']}")
    with anyio.fail_after(5):
        await running
    assert call.answer.complete


@pytest.mark.requirement("mcp.accept", "mcp.resumable")
@pytest.mark.parametrize("accept", ["text/event-stream, application/json", "text/event-stream"])
async def test_a_session_that_prefers_streams_is_answered_by_one(lite: Served, accept: str) -> None:
    session = await session_of(lite)
    headers = {**VERSION, "Mcp-Session-Id": session, "Accept": accept}
    answer = await lite.rpc("tools/list", id_=8, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    priming, frame, rest = answer.text.split("\n\n")
    assert priming.split("\n") == ["id: 1-0", "retry: 1000", "data: "]
    assert frame.startswith("id: 1-1\nevent: message\ndata: {") and not rest
    assert json.loads(frame.partition("data: ")[2])["id"] == 8
    again = await lite.call("GET", "/mcp", headers={**headers, "Last-Event-ID": "1-0"})
    assert frame in again.text
    failed = await lite.rpc("nope", headers=headers)
    assert '"code":-32601' in failed.text and failed.text.startswith("id: 2-0")


@pytest.mark.requirement("mcp.accept")
@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "application/json", "*/*"])
async def test_all_others_are_answered_plainly(lite: Served, accept: str) -> None:
    headers = {**VERSION, "Mcp-Session-Id": await session_of(lite), "Accept": accept}
    assert (await lite.rpc("tools/list", headers=headers)).headers["content-type"] == "application/json"
    for given in ({"Accept": "text/event-stream"}, VERSION):
        assert (await lite.rpc("tools/list", headers=given)).headers["content-type"] == "application/json", "no session, no stream"


@pytest.mark.requirement("mcp.accept")
async def test_before_2025_11_25_a_stream_has_no_priming_event(lite: Served) -> None:
    opened = await lite.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}})
    headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "Accept": "text/event-stream"}
    assert (await lite.rpc("tools/list", headers=headers)).text.startswith("id: 1-1\nevent: message\n")


@pytest.mark.requirement("mcp.cancel")
async def test_a_client_cancels_its_call_by_a_notification(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(lite, behind) as made:
        session = await session_of(lite, one(made))
        headers = {**VERSION, "Mcp-Session-Id": session}
        calling = asyncio.create_task(lite.rpc("tools/call", {"name": "echo"}, path=one(made), id_="c-1", headers=headers))
        with anyio.fail_after(5):
            while not behind.calls:
                await checkpoint()
        for wrong in ({"requestId": "c-2"}, {}, {"requestId": 1}):
            message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": wrong}
            await lite.call("POST", one(made), message, headers=headers)
        assert not calling.done()
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c-1", "reason": "enough"}}
        assert (await lite.call("POST", one(made), message, headers=headers)).status_code == 202
        with anyio.fail_after(5):
            answer = await calling
        assert (answer.json()["id"], error(answer)["code"]) == ("c-1", -32800)


@pytest.mark.requirement("mcp.resumable")
async def test_a_stream_that_broke_is_taken_up_where_it_was(lite: Served) -> None:
    behind = FakeMcp(progress={"echo": 3}, held={"echo": asyncio.Event()})
    async with upstream(lite, behind) as made:
        session = await session_of(lite, one(made))
        params = {"name": "echo", "_meta": {"progressToken": "t"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params}).encode()
        given = {"accept": "application/json, text/event-stream", "content-type": "application/json", "mcp-session-id": session}
        call = RawCall(lite, "POST", one(made), given).piece(body)
        running = call.start()
        await call.answer.until(lambda: call.answer.body.count(b"notifications/progress") == 3)
        ids = [line.removeprefix(b"id: ").decode() for line in call.answer.body.splitlines() if line.startswith(b"id: ")]
        call.leave()
        again = listening(lite, session, one(made), **{"last-event-id": ids[1]})
        resumed = again.start()
        await again.answer.until(lambda: again.answer.body.count(b"notifications/progress") == 2)
        behind.held["echo"].set()
        with anyio.fail_after(5):
            await running
            await resumed
        assert b'"id":5,"result"' in again.answer.body
        later = listening(lite, session, one(made), **{"last-event-id": ids[3]})
        with anyio.fail_after(5):
            await later.run()
        assert b'"id":5,"result"' in later.answer.body and b"progress" not in later.answer.body


async def test_a_second_reader_of_a_sessions_stream_takes_it_over(lite: Served) -> None:
    session = await session_of(lite)
    first, second = listening(lite, session), listening(lite, session)
    running = first.start()
    await first.answer.until(lambda: bool(first.answer.body))
    other = second.start()
    with anyio.fail_after(5):
        await running
    await second.answer.until(lambda: b"id: " in second.answer.body)
    second.leave()
    with anyio.fail_after(5):
        await other


async def test_a_stream_is_asked_for_by_its_type(lite: Served) -> None:
    session = await session_of(lite)
    answer = await lite.call("GET", "/mcp", headers={"Accept": "application/json", "Mcp-Session-Id": session})
    assert (answer.status_code, error(answer)["code"]) == (400, -32600)
