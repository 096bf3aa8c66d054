"""Servers of the old HTTP+SSE transport over real sockets."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import anyio
import pytest

from plughub.kit.errors import Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import RawJson, Target
from tests.conftest import FakeClock
from tests.fakes.http_servers import HttpServer, Mcp, Seen, reply, text_reply
from tests.fakes.sse_servers import POST_PATH, SseMcp, Tool, event, forever, message, text_of
from tests.upstream.support import Recorder, call, http, text, tool

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mcp() -> SseMcp:
    return SseMcp()


@pytest.fixture
async def server(mcp: SseMcp) -> AsyncIterator[HttpServer]:
    async with HttpServer(mcp) as opened:
        yield opened


@pytest.fixture
async def pool(server: HttpServer, settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    """As everywhere, but closed before the server is."""
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    yield opened
    await opened.aclose()


def old(server: HttpServer, **more: Any) -> Target:
    return http(server.url, **({"transport": "SSE"} | more))


def writes(*parts: bytes) -> Tool:
    """A tool that writes bytes on the stream, ID in them replaced by the request's id."""

    async def write(server: SseMcp, id_: Any, arguments: dict[str, Any]) -> None:
        for part in parts:
            server.write(part.replace(b"ID", b"%2d" % id_))

    return write


# ---- the conversation


@pytest.mark.requirement("upstream.sse-upstream")
async def test_what_an_old_server_sees(pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder) -> None:
    upstream = await pool.get(old(server, headers={"X-Own": "1"}))
    assert (upstream.facts.era, upstream.facts.version) == ("legacy", "2024-11-05")
    assert await call(upstream, "echo", text="hé") == "hé"
    stream, *posts = server.seen
    assert (stream.method, stream.target, stream.header("accept")) == ("GET", "/mcp", "text/event-stream")
    assert [said["method"] for said in mcp.posted] == ["initialize", "notifications/initialized", "tools/call"]
    for seen in posts:
        assert (seen.method, seen.target, seen.header("content-type")) == ("POST", POST_PATH, "application/json")
        assert seen.header("x-own") == "1"
        assert seen.header("host") == f"127.0.0.1:{server.port}"
        assert seen.header("mcp-protocol-version") is seen.header("mcp-session-id") is None
    assert hooks.last() == ("connected", None)


