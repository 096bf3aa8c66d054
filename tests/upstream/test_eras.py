"""Servers that are upgraded or downgraded while the hub runs: the same address or command, another era."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from plughub.kit.errors import UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from tests.conftest import FakeClock
from tests.fakes.http_servers import HttpServer, Mcp, Seen, error_reply, json_reply, reply, text_reply
from tests.upstream.support import Recorder, call, http, stdio

pytestmark = pytest.mark.anyio

MODERN = "2026-07-28"
UP_AND_DOWN = pytest.mark.parametrize(("before", "after"), [("legacy", "modern"), ("modern", "legacy")])


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
    return text_reply(seen, seen.json["params"]["arguments"]["text"])


@pytest.fixture
async def mcp() -> Mcp:
    return Mcp(tools={"echo": echo})


@pytest.fixture
async def server(mcp: Mcp) -> AsyncIterator[HttpServer]:
    async with HttpServer(mcp) as opened:
        yield opened


@pytest.fixture
async def pool(server: HttpServer, settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    yield opened
    await opened.aclose()


# ---- HTTP


@pytest.mark.requirement("upstream.era-found-again")
@UP_AND_DOWN
async def test_an_http_server_of_another_era_after_a_reconnect_is_met_at_once(
    pool: Pool, mcp: Mcp, server: HttpServer, hooks: Recorder, before: str, after: str
) -> None:
    mcp.era = before
    target = http(server.url)
    upstream = await pool.get(target)
    assert await call(upstream, "echo", text="x") == "x"
    await server.close()
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(UpstreamUnreachable):
        await call(upstream, "echo", text="x")
    mcp.era = after
    mcp.live.clear()
    await server.open()
    upstream = await pool.get(target)
    assert upstream.facts.era == after
    assert await call(upstream, "echo", text="back") == "back"
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected", "error", "connecting", "connected"]


def unsupported(code: int, message: str) -> bytes:
    error = {"code": code, "message": message, "data": {"supported": ["2025-11-25"]}}
    return json_reply({"jsonrpc": "2.0", "id": None, "error": error}, 400)


@pytest.mark.requirement("upstream.era-found-again")
@pytest.mark.parametrize(
    "refusal",
    [
        unsupported(-32000, "Bad Request: Unsupported protocol version: 2026-07-28 (supported versions: 2025-11-25, 2025-06-18)"),
        unsupported(-32600, "Bad Request: Missing session ID"),
        unsupported(-32022, "no such version"),
        reply(400, b"bad MCP-Protocol-Version", "text/plain"),
        reply(404),
        reply(405),
    ],
)
@pytest.mark.parametrize("sessions", [True, False], ids=["with sessions", "without"])
async def test_a_downgrade_under_a_live_connection_is_found_by_the_call_that_meets_it(
    pool: Pool, mcp: Mcp, server: HttpServer, refusal: bytes, sessions: bool
) -> None:
    mcp.era = "modern"
    upstream = await pool.get(http(server.url))
    legacy = Mcp(sessions=sessions, tools={"echo": echo})

    async def downgraded(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return refusal if seen.header("mcp-protocol-version") == "2026-07-28" else await legacy(seen, writer)

    server.answer = downgraded
    assert await call(upstream, "echo", text="x") == "x"
    assert upstream.facts.era == "legacy"
    assert sum(seen.method == "POST" and seen.json.get("method") == "tools/call" for seen in server.seen) == 2


@pytest.mark.requirement("upstream.era-found-again")
@pytest.mark.parametrize("sessions", [True, False], ids=["with sessions", "without"])
@pytest.mark.parametrize("status", [400, 404])
async def test_an_upgrade_under_a_live_connection_is_found_by_the_call_that_meets_it(
    pool: Pool, mcp: Mcp, server: HttpServer, hooks: Recorder, sessions: bool, status: int
) -> None:
    mcp.sessions = sessions
    upstream = await pool.get(http(server.url))
    assert upstream.facts.era == "legacy"
    modern = Mcp(era="modern", tools={"echo": echo})

    async def upgraded(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.header("mcp-protocol-version") != "2026-07-28":
            return reply(404) if status == 404 else error_reply(seen, -32020, "Mcp-Method is missing", 400)
        return await modern(seen, writer)

    server.answer = upgraded
    assert await call(upstream, "echo", text="x") == "x"
    assert upstream.facts.era == "modern"
    assert [method for method, _ in hooks.notifications] == [
        f"notifications/{kind}/list_changed" for kind in ("tools", "resources", "prompts")
    ]


@pytest.mark.requirement("upstream.era-found-again")
@pytest.mark.parametrize(("refusals", "asked"), [(0, 1), (1, 2), (2, 2)])
async def test_a_server_that_names_our_revision_in_its_refusal_is_asked_once_more(
    pool: Pool, mcp: Mcp, server: HttpServer, refusals: int, asked: int
) -> None:
    mcp.era = "modern"
    error = {"code": -32022, "message": "not that one", "data": {"supported": [MODERN], "requested": MODERN}}

    async def refusing(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if sum(each.method == "POST" for each in server.seen) <= refusals:
            return json_reply({"jsonrpc": "2.0", "id": seen.json["id"], "error": error}, 400)
        return await mcp(seen, writer)

    server.answer = refusing
    if refusals < 2:
        assert (await pool.get(http(server.url))).facts.era == "modern"
    else:
        with pytest.raises(UpstreamUnreachable, match="not that one"):
            await pool.get(http(server.url))
    assert [seen.json["method"] for seen in server.seen] == ["server/discover"] * asked


async def test_an_answer_that_only_speaks_of_sessions_is_asked_for_once_more_and_then_passes(
    pool: Pool, mcp: Mcp, server: HttpServer
) -> None:
    async def busy(seen: Seen, writer: asyncio.StreamWriter) -> bytes:
        return error_reply(seen, -32000, "too many sessions", 400)

    mcp.tools["busy"] = busy
    upstream = await pool.get(http(server.url))
    before = len(server.seen)
    with pytest.raises(AssertionError, match="too many sessions"):
        await call(upstream, "busy")
    assert sum(seen.json.get("method") == "tools/call" for seen in server.seen[before:]) == 2


async def test_an_http_server_that_ignores_the_probe_is_met_by_initialize(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    async def deaf(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json["method"] == "server/discover":
            await asyncio.Event().wait()
        return await mcp(seen, writer)

    server.answer = deaf
    with anyio.fail_after(3):
        assert (await pool.get(http(server.url, start_timeout_s=1.5))).facts.era == "legacy"


async def test_a_modern_server_that_slept_through_the_probe_is_asked_again(pool: Pool, mcp: Mcp, server: HttpServer) -> None:
    mcp.era = "modern"
    asked: list[Seen] = []

    async def sleepy(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        asked.append(seen)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return await mcp(seen, writer)

    server.answer = sleepy
    with anyio.fail_after(3):
        assert (await pool.get(http(server.url, start_timeout_s=1.5))).facts.era == "modern"


# ---- STDIO


@pytest.mark.requirement("upstream.era-found-again")
@pytest.mark.parametrize(
    ("before", "after", "era"),
    [
        ("legacy", "modern", "modern"),
        ("legacy", "proud", "modern"),
        ("shy", "modern", "modern"),
        ("shy", "proud", "modern"),
        ("legacy", "shy", "legacy"),
        ("modern", "legacy", "legacy"),
        ("proud", "shy", "legacy"),
        ("dual", "legacy", "legacy"),
    ],
)
async def test_a_command_of_another_era_after_a_restart_is_met_at_once(
    pool: Pool, hooks: Recorder, tmp_path: Path, before: str, after: str, era: str
) -> None:
    file = tmp_path / "era"
    file.write_text(before)
    target = stdio(f"@{file}")
    upstream = await pool.get(target)
    assert await call(upstream, "echo", text="x") == "x"
    with pytest.raises(UpstreamUnreachable, match="exited with code 3"):
        await call(upstream, "leave", code=3)
    file.write_text(after)
    upstream = await pool.get(target)
    assert upstream.facts.era == era
    assert await call(upstream, "echo", text="back") == "back"
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected", "error", "connecting", "connected"]
    assert len(pool.snapshot().children) == 1
