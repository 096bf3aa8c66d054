"""What connections hear of their own accord: asked for while somebody wants it, over every transport and in both eras."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from plughub.kit.errors import UpstreamUnreachable
from plughub.protocol.facts import Facts
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import Upstream
from plughub.upstream.watching import NOTHING, Wanted, available
from tests.conftest import FakeClock
from tests.fakes.http_servers import SSE_HEAD, HttpServer, Seen, chunk, json_reply, reply, sse, text_message
from tests.fakes.sse_servers import SseMcp, message
from tests.serving import META, FakeMcp
from tests.upstream.support import Recorder, call, http, stdio, tool

pytestmark = pytest.mark.anyio

ALL = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}, "resources": {"listChanged": True, "subscribe": True}}
TOOLS = Wanted(frozenset(("tools",)))
CHANGED = "notifications/tools/list_changed"


def facts(capabilities: Any, era: str = "legacy") -> Facts:
    return Facts(era, "", capabilities if isinstance(capabilities, bytes) else json.dumps(capabilities).encode(), b"{}")  # type: ignore[arg-type]


def uris(*found: str) -> Wanted:
    return Wanted(uris=frozenset(found))


@pytest.mark.parametrize("capabilities", [b"[]", b"{}", b"", {"tools": {}}, {"tools": {"listChanged": "yes"}}, {"tools": 5}])
def test_what_is_not_announced_is_not_asked_for(capabilities: Any) -> None:
    wanted = Wanted(frozenset(("tools", "prompts", "resources")), frozenset(("a",)), messages=True)
    assert not available(facts(capabilities), wanted)


def test_messages_are_only_told_by_servers_of_older_revisions() -> None:
    wanted = Wanted(messages=True)
    assert available(facts({"logging": {}}), wanted)
    assert not available(facts({"logging": {}}, "modern"), wanted)


@pytest.fixture(params=["legacy", "modern"])
async def fake(request: pytest.FixtureRequest) -> FakeMcp:
    answers = {"resources/subscribe": {}, "resources/unsubscribe": {}}
    return FakeMcp(era=request.param, tells=True, capabilities=ALL, answers=answers)


@pytest.fixture
async def server(fake: FakeMcp) -> AsyncIterator[HttpServer]:
    async with HttpServer(fake) as opened:
        yield opened


@pytest.fixture
async def pool(server: HttpServer, settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    """As everywhere, but closed before the server is."""
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    with anyio.fail_after(20):
        yield opened
    await opened.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def watching(upstream: Upstream) -> Any:
    return upstream.watching  # type: ignore[attr-defined]


def asked(fake: FakeMcp, method: str) -> list[Any]:
    return [message["params"] for message in fake.asked if message["method"] == method]


@pytest.mark.requirement("upstream.listening")
async def test_a_stream_is_open_as_long_as_somebody_wants_it(pool: Pool, fake: FakeMcp, server: HttpServer, hooks: Recorder) -> None:
    upstream = await pool.get(http(server.url))
    assert watching(upstream).idle and not fake.streams
    pool.want("fake", TOOLS)
    await pool.settled(["fake"])
    (seen, _), *others = fake.streams
    assert not others
    if fake.era == "modern":
        assert seen.json["params"]["notifications"] == {"toolsListChanged": True}
        assert seen.header("mcp-method") == "subscriptions/listen"
        assert seen.json["params"]["_meta"][META + "protocolVersion"] == "2026-07-28"
    else:
        assert (seen.method, seen.header("accept"), seen.header("mcp-protocol-version")) == ("GET", "text/event-stream", "2025-11-25")
    fake.tell(CHANGED, x={"y": 1})
    await hooks.until(lambda: bool(hooks.notifications))
    method, params = hooks.notifications[0]
    assert (method, params["x"]) == (CHANGED, b'{"y": 1}')
    pool.want("fake", NOTHING)
    await pool.settled(["fake"])
    await until(lambda: not fake.streams)
    assert watching(upstream).idle
    assert await pool.get(http(server.url)) is upstream


@pytest.mark.requirement("upstream.listening")
async def test_the_end_of_the_stream_is_not_the_end_of_the_connection(
    pool: Pool, fake: FakeMcp, server: HttpServer, hooks: Recorder
) -> None:
    upstream = await pool.get(http(server.url))
    pool.want("fake", TOOLS)
    await pool.settled(["fake"])
    _, writer = fake.streams[0]
    writer.write(chunk(b"id: e-7\nretry: 10\ndata: {}\n\n") + chunk(b"event: message\ndata: not json\n\n"))
    await hooks.until(lambda: hooks.logged("not a message"))
    before = len(server.seen)
    writer.close()
    await until(lambda: len(server.seen) > before and bool(fake.streams))
    fake.tell(CHANGED)
    await hooks.until(lambda: bool(hooks.notifications))
    again = server.seen[-1]
    assert again.header("last-event-id") == ("e-7" if fake.era == "legacy" else None), "only the older revisions take a stream up"
    assert await pool.get(http(server.url)) is upstream
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected"]


@pytest.mark.requirement("upstream.listening")
async def test_resources_are_subscribed_to_once_and_given_up_once(pool: Pool, fake: FakeMcp, server: HttpServer) -> None:
    target = http(server.url)
    await pool.get(target)
    for wanted in (uris("a", "b"), uris("b", "c"), uris("b", "c"), uris("c"), NOTHING):
        pool.want("fake", wanted)
        await pool.settled(["fake"])
    if fake.era == "legacy":
        assert [params["uri"] for params in asked(fake, "resources/subscribe")] == ["a", "b", "c"]
        assert [params["uri"] for params in asked(fake, "resources/unsubscribe")] == ["a", "b", "c"]
    else:
        found = [params["notifications"]["resourceSubscriptions"] for params in asked(fake, "subscriptions/listen")]
        assert found == [["a", "b"], ["b", "c"], ["c"]]
    await until(lambda: not fake.streams)


async def test_a_new_filter_is_in_force_before_the_old_one_ends(pool: Pool, server: HttpServer, fake: FakeMcp) -> None:
    if fake.era == "legacy":
        return
    await pool.get(http(server.url))
    pool.want("fake", uris("a"))
    await pool.settled(["fake"])
    first = fake.streams[0][0]
    pool.want("fake", uris("a", "b"))
    await until(lambda: len(fake.streams) == 2)
    await until(lambda: len(fake.streams) == 1)
    assert fake.streams[0][0] is not first


async def test_a_server_without_such_a_stream_is_asked_once(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    fake = FakeMcp(capabilities=ALL)
    async with HttpServer(fake) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        upstream = await pool.get(http(server.url))
        pool.want("fake", TOOLS)
        await pool.settled(["fake"])
        assert [seen.method for seen in server.seen].count("GET") == 1
        assert await call(upstream, "echo") == "ok"
        await pool.aclose()


async def test_the_stream_has_a_place_beside_the_calls(pool: Pool, fake: FakeMcp, server: HttpServer, settings: Settings) -> None:
    upstream = await pool.get(http(server.url))
    pool.want("fake", TOOLS)
    await pool.settled(["fake"])
    connections: Any = upstream.connections  # type: ignore[attr-defined]
    assert connections.beyond == 1
    pool.want("fake", NOTHING)
    await until(lambda: not fake.streams)
    assert connections.beyond == 0


async def test_the_end_of_the_connection_ends_what_it_hears(pool: Pool, fake: FakeMcp, server: HttpServer) -> None:
    target = http(server.url)
    upstream = await pool.get(target)
    pool.want("fake", Wanted(frozenset(("tools",)), frozenset(("a",))))
    await pool.settled(["fake"])
    await pool.forget("fake")
    await until(lambda: not fake.streams)
    assert watching(upstream).idle or watching(upstream)._task.cancelling()
    # What is wanted is wanted of the next connection too.
    await pool.get(target)
    await pool.settled(["fake"])
    assert len(fake.streams) == 1


async def test_a_session_that_the_server_forgot_is_renewed_and_told_anew(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    sessions: list[str] = []
    subscribed: list[tuple[str | None, str]] = []
    gets: list[str | None] = []

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        session = seen.header("mcp-session-id")
        if seen.method == "POST" and seen.json["method"] == "initialize":
            sessions.append(f"s{len(sessions) + 1}")
            found = {"protocolVersion": "2025-11-25", "capabilities": ALL, "serverInfo": {}}
            return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "result": found}, headers={"Mcp-Session-Id": sessions[-1]})
        if seen.method == "DELETE" or (seen.method == "POST" and "id" not in seen.json):
            return reply(202)
        if session not in sessions[-1:]:
            return reply(404)
        if seen.method == "GET":
            gets.append(session)
            writer.write(SSE_HEAD + (chunk(b"retry: 10\n\n") + chunk(b"") if len(gets) == 1 else b""))
            return None if len(gets) == 1 else await asyncio.Event().wait()
        subscribed.append((session, seen.json["params"]["uri"]))
        return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "result": {}})

    async with HttpServer(answer) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        with anyio.fail_after(20):
            await pool.get(http(server.url))
            pool.want("fake", uris("a"))
            await until(lambda: len(subscribed) == 1)
            sessions.append("another start of the server")
            await until(lambda: len(subscribed) == 2 and len(gets) == 2)
        assert subscribed == [("s1", "a"), ("s3", "a")]
        assert gets == ["s1", "s3"]
        await pool.aclose()


# ---- over pipes


@pytest.mark.requirement("upstream.listening")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_stdio_server_tells_on_its_pipe(settings: Settings, hooks: Recorder, clock: FakeClock, era: str) -> None:
    pool = Pool(settings, hooks, clock=clock)
    await pool.start()
    with anyio.fail_after(20):
        upstream = await pool.get(stdio(era, "tells"))
        pool.want("fake", Wanted(frozenset(("tools",)), frozenset(("a",))))
        await pool.settled(["fake"])
        pool.want("fake", Wanted(frozenset(("tools",)), frozenset(("a", "b"))))
        await pool.settled(["fake"])
        await call(upstream, "tell", method="notifications/resources/updated", params={"uri": "b"})
        assert [method for method, _ in hooks.notifications] == ["notifications/resources/updated"]
        seen = json.loads(await call(upstream, "report"))
        if era == "modern":
            assert len(seen["listening"]) == 1, "the one that was replaced is cancelled"
        else:
            told = [message["params"]["uri"] for message in seen["seen"] if message.get("method") == "resources/subscribe"]
            assert (told, seen["listening"]) == (["a", "b"], [])
        pool.want("fake", NOTHING)
        await pool.settled(["fake"])
        seen = json.loads(await call(upstream, "report"))
        assert seen["listening"] == []
        assert watching(upstream).idle
        assert not upstream.calls.resting  # type: ignore[attr-defined]
        await pool.aclose()


@pytest.mark.requirement("upstream.listening")
async def test_a_server_of_the_old_transport_tells_on_its_one_stream(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    fake = SseMcp(capabilities=ALL)
    async with HttpServer(fake) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        with anyio.fail_after(10):
            await pool.get(http(server.url, transport="SSE"))
            pool.want("fake", Wanted(frozenset(("tools",)), frozenset(("a",))))
            await pool.settled(["fake"])
            fake.write(message(method=CHANGED, params={}))
            await hooks.until(lambda: bool(hooks.notifications))
            pool.want("fake", NOTHING)
            await pool.settled(["fake"])
        assert len(fake.streams) == 1
        said = [(each["method"], each["params"].get("uri")) for each in fake.posted[2:]]
        assert said == [("resources/subscribe", "a"), ("resources/unsubscribe", "a")]
        await pool.aclose()


async def test_messages_of_a_new_stdio_server_go_to_the_one_call_that_asked_for_them(
    settings: Settings, hooks: Recorder, clock: FakeClock
) -> None:
    pool = Pool(settings, hooks, clock=clock)
    await pool.start()
    upstream = await pool.get(stdio("modern", "tells"))
    heard: list[tuple[str, dict[str, Any]]] = []
    quiet: list[str] = []
    ask = tool("log", notify=lambda method, params: heard.append((method, params)), count=2)
    assert ask.peer is not None
    ask.peer.log_level = b'"debug"'
    waiting = asyncio.create_task(upstream.request(tool("hold", notify=lambda method, _: quiet.append(method), key="k")))
    with anyio.fail_after(10):
        await upstream.request(ask)
        await call(upstream, "release", key="k")
        await waiting
    assert [params["data"] for _, params in heard] == [b"0", b"1"]
    assert not quiet and not hooks.notifications
    await pool.aclose()


# ---- streams that break off before their answer


class Polled:
    """A handshake server that ends the stream of a call before its answer, and answers whoever takes it up."""

    def __init__(self, *first: bytes, **how: Any) -> None:
        self.first = first
        self.rest: list[bytes] = how.get("rest", [])
        self.cancelled: list[Any] = []
        self.id = 0

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "GET":
            answer = self.rest.pop(0) if self.rest else sse(text_message_of(self.id))
            return answer or reply(404)
        if seen.method == "DELETE":
            return reply(200)
        message = seen.json
        if message["method"] == "initialize":
            found = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}}
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "result": found}, headers={"Mcp-Session-Id": "s"})
        if "id" not in message:
            self.cancelled += [message["params"]["requestId"]] if message["method"] == "notifications/cancelled" else []
            return reply(202)
        if message["method"] != "tools/call":
            return json_reply({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}})
        self.id = message["id"]
        writer.write(SSE_HEAD + b"".join(chunk(part) for part in self.first))
        writer.write(chunk(b""))
        return None


def text_message_of(id_: int) -> Any:
    return {"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": "resumed"}]}}


@pytest.mark.requirement("upstream.resumed")
async def test_a_stream_that_ended_before_its_answer_is_taken_up_by_its_last_event(
    settings: Settings, hooks: Recorder, clock: FakeClock
) -> None:
    polled = Polled(b"id: one\nretry: 60\ndata: \n\n", rest=[SSE_HEAD + chunk(b"id: two\nretry: 10\ndata: \n\n") + chunk(b"")])
    async with HttpServer(polled) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        upstream = await pool.get(http(server.url))
        loop = asyncio.get_running_loop()
        with anyio.fail_after(10):
            began = loop.time()
            assert await call(upstream, "any") == "resumed"
        assert loop.time() - began >= 0.06, "it waits as long as the server wants"
        gets = [seen for seen in server.seen if seen.method == "GET"]
        assert [(seen.header("last-event-id"), seen.header("mcp-session-id")) for seen in gets] == [("one", "s"), ("two", "s")]
        assert not upstream._calls  # type: ignore[attr-defined]
        assert polled.cancelled == []
        await pool.aclose()


async def test_without_an_event_to_take_it_up_from_the_call_fails(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    for polled in (Polled(b"data: \n\n"), Polled(b"id: one\nretry: 10\ndata: \n\n", rest=[b""])):
        async with HttpServer(polled) as server:
            pool = Pool(settings, hooks, clock=clock)
            await pool.start()
            upstream = await pool.get(http(server.url))
            with anyio.fail_after(10), pytest.raises(UpstreamUnreachable) as failed:
                await call(upstream, "any")
            assert (failed.value.executed, failed.value.reason) == ("unknown", "the stream ended without an answer")
            assert len([seen for seen in server.seen if seen.method == "POST" and b"tools/call" in seen.body]) == 1
            await pool.aclose()


async def test_a_call_that_waits_to_be_taken_up_can_be_cancelled(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    polled = Polled(b"id: one\nretry: 60000\ndata: \n\n")
    async with HttpServer(polled) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        upstream = await pool.get(http(server.url))
        for timeout_s in (10.0, 0.2):
            calling = asyncio.create_task(upstream.request(tool("any", timeout_s)))
            with anyio.fail_after(10):
                before = len(polled.cancelled)
                if timeout_s == 10:
                    await until(lambda: polled.id > 0)
                    while not any(each.resumed for each in upstream._calls.values()):  # type: ignore[attr-defined]
                        await anyio.lowlevel.checkpoint()
                    calling.cancel()
                await asyncio.wait([calling])
                await until(lambda before=before: len(polled.cancelled) > before)  # type: ignore[misc]
            assert polled.cancelled[-1] == polled.id
            assert calling.cancelled() or calling.exception() is not None
        assert not upstream._calls  # type: ignore[attr-defined]
        await pool.aclose()


async def test_the_answer_may_come_on_the_servers_own_stream(settings: Settings, hooks: Recorder, clock: FakeClock) -> None:
    fake = FakeMcp(tells=True, capabilities=ALL)

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json.get("method") == "tools/call":
            frame = json.dumps(text_message(seen, "here")).encode()
            fake.streams[0][1].write(chunk(b"data: " + frame + b"\n\n"))
            return SSE_HEAD + chunk(b"id: one\nretry: 60000\ndata: \n\n") + chunk(b"")
        return await fake(seen, writer)

    async with HttpServer(answer) as server:
        pool = Pool(settings, hooks, clock=clock)
        await pool.start()
        upstream = await pool.get(http(server.url))
        pool.want("fake", TOOLS)
        with anyio.fail_after(10):
            await pool.settled(["fake"])
            assert await call(upstream, "any") == "here"
        await pool.aclose()