async def test_a_newer_revision_over_the_old_transport_is_named_in_the_header(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    mcp.version = "2025-06-18"
    await call(await pool.get(old(server)), "echo", text="x")
    assert server.seen[-1].header("mcp-protocol-version") == "2025-06-18"


@pytest.mark.parametrize("reference", ["messages?session_id=s1", "http://127.0.0.1:PORT/messages?session_id=s1", "/messages?session_id=s1"])
async def test_the_endpoint_may_be_relative_or_absolute(pool: Pool, mcp: SseMcp, server: HttpServer, reference: str) -> None:
    mcp.opening = event(reference.replace("PORT", str(server.port)).encode(), b"endpoint")
    assert await call(await pool.get(old(server)), "echo", text="x") == "x"


@pytest.mark.requirement("upstream.sse-upstream")
async def test_calls_share_one_stream_and_each_gets_its_own_answer(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    waiting: list[tuple[Any, str]] = []

    async def last_first(server: SseMcp, id_: Any, arguments: dict[str, Any]) -> None:
        waiting.append((id_, arguments["text"]))
        if len(waiting) == 8:
            for each, word in reversed(waiting):
                server.write(text_of(each, word))

    mcp.tools["last_first"] = last_first
    upstream = await pool.get(old(server))
    words = [str(number) for number in range(8)]
    assert await asyncio.gather(*(call(upstream, "last_first", text=word) for word in words)) == words
    assert len(mcp.streams) == 1
    assert upstream.in_flight == 0  # type: ignore[attr-defined]


async def test_the_answer_may_come_before_the_post_is_answered(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    async def and_then_nothing(server: SseMcp, id_: Any, arguments: dict[str, Any]) -> None:
        server.write(text_of(id_, "early"))
        await asyncio.Event().wait()

    mcp.tools["early"] = and_then_nothing
    upstream = await pool.get(old(server))
    with anyio.fail_after(3):
        assert await call(upstream, "early") == "early"
        await server.until(lambda: server.closed != [])  # the POST that nobody answers is given up
    assert await call(upstream, "echo", text="fine") == "fine"


async def test_progress_goes_to_its_caller_and_the_rest_to_everybody(pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder) -> None:
    async def work(server: SseMcp, id_: Any, arguments: dict[str, Any]) -> None:
        token = mcp.posted[-1]["params"]["_meta"]["progressToken"]
        server.write(message(method="notifications/progress", params={"progressToken": token, "progress": 1}))
        server.write(message(method="notifications/tools/list_changed"))
        server.write(text_of(id_, "done"))

    mcp.tools["work"] = work
    heard: list[tuple[str, dict[str, RawJson]]] = []
    upstream = await pool.get(old(server))
    answer = await upstream.request(tool("work", notify=lambda method, params: heard.append((method, params))))
    assert text(answer) == "done"
    assert heard == [("notifications/progress", {"progress": b"1"})]
    assert hooks.notifications == [("notifications/tools/list_changed", {})]


async def test_a_server_s_own_requests_are_answered(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    asks = message(id="p", method="ping") + message(id="s", method="sampling/createMessage", params={})
    mcp.tools["ask"] = writes(asks, text_of("ID", "asked").replace(b'"ID"', b"ID"))
    assert await call(await pool.get(old(server)), "ask") == "asked"
    with anyio.fail_after(2):
        await server.until(lambda: sum(seen.method == "POST" and "method" not in seen.json for seen in server.seen) == 2)
    replies = {seen.json["id"]: seen.json for seen in server.seen if seen.body and "method" not in seen.json}
    assert replies["p"]["result"] == {} and replies["s"]["error"]["code"] == -32601


async def test_what_a_server_asks_before_it_says_where_to_answer_is_left_out(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    mcp.opening = message(id="early", method="ping") + mcp.opening
    assert await call(await pool.get(old(server)), "echo", text="x") == "x"
    assert all(seen.target == POST_PATH for seen in server.seen[1:])
    assert all("method" in said for said in mcp.posted)


@pytest.mark.requirement("upstream.timeout")
async def test_a_timeout_is_told_to_the_server_and_the_late_answer_is_nobodys(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder
) -> None:
    upstream = await pool.get(old(server))
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
        await upstream.request(tool("forever", timeout_s=0.05))
    with anyio.fail_after(2):
        await server.until(lambda: b"notifications/cancelled" in server.seen[-1].body)
    id_ = next(said["id"] for said in mcp.posted if said.get("params", {}).get("name") == "forever")
    assert server.seen[-1].json["params"] == {"requestId": id_, "reason": "timeout"}
    mcp.write(text_of(id_, "late"))
    assert await call(upstream, "echo", text="mine") == "mine"
    assert hooks.logged("which no call waits for")


@pytest.mark.requirement("upstream.cancel")
async def test_a_caller_that_goes_away_is_told_to_the_server(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    upstream = await pool.get(old(server))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "forever")
        await server.until(lambda: b"forever" in server.seen[-1].body)
        group.cancel_scope.cancel()
    with anyio.fail_after(2):
        await server.until(lambda: b"notifications/cancelled" in server.seen[-1].body)
    assert upstream.in_flight == 0  # type: ignore[attr-defined]


@pytest.mark.requirement("upstream.bounded-concurrency")
async def test_calls_over_the_bound_are_refused(pool: Pool, mcp: SseMcp, server: HttpServer, settings: Settings) -> None:
    upstream = await pool.get(old(server))
    async with anyio.create_task_group() as group:
        for _ in range(settings.max_in_flight):
            group.start_soon(call, upstream, "forever")
        await server.until(lambda: sum(b"forever" in seen.body for seen in server.seen) == settings.max_in_flight)
        with pytest.raises(Unavailable):
            await call(upstream, "echo", text="x")
        group.cancel_scope.cancel()


# ---- the stream ends


@pytest.mark.requirement("upstream.sse-upstream", "upstream.executed-told-apart")
async def test_a_stream_cut_in_a_call_may_have_run_it_and_the_next_call_reconnects(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder
) -> None:
    target = old(server)
    upstream = await pool.get(target)
    assert await call(upstream, "echo", text="x") == "x"
    with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match="the server's stream ended") as failed:
        await call(upstream, "cut")
    assert failed.value.executed == "unknown"
    assert hooks.last()[0] == "error"
    assert pool.ready(target) is None
    assert await call(await pool.get(target), "echo", text="back") == "back"
    assert hooks.last() == ("connected", None)
    assert len(mcp.streams) == 2


async def test_a_stream_that_ends_in_silence_is_noticed_without_a_call(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder
) -> None:
    target = old(server)
    await pool.get(target)
    mcp.streams[-1].write(b"0\r\n\r\n")
    with anyio.fail_after(2):
        await hooks.until(lambda: hooks.last() == ("error", "the server's stream ended"))
    assert pool.ready(target) is None


async def test_ending_the_connection_closes_the_stream(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    await pool.get(old(server))
    assert pool.snapshot().http_connections >= 1
    await pool.forget("fake")
    with anyio.fail_after(2):
        await server.until(lambda: len(server.closed) == server.connections)


# ---- bad servers


@pytest.mark.requirement("bad-input.sse-servers")
@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (b"", "no endpoint event before it ended"),
        (b": ping\n\n", r"no endpoint event within 0\.25 s"),
        (event(b"hello"), r"no endpoint event within 0\.25 s"),
        (event(b"http://127.0.0.1:1/messages", b"endpoint"), r"endpoint is on another origin \(http://127\.0\.0\.1:1\)"),
        (event(b"//evil.test/x?token=1", b"endpoint"), r"endpoint is on another origin \(http://evil\.test\)"),
        (event(b"https://127.0.0.1/messages", b"endpoint"), r"another origin \(https://127\.0\.0\.1\)"),
        (event(b"file:///etc/passwd", b"endpoint"), "another origin"),
        (event(b"http://[x/messages", b"endpoint"), "no address that can be read"),
        (event(b"/mess\xffages", b"endpoint"), "no address that can be read"),
        (event(b" ", b"endpoint"), "no address that can be read"),
    ],
)
async def test_a_server_without_a_usable_endpoint_is_a_clear_error(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder, opening: bytes, words: str
) -> None:
    mcp.opening = opening
    with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=words) as failed:
        await pool.get(old(server, start_timeout_s=0.5))
    assert failed.value.executed == "no"
    assert hooks.last() == ("error", failed.value.reason)
    assert mcp.posted == []


@pytest.mark.requirement("bad-input.sse-servers")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(401), "HTTP 401 Unauthorized"),
        (reply(404), "HTTP 404 Not Found"),
        (reply(307, headers={"Location": "/mcp/"}), "HTTP 307 Temporary Redirect"),
        (reply(500, b"oops", "text/plain"), "HTTP 500 Internal Server Error"),
        (reply(200, b"<html>", "text/html"), "HTTP 200 with the content type text/html, not a stream"),
        (b"garbage\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 70_000, "the headers are larger than"),
    ],
)
async def test_a_refused_stream_is_a_clear_error(pool: Pool, server: HttpServer, hooks: Recorder, answer: bytes, words: str) -> None:
    async def refuse(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return answer

    server.answer = refuse
    with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=words) as failed:
        await pool.get(old(server))
    assert failed.value.executed == "no"
    assert hooks.last()[0] == "error"


