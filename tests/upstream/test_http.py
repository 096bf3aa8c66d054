"""Streamable HTTP servers of both eras over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network

import anyio
import pytest

from plughub.kit.errors import Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import RawJson
from tests.conftest import FakeClock
from tests.fakes.http_servers import SSE_HEAD, HttpServer, Mcp, Seen, chunk, error_reply, json_reply, reply, sse, text_message, text_reply
from tests.upstream.support import Recorder, call, http, text, tool

pytestmark = pytest.mark.anyio

Tool = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]


@pytest.fixture
async def mcp() -> Mcp:
    return Mcp(tools={"echo": echo})


@pytest.fixture
async def server(mcp: Mcp) -> AsyncIterator[HttpServer]:
    async with HttpServer(mcp) as opened:
        yield opened


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
    return text_reply(seen, seen.json["params"]["arguments"]["text"])


@pytest.fixture
async def pool(server: HttpServer, settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    """As everywhere, but closed before the server is."""
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    yield opened
    await opened.aclose()


def answers(data: bytes) -> Tool:
    """A tool that answers bytes, ID in them replaced by the request's id."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return data.replace(b"ID", b"%2d" % seen.json["id"])

    return answer


async def forever(seen: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# ---- both eras


@pytest.mark.requirement("upstream.http-both-eras")
async def test_what_a_legacy_server_sees(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url, headers={"X-Own": "1"}))
    assert (upstream.facts.era, upstream.facts.version) == ("legacy", "2025-11-25")
    assert await call(upstream, "echo", text="hé") == "hé"
    discover, initialize, initialized, asked = server.seen
    assert [seen.json["method"] for seen in server.seen] == ["server/discover", "initialize", "notifications/initialized", "tools/call"]
    assert initialize.header("mcp-protocol-version") is initialize.header("mcp-session-id") is initialize.header("mcp-method") is None
    for seen in (initialized, asked):
        assert (seen.header("mcp-protocol-version"), seen.header("mcp-session-id")) == ("2025-11-25", "session-1")
        assert seen.header("mcp-method") is None
    assert asked.header("host") == f"127.0.0.1:{server.port}"
    assert (asked.header("accept"), asked.header("content-type")) == ("application/json, text/event-stream", "application/json")
    assert asked.header("x-own") == "1"
    assert "_meta" not in asked.json["params"]
    assert discover.header("mcp-protocol-version") == "2026-07-28"


@pytest.mark.requirement("upstream.http-both-eras")
async def test_what_a_modern_server_sees(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    mcp.era = "modern"
    mcp.tools["wetter für é"] = echo
    upstream = await pool.get(http(server.url))
    assert (upstream.facts.era, upstream.facts.version) == ("modern", "2026-07-28")
    assert json.loads(upstream.facts.server_info) == {"name": "fake", "version": "1"}
    await call(upstream, "wetter für é", text="x")
    asked = server.seen[-1]
    assert [seen.json["method"] for seen in server.seen] == ["server/discover", "tools/call"]
    assert (asked.header("mcp-method"), asked.header("mcp-protocol-version")) == ("tools/call", "2026-07-28")
    assert asked.header("mcp-name") == "=?base64?d2V0dGVyIGbDvHIgw6k=?="
    assert asked.header("mcp-session-id") is None
    assert asked.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


async def test_a_server_without_sessions_is_asked_without_one(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    mcp.sessions = False
    upstream = await pool.get(http(server.url))
    assert await call(upstream, "echo", text="x") == "x"
    assert server.seen[-1].header("mcp-session-id") is None


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
async def test_a_modern_refusal_is_not_followed_by_initialize(pool: Pool, server: HttpServer, code: int) -> None:
    async def refuse(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return error_reply(seen, code, "not like this", 400)

    server.answer = refuse
    with pytest.raises(UpstreamUnreachable, match="refused server/discover: not like this"):
        await pool.get(http(server.url))
    assert len(server.seen) == 1


async def test_a_modern_refusal_that_offers_an_old_revision_is(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def newer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method != "POST" or seen.json["method"] != "server/discover":
            return await mcp(seen, writer)
        error = {"code": -32022, "message": "no", "data": {"supported": ["2099-01-01", "2025-11-25"]}}
        return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "error": error}, 400)

    server.answer = newer
    assert (await pool.get(http(server.url))).facts.era == "legacy"


async def test_calls_share_connections(pool: Pool, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url))
    for number in range(20):
        assert await call(upstream, "echo", text=str(number)) == str(number)
    assert server.connections == 1


@pytest.mark.requirement("upstream.bounded-concurrency")
async def test_connections_are_bounded_and_those_who_wait_get_their_turn(
    pool: Pool, mcp: Mcp, server: HttpServer, settings: Settings
) -> None:
    pool._settings = settings.model_copy(update={"max_connections": 2})
    upstream = await pool.get(http(server.url))
    got: list[str] = []

    async def ask(word: str) -> None:
        got.append(await call(upstream, "echo", text=word))

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, str(number))
    assert sorted(got) == [str(number) for number in range(8)]
    assert server.connections <= 2
    mcp.tools["forever"] = forever
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call, upstream, "forever")
        await server.until(lambda: sum(b"forever" in seen.body for seen in server.seen) == 2)
        with pytest.raises(UpstreamTimeout, match=r"no connection to the server was free within 0\.05 s") as failed:
            await upstream.request(tool("echo", timeout_s=0.05, text="x"))
        assert failed.value.executed == "no"
        group.cancel_scope.cancel()
    assert await call(upstream, "echo", text="free again") == "free again"