@pytest.mark.requirement("bad-input.sse-servers")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (event(b'{"jsonrpc":"2.0","id":ID,"result":{'), "not a JSON-RPC message"),
        (event(b'{"jsonrpc":"2.0","id":ID,"result":{"a":"\xff"}}'), "not valid UTF-8"),
        (event(b'{"jsonrpc":"2.0","id":ID,"result":[]}'), "neither a result object nor an error"),
        (event(b'{"jsonrpc":"2.0","id":ID,"result":{},"result":{"a":1}}'), "'result' appears twice"),
        (event(b'{"jsonrpc":"2.0","id":ID,"result":{"a":"' + b"x" * 10_000_000 + b'"}}'), "it has 100000.. bytes; the limit is 1048576"),
        (event(b'{"jsonrpc":"2.0","result":{"a":"' + b"x" * 2_000_000 + b'"},"id":ID}'), "it has 20000.. bytes; the limit is 1048576"),
    ],
)
async def test_an_answer_that_cannot_be_used_fails_its_own_call_alone(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder, data: bytes, words: str
) -> None:
    mcp.tools["bad"] = writes(data)
    upstream = await pool.get(old(server))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "forever")
        await server.until(lambda: b"forever" in server.seen[-1].body)
        with anyio.fail_after(10), pytest.raises(UpstreamUnreachable, match=words) as failed:
            await call(upstream, "bad")
        assert failed.value.executed == "unknown"
        assert await call(upstream, "echo", text="fine") == "fine"
        group.cancel_scope.cancel()
    assert len(mcp.streams) == 1
    assert hooks.last() == ("connected", None)


@pytest.mark.requirement("bad-input.sse-servers", "bad-input.wrong-id", "bad-input.doubled-id")
async def test_garbage_wrong_and_doubled_ids_are_logged_and_given_to_nobody(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder
) -> None:
    answer = event(b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"first"}]}}')
    garbage = event(b"no json at all") + event(b"{}", b"vendor") + event(b"http://evil.test/", b"endpoint") + b"data\n\n\xff\xfe: x\n\n"
    mcp.tools["odd"] = writes(garbage, message(id=99999, result={}), answer, answer)
    upstream = await pool.get(old(server))
    assert await call(upstream, "odd") == "first"
    assert await call(upstream, "echo", text="fine") == "fine"
    assert sum("which no call waits for" in line for line in hooks.lines) == 2
    assert hooks.logged("not a message", "no json at all")
    assert hooks.logged("another endpoint event was ignored")


@pytest.mark.requirement("bad-input.sse-servers")
@pytest.mark.parametrize("kind", ["notifications", "comments", "strangers", "requests", "endless event"])
async def test_a_flood_on_the_stream_is_read_slowly_and_does_not_grow(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder, kind: str
) -> None:
    flood = {
        "notifications": message(method="notifications/message", params={"level": "info", "data": "x"}),
        "comments": b":\n",
        "strangers": message(id=999999, result={}),
        "requests": message(id="p", method="ping"),
        "endless event": b"data: " + b"x" * 1000 + b"\n",
    }
    written = 0

    async def pour(stream: SseMcp, id_: Any, arguments: dict[str, Any]) -> None:
        nonlocal written
        while True:
            stream.write(flood[kind] * 1000)
            written += len(flood[kind]) * 1000
            await stream.streams[-1].drain()

    mcp.tools["pour"] = pour
    upstream = await pool.get(old(server))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "pour")
        tracemalloc.start()
        try:
            with anyio.fail_after(20):
                await hooks.until(lambda: hooks.logged("read slowly"))
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
        group.cancel_scope.cancel()
    assert sum("read slowly" in line for line in hooks.lines) == 1


@pytest.mark.requirement("bad-input.sse-servers")
@pytest.mark.parametrize(("status", "executed"), [(400, "no"), (403, "no"), (429, "no"), (500, "unknown")])
async def test_a_refused_post_fails_its_own_call_alone(pool: Pool, mcp: SseMcp, server: HttpServer, status: int, executed: str) -> None:
    upstream = await pool.get(old(server))
    async with anyio.create_task_group() as group:
        group.start_soon(call, upstream, "forever")
        await server.until(lambda: b"forever" in server.seen[-1].body)
        mcp.tools["refused"], mcp.takes["refused"] = forever, reply(status, b"no", "text/plain")
        with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=f"HTTP {status}") as failed:
            await call(upstream, "refused")
        assert failed.value.executed == executed
        assert await call(upstream, "echo", text="fine") == "fine"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("taken", [reply(404), reply(400, b"No transport found for sessionId", "text/plain")])
async def test_a_server_that_forgot_the_stream_is_met_again(pool: Pool, mcp: SseMcp, server: HttpServer, taken: bytes) -> None:
    target = old(server)
    upstream = await pool.get(target)
    mcp.taken = taken
    with pytest.raises(UpstreamUnreachable) as failed:
        await call(upstream, "forever")
    assert failed.value.executed == "no"
    mcp.taken = reply(202)
    assert pool.ready(target) is None
    assert await call(await pool.get(target), "echo", text="back") == "back"