async def test_calls_over_the_bound_are_refused(pool: Pool, mcp: Mcp, server: HttpServer, settings: Settings) -> None:
    mcp.tools["forever"] = forever
    upstream = await pool.get(http(server.url))
    async with anyio.create_task_group() as group:
        for _ in range(settings.max_in_flight):
            group.start_soon(call, upstream, "forever")
        await server.until(lambda: sum(b"forever" in seen.body for seen in server.seen) == settings.max_in_flight)
        with pytest.raises(Unavailable):
            await call(upstream, "echo", text="x")
        group.cancel_scope.cancel()


# ---- sessions


@pytest.mark.requirement("upstream.session-gone-is-renewed")
@pytest.mark.parametrize("status", [404, 400])
async def test_a_lost_session_is_renewed_once_for_all_and_the_calls_go_on(pool: Pool, mcp: Mcp, server: HttpServer, status: int) -> None:
    mcp.forget_status = status
    upstream = await pool.get(http(server.url))
    mcp.live.clear()
    got: list[str] = []

    async def ask(word: str) -> None:
        got.append(await call(upstream, "echo", text=word))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(ask, str(number))
    assert sorted(got) == list("01234")
    assert mcp.issued == 2


async def test_a_server_that_became_modern_is_met_again(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url))
    mcp.era = "modern"
    assert await call(upstream, "echo", text="x") == "x"
    assert upstream.facts.era == "modern"
    mcp.era = "legacy"
    assert await call(upstream, "echo", text="y") == "y"
    assert upstream.facts.era == "legacy"