async def test_a_kept_connection_that_closes_under_a_post_repeats_lists_but_never_tools(
    pool: Pool, mcp: SseMcp, server: HttpServer
) -> None:
    upstream = await pool.get(old(server))
    dropped: list[str] = []

    async def drop_once(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json["method"] not in dropped:
            dropped.append(seen.json["method"])
            raise ConnectionError
        return await mcp(seen, writer)

    server.answer = drop_once
    listing = tool("echo")
    listing.method = "tools/list"
    with anyio.fail_after(5):
        assert text(await upstream.request(listing)) == "tools/list"
        with pytest.raises(UpstreamUnreachable) as failed:
            await call(upstream, "echo", text="x")
    assert failed.value.executed == "unknown"
    assert await call(upstream, "echo", text="fine") == "fine"


@pytest.mark.requirement("upstream.every-address-checked")
async def test_who_may_not_dial_private_addresses_reaches_nothing(pool: Pool, server: HttpServer) -> None:
    with pytest.raises(UpstreamUnreachable, match="private and loopback addresses are not allowed"):
        await pool.get(old(server, private_networks=(ip_network("10.0.0.0/8"),)))
    assert server.connections == 0


async def test_a_server_that_is_down_is_told_so(pool: Pool, server: HttpServer) -> None:
    await server.close()
    with pytest.raises(UpstreamUnreachable, match="connection refused by") as failed:
        await pool.get(old(server))
    assert failed.value.executed == "no"


@pytest.mark.requirement("bad-input.sse-servers")
async def test_a_server_that_never_answers_at_all_is_a_timeout(pool: Pool, server: HttpServer, hooks: Recorder) -> None:
    async def deaf(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server.answer = deaf
    with anyio.fail_after(3), pytest.raises(UpstreamTimeout, match=r"did not answer the request for its stream within 0\.2 s") as failed:
        await pool.get(old(server, start_timeout_s=0.2))
    assert failed.value.executed == "no"
    assert hooks.last()[0] == "error"
    with anyio.fail_after(2):
        await server.until(lambda: len(server.closed) == server.connections)


async def test_an_old_server_that_never_answers_initialize_is_a_timeout(pool: Pool, mcp: SseMcp, server: HttpServer) -> None:
    async def deaf(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return reply(202) if seen.method == "POST" else await mcp(seen, writer)

    server.answer = deaf
    with anyio.fail_after(3), pytest.raises(UpstreamTimeout, match="did not answer initialize") as failed:
        await pool.get(old(server, start_timeout_s=0.3))
    assert failed.value.executed == "no"


# ---- registered as the other one


@pytest.mark.requirement("upstream.transport-found")
@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_old_server_registered_as_streamable_http_is_found(
    pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder, status: int
) -> None:
    async def no_post(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return reply(status) if seen.method == "POST" and seen.target == "/mcp" else await mcp(seen, writer)

    server.answer = no_post
    target = http(server.url)
    upstream = await pool.get(target)
    assert await call(upstream, "echo", text="x") == "x"
    assert hooks.logged("the server speaks HTTP+SSE of 2024-11-05; it is registered as STREAMABLE_HTTP")
    mcp.cut()
    await hooks.until(lambda: hooks.last()[0] == "error")
    before = len(server.seen)
    assert await call(await pool.get(target), "echo", text="again") == "again"
    assert server.seen[before].method == "GET", "what was found is tried first the next time"


@pytest.mark.requirement("upstream.transport-found")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_streamable_server_registered_as_sse_is_found(pool: Pool, server: HttpServer, hooks: Recorder, era: str) -> None:
    async def say(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return text_reply(seen, seen.json["params"]["arguments"]["text"])

    streamable = Mcp(era=era, tools={"echo": say})

    async def no_get(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return reply(405) if seen.method == "GET" else await streamable(seen, writer)

    server.answer = no_get
    upstream = await pool.get(old(server))
    assert upstream.facts.era == era
    assert await call(upstream, "echo", text="x") == "x"
    assert hooks.logged("the server speaks Streamable HTTP; it is registered as SSE")


async def test_a_wrong_address_is_told_as_the_registered_type_sees_it(pool: Pool, server: HttpServer, hooks: Recorder) -> None:
    async def nothing(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return reply(404 if seen.method == "POST" else 405)

    server.answer = nothing
    with pytest.raises(UpstreamUnreachable, match="HTTP 404 Not Found"):
        await pool.get(http(server.url))
    with pytest.raises(UpstreamUnreachable, match="HTTP 405 Method Not Allowed"):
        await pool.get(old(server, slug="other"))
    assert [seen.method for seen in server.seen] == ["POST", "POST", "GET", "GET", "POST", "POST"]
    assert json.loads(server.seen[1].body)["method"] == "initialize"


async def test_an_upgraded_server_is_met_over_its_new_transport(pool: Pool, mcp: SseMcp, server: HttpServer, hooks: Recorder) -> None:
    target = old(server)
    await pool.get(target)

    async def say(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return text_reply(seen, seen.json["params"]["arguments"]["text"])

    modern = Mcp(era="modern", tools={"echo": say})

    async def upgraded(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return reply(405) if seen.method == "GET" else await modern(seen, writer)

    server.answer = upgraded
    mcp.cut()
    await hooks.until(lambda: hooks.last()[0] == "error")
    upstream = await pool.get(target)
    assert upstream.facts.era == "modern"
    assert await call(upstream, "echo", text="new") == "new"
    server.answer = mcp
    with pytest.raises(UpstreamUnreachable) as failed:
        await call(upstream, "echo", text="x")
    assert failed.value.executed == "no"
    assert await call(await pool.get(target), "echo", text="old again") == "old again"