async def test_the_session_is_ended_with_the_connection(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    await pool.get(http(server.url))
    await pool.forget("fake")
    assert (server.seen[-1].method, server.seen[-1].header("mcp-session-id")) == ("DELETE", "session-1")
    assert mcp.live == set()


# ---- streams


@pytest.mark.requirement("upstream.http-both-eras")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_stream_carries_progress_and_the_answer(pool: Pool, mcp: Mcp, server: HttpServer, era: str, hooks: Recorder) -> None:
    async def work(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        token = seen.json["params"].get("_meta", {}).get("progressToken")
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        return sse(progress, note, text_message(seen, "done"))

    mcp.era, mcp.tools["work"] = era, work
    upstream = await pool.get(http(server.url))
    heard: list[tuple[str, dict[str, RawJson]]] = []
    answer = await upstream.request(tool("work", notify=lambda method, params: heard.append((method, params))))
    assert text(answer) == "done"
    assert heard == [("notifications/progress", {"progress": b"1"}), ("notifications/message", {"data": b'"x"'})]
    await call(upstream, "work")
    # A message in the course of a call belongs to whoever called, and to nobody else.
    assert [method for method, _ in hooks.notifications] == ["notifications/progress"]
    assert server.connections == 1


async def test_the_answer_counts_before_the_stream_ends(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def dawdle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        event = b"data: " + json.dumps(text_message(seen, "early")).encode() + b"\n\n"
        for byte in SSE_HEAD + chunk(event):
            writer.write(bytes((byte,)))
        await asyncio.Event().wait()

    mcp.tools["dawdle"] = dawdle
    upstream = await pool.get(http(server.url))
    with anyio.fail_after(1):
        assert await call(upstream, "dawdle") == "early"
    with anyio.fail_after(3):
        await server.until(lambda: server.closed != [])


async def test_a_server_s_own_requests_are_answered(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def ask(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        requests = [
            {"jsonrpc": "2.0", "id": "p", "method": "ping"},
            {"jsonrpc": "2.0", "id": "e", "method": "elicitation/create", "params": {}},
        ]
        return sse(*requests, text_message(seen, "asked"))

    mcp.tools["ask"] = ask
    upstream = await pool.get(http(server.url))
    assert await call(upstream, "ask") == "asked"
    with anyio.fail_after(2):
        await server.until(lambda: sum("method" not in seen.json for seen in server.seen) == 2)
    replies = {seen.json["id"]: seen.json for seen in server.seen if "method" not in seen.json}
    assert replies["p"]["result"] == {} and replies["e"]["error"]["code"] == -32601


@pytest.mark.parametrize("kind", ["notifications", "comments", "strangers", "requests"])
async def test_a_flood_on_a_stream_is_read_slowly_and_the_others_stay_quick(
    pool: Pool, mcp: Mcp, server: HttpServer, hooks: Recorder, kind: str
) -> None:
    flood = {
        "notifications": {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}},
        "strangers": {"jsonrpc": "2.0", "id": 999999, "result": {}},
        "requests": {"jsonrpc": "2.0", "id": "p", "method": "ping"},
    }
    event = b":\n\n" if kind == "comments" else b"data: " + json.dumps(flood[kind]).encode() + b"\n\n"
    written = 0

    async def pour(seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(SSE_HEAD)
        while True:
            writer.write(chunk(event * 1000))
            written += 1000
            await writer.drain()

    mcp.tools["pour"] = pour
    upstream = await pool.get(http(server.url))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "pour")
        with anyio.fail_after(5):
            await hooks.until(lambda: hooks.logged("read slowly"))
            before = written
            for _ in range(50):
                assert await call(upstream, "echo", text="fine") == "fine"
        # What the sockets hold, and what the rate lets through meanwhile: the loop is not busy with the flood.
        assert written - before < 200_000
        assert len(hooks.notifications) + len(hooks.lines) < 40_000
        group.cancel_scope.cancel()
    assert sum("read slowly" in line for line in hooks.lines) == 1


async def test_an_answer_behind_many_notifications_arrives(pool: Pool, mcp: Mcp, hooks: Recorder, server: HttpServer) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"data": "x"}}

    async def chatty(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return sse(*[note] * 3000, text_message(seen, "done"))

    async def to_the_end(seen: Seen, writer: asyncio.StreamWriter) -> None:
        events = b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in [*[note] * 3000, text_message(seen, "end")])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + events)
        await writer.drain()
        writer.close()

    mcp.tools |= {"chatty": chatty, "to_the_end": to_the_end}
    upstream = await pool.get(http(server.url))
    with anyio.fail_after(5):
        assert await call(upstream, "chatty") == "done"
        assert await call(upstream, "to_the_end") == "end"
    assert len(hooks.notifications) == 6000
    assert await call(upstream, "echo", text="fine") == "fine"


async def test_the_renewal_of_a_session_counts_to_the_time_of_the_call(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url))
    mcp.live.clear()
    normal = server.answer

    async def never_again(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json["method"] == "initialize":
            await forever(seen, writer)
        return await normal(seen, writer)

    server.answer = never_again
    with anyio.fail_after(2), pytest.raises(UpstreamTimeout, match=r"within 0\.2 s") as failed:
        await upstream.request(tool("echo", timeout_s=0.2, text="x"))
    assert failed.value.executed == "no"


# ---- giving up


@pytest.mark.requirement("upstream.timeout")
async def test_a_timeout_closes_the_stream_and_tells_an_old_server(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    mcp.tools["forever"] = forever
    upstream = await pool.get(http(server.url))
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
        await upstream.request(tool("forever", timeout_s=0.05))
    with anyio.fail_after(2):
        await server.until(lambda: server.seen[-1].json["method"] == "notifications/cancelled" and server.closed != [])
    asked = next(seen for seen in server.seen if b"forever" in seen.body)
    assert server.seen[-1].json["params"] == {"requestId": asked.json["id"], "reason": "timeout"}


@pytest.mark.requirement("upstream.cancel")
async def test_a_caller_that_goes_away_closes_the_stream_and_nothing_more_on_2026_07_28(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    mcp.era, mcp.tools["forever"] = "modern", forever
    upstream = await pool.get(http(server.url))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "forever")
        await server.until(lambda: b"forever" in server.seen[-1].body)
        group.cancel_scope.cancel()
    with anyio.fail_after(2):
        await server.until(lambda: server.closed != [])
    assert await call(upstream, "echo", text="x") == "x"
    assert all(seen.json["method"] != "notifications/cancelled" for seen in server.seen)


# ---- bad servers


@pytest.mark.parametrize(
    ("answer", "words", "executed"),
    [
        (reply(401), "HTTP 401 Unauthorized", "no"),
        (reply(403, b"<html>", "text/html"), "HTTP 403 Forbidden", "no"),
        (reply(429), "HTTP 429", "no"),
        (reply(500, b"oops", "text/plain"), "HTTP 500 Internal Server Error", "unknown"),
        (reply(302, headers={"Location": "https://u:p@b.test/x?secret=1"}), r"HTTP 302 Found \(redirects .* https://b\.test/x\)", "no"),
        (reply(202), "HTTP 202 with the content type none", "unknown"),
        (reply(200, b"<html>", "text/html"), "content type text/html", "unknown"),
        (reply(200, b"{"), "not a JSON-RPC message", "unknown"),
        (reply(200, b'{"id":ID,"result":{"a":"\xff"}}'), "not valid UTF-8", "unknown"),
        (reply(200, b'{"jsonrpc":"2.0","id":99999,"result":{}}'), "another id", "unknown"),
        (reply(200, b'{"jsonrpc":"2.0","id":ID,"result":[]}'), "neither a result object nor an error", "unknown"),
        (reply(200, b'{"jsonrpc":"2.0","id":ID,"result":{},"result":{"a":1}}'), "'result' appears twice", "unknown"),
        (reply(200, b'{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1}}'), "both a result and an error", "unknown"),
        (SSE_HEAD + chunk(b'data: {"id":ID,"result":{},"id":ID}\n\n') + chunk(b""), "a key appears twice", "unknown"),
        (reply(302, headers={"Location": "http://[x"}), "HTTP 302 Found", "no"),
        (reply(200, b"x" * 1_100_000), "larger than 1048576 bytes", "unknown"),
        (SSE_HEAD + chunk(b""), "the stream ended without an answer", "unknown"),
        (SSE_HEAD + chunk(b"data: {]\n\n") + chunk(b""), "not a JSON-RPC message", "unknown"),
        (SSE_HEAD + chunk(b"data: " + b"x" * 1_100_000), "an event is larger", "unknown"),
        (b"garbage\r\n\r\n", "not valid HTTP", "unknown"),
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_used_fails_its_own_call_alone(
    pool: Pool, mcp: Mcp, server: HttpServer, answer: bytes, words: str, executed: str
) -> None:
    mcp.tools |= {"bad": answers(answer), "forever": forever}
    upstream = await pool.get(http(server.url))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "forever")
        await server.until(lambda: b"forever" in server.seen[-1].body)
        with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=words) as failed:
            await call(upstream, "bad")
        assert failed.value.executed == executed
        assert await call(upstream, "echo", text="fine") == "fine"
        group.cancel_scope.cancel()


async def test_wrong_and_doubled_ids_on_a_stream_are_ignored(pool: Pool, mcp: Mcp, server: HttpServer, hooks: Recorder) -> None:
    async def twice(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        wrong = {"jsonrpc": "2.0", "id": 99999, "result": {}}
        return sse(wrong, text_message(seen, "first"), text_message(seen, "second"))

    mcp.tools["twice"] = twice
    assert await call(await pool.get(http(server.url)), "twice") == "first"
    assert sum("which no call waits for" in line for line in hooks.lines) == 2


async def test_errors_of_the_server_pass_with_any_status(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def refuse(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return error_reply(seen, -32601, "Method not found", seen.json["params"]["arguments"]["status"])

    mcp.era, mcp.tools["refuse"] = "modern", refuse
    upstream = await pool.get(http(server.url))
    for status in (200, 400, 404, 500):
        answer = await upstream.request(tool("refuse", status=status))
        assert json.loads(bytes(answer.error or b""))["code"] == -32601


async def test_a_connection_closed_in_the_middle_may_have_run(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def cut(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        raise ConnectionError

    mcp.tools["cut"] = cut
    upstream = await pool.get(http(server.url))
    with pytest.raises(UpstreamUnreachable, match="closed before the answer was complete") as failed:
        await call(upstream, "cut")
    assert failed.value.executed == "unknown"
    assert await call(upstream, "echo", text="fine") == "fine"


async def test_a_kept_connection_that_closes_under_a_call_repeats_lists_but_never_tools(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url))
    normal = server.answer
    dropped: list[str] = []

    async def drop_once(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json["method"] not in dropped:
            dropped.append(seen.json["method"])
            raise ConnectionError
        return await normal(seen, writer)

    server.answer = drop_once
    listing = tool("echo", text="x")
    listing.method = "tools/list"
    assert text(await upstream.request(listing)) == "tools/list"
    with pytest.raises(UpstreamUnreachable) as failed:
        await call(upstream, "echo", text="x")
    assert failed.value.executed == "unknown"
    assert sum(seen.json["method"] == "tools/call" for seen in server.seen) == 1


@pytest.mark.requirement("upstream.executed-told-apart")
async def test_a_server_that_is_down_never_ran_anything_and_is_found_again(
    pool: Pool, mcp: Mcp, server: HttpServer, hooks: Recorder
) -> None:
    target = http(server.url)
    upstream = await pool.get(target)
    await server.close()
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(UpstreamUnreachable, match=f"connection refused by 127.0.0.1:{server.port}") as failed:
        await call(upstream, "echo", text="x")
    assert failed.value.executed == "no"
    assert hooks.last() == ("error", f"connection refused by 127.0.0.1:{server.port}")
    assert pool.ready(target) is None
    await server.open()
    assert await call(await pool.get(target), "echo", text="back") == "back"


@pytest.mark.requirement("upstream.every-address-checked")
async def test_who_may_not_dial_private_addresses_reaches_nothing(pool: Pool, server: HttpServer, hooks: Recorder) -> None:
    with pytest.raises(UpstreamUnreachable, match="private and loopback addresses are not allowed") as failed:
        await pool.get(http(server.url, private_networks=(ip_network("10.0.0.0/8"),)))
    assert failed.value.executed == "no"
    assert hooks.last()[0] == "error"
    assert server.connections == 0


async def test_a_host_that_does_not_exist_is_told_in_words(pool: Pool) -> None:
    with pytest.raises(UpstreamUnreachable, match=r"host name not found: nowhere\.invalid"):
        await pool.get(http("http://nowhere.invalid/mcp"))


async def test_a_plain_server_behind_https_is_a_tls_error(pool: Pool, server: HttpServer) -> None:
    with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=r"TLS with 127\.0\.0\.1") as failed:
        await pool.get(http(server.url.replace("http:", "https:")))
    assert failed.value.executed == "no"
