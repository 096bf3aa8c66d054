"""Lists of tools: fetched once for all who wait, kept while they hold, never kept when they may be outdated."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from plughub.gateway.catalog import Catalog, unknown
from plughub.gateway.lists import TOOLS, upstream_error
from plughub.gateway.lists import Listing as Held
from plughub.gateway.names import MAX_NAME, aggregate_name, stands_for_itself
from plughub.kit.caller import Caller
from plughub.kit.errors import InvalidArguments, ServerDisabled, ToolNotFound, UpstreamError
from plughub.settings import Settings
from plughub.upstream.target import Target
from tests.fakes.http_servers import Seen
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio
VALID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Listing(FakeMcp):
    """Counts the lists it gives. `gates`: the n-th list is made up when it is asked for, and sent when its gate opens."""

    lists: int = 0
    gates: list[asyncio.Event] = field(default_factory=list)
    pages: dict[str | None, Json] = field(default_factory=dict)
    refusal: Json | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method != "POST" or seen.json.get("method") != "tools/list":
            return await super().__call__(seen, writer)
        number, self.lists = self.lists, self.lists + 1
        answer: bytes | None
        if self.refusal is not None:
            answer = self._reply_error(seen)
        elif self.pages:
            answer = self._reply(seen, self.pages[seen.json["params"].get("cursor")])
        else:
            answer = await super().__call__(seen, writer)
        self.asked.set()
        if number < len(self.gates):
            await self.gates[number].wait()
        return answer

    def _reply_error(self, seen: Seen) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": seen.json["id"], "error": self.refusal}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def until_asked(self) -> None:
        """Wait for the next list that is asked for."""
        with anyio.fail_after(5):
            await self.asked.wait()
        self.asked.clear()

    def hold(self, count: int = 1) -> list[asyncio.Event]:
        """Gates for the next lists."""
        self.lists, self.gates = 0, [asyncio.Event() for _ in range(count)]
        self.asked.clear()
        return self.gates


def tools(*names: str) -> list[Json]:
    return [{"name": name, "inputSchema": {"type": "object"}} for name in names]


@dataclass
class Desk:
    """A catalog of its own over the hub's exchange, and one server behind it."""

    served: Served
    behind: Listing
    catalog: Catalog
    caller: Caller
    target: Target

    async def names(self) -> set[str]:
        return set((await self.catalog.tools(self.caller, self.target)).names)

    async def fetches(self) -> int:
        """How many lists one more question costs."""
        before = self.behind.lists
        await self.names()
        return self.behind.lists - before

    def start(self, target: Target | None = None) -> asyncio.Task[Held]:
        return asyncio.create_task(self.catalog.tools(self.caller, target or self.target))

    async def check(self, name: str) -> None:
        await self.catalog.check_tool(self.caller, self.target, name)


@asynccontextmanager
async def at_desk(served: Served, behind: Listing, name: str = "listing") -> AsyncIterator[Desk]:
    hub = served.app.hub
    entry = await hub.keys.resolve(served.key)
    assert entry is not None
    async with upstream(served, behind, name) as made:
        with anyio.fail_after(5):  # the hub's own look at the new server
            while hub.board.get(made["uuid"]).tools_count is None and hub.board.get(made["uuid"]).status != "error" and not behind.refusal:
                await checkpoint()
        target = await hub.servers.visible(entry.caller, made["uuid"])
        behind.lists = 0
        yield Desk(served, behind, Catalog(hub.exchange, hub.settings, hub.clock, served.app.wiring), entry.caller, target)


@pytest.fixture
async def desk(lite: Served) -> AsyncIterator[Desk]:
    async with at_desk(lite, Listing()) as found:
        yield found


async def done(work: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> Any:
    with anyio.fail_after(5):
        return await work


# --- one fetch for all ---


async def test_whoever_asks_during_a_fetch_shares_it_and_may_leave(desk: Desk) -> None:
    (gate,) = desk.behind.hold()
    asking = [desk.start() for _ in range(5)]
    await desk.behind.until_asked()
    asking[0].cancel()
    await asyncio.wait([asking[0]])
    gate.set()
    found = [await done(task) for task in asking[1:]]
    assert {id(one) for one in found} == {id(found[0])}
    assert desk.behind.lists == 1
    assert desk.catalog.known(desk.target) is found[0]
    assert await desk.fetches() == 0


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(desk: Desk) -> None:
    (gate,) = desk.behind.hold()
    desk.behind.refusal = {"code": -32000, "message": "not today"}
    asking = [desk.start() for _ in range(3)]
    await desk.behind.until_asked()
    gate.set()
    for task in asking:
        with pytest.raises(UpstreamError) as raised:
            await done(task)
        assert raised.value.details["mcp_error"] == "not today"
    assert (desk.behind.lists, desk.catalog.known(desk.target)) == (1, None)
    desk.behind.refusal = None
    assert await desk.names() == {"echo"}


# --- how long ---


@pytest.mark.parametrize(
    ("more", "holds_s"),
    [({}, 60), ({"ttlMs": None}, 60), ({"ttlMs": 5000}, 5), ({"ttlMs": 500.5}, 0.5005), ({"ttlMs": 10**12}, 60)],
    ids=str,
)
async def test_a_list_holds_as_long_as_its_server_says_and_a_minute_at_most(lite: Served, more: Json, holds_s: float) -> None:
    async with at_desk(lite, Listing(list_more=more)) as desk:
        assert [await desk.fetches(), await desk.fetches()] == [1, 0]
        lite.clock.advance(holds_s - 0.01)
        assert await desk.fetches() == 0
        lite.clock.advance(0.02)
        assert [await desk.fetches(), await desk.fetches()] == [1, 0]


@pytest.mark.parametrize("ttl_ms", [0, -1, -(10**12)])
async def test_a_list_may_not_hold_at_all(lite: Served, ttl_ms: int) -> None:
    async with at_desk(lite, Listing(list_more={"ttlMs": ttl_ms})) as desk:
        assert [await desk.fetches(), await desk.fetches()] == [1, 1]


async def test_pages_are_put_together_and_the_shortest_time_counts(lite: Served) -> None:
    pages: dict[str | None, Json] = {
        None: {"tools": tools("b", "a"), "nextCursor": "two", "ttlMs": 30_000},
        "two": {"tools": tools("d"), "nextCursor": "three", "ttlMs": 2_000},
        "three": {"tools": tools("c")},
    }
    async with at_desk(lite, Listing(pages=pages)) as desk:
        found = await desk.catalog.tools(desk.caller, desk.target)
        assert [tool.name for tool in found.items] == ["b", "a", "d", "c"]
        assert found.fresh_until - found.fetched_at == 2


async def test_time_counts_from_the_question_not_from_the_answer(desk: Desk) -> None:
    (gate,) = desk.behind.hold()
    task = desk.start()
    await desk.behind.until_asked()
    desk.served.clock.advance(61)
    gate.set()
    await done(task)
    assert await desk.fetches() == 1


# --- forgetting ---


async def test_what_was_fetched_during_a_change_is_given_and_not_kept(desk: Desk) -> None:
    (gate,) = desk.behind.hold()
    task = desk.start()
    await desk.behind.until_asked()
    desk.behind.tools = tools("new")
    desk.catalog.forget(desk.target.server_id)
    gate.set()
    assert (await done(task)).names == {"echo"}
    assert desk.catalog.known(desk.target) is None
    assert await desk.names() == {"new"}
    assert await desk.fetches() == 0


async def test_forgetting_one_server_leaves_the_fetch_of_another(desk: Desk) -> None:
    (gate,) = desk.behind.hold()
    task = desk.start()
    await desk.behind.until_asked()
    desk.catalog.forget("another")
    gate.set()
    assert (await done(task)) is desk.catalog.known(desk.target)


async def test_a_change_outdates_the_fetches_of_every_revision(desk: Desk) -> None:
    newer = replace(desk.target, revision=desk.target.revision + 1)
    gates = desk.behind.hold(2)
    first = desk.start(newer)
    await desk.behind.until_asked()
    second = desk.start()
    await desk.behind.until_asked()
    desk.catalog.forget(desk.target.server_id)
    gates[1].set()
    await done(second)
    gates[0].set()
    await done(first)
    assert desk.catalog.known(newer) is None


async def test_a_list_of_another_revision_is_not_known(desk: Desk) -> None:
    await desk.names()
    assert desk.catalog.known(desk.target) is not None
    assert desk.catalog.known(replace(desk.target, revision=desk.target.revision + 1)) is None


@pytest.mark.requirement("servers.live-status")
async def test_the_list_behind_a_first_connection_is_kept(desk: Desk) -> None:
    hub = desk.served.app.hub
    desk.catalog = hub.catalog  # the one that hears of connections
    assert await desk.fetches() == 0, "the hub's look at the new server is the first connection"
    await hub.pool.forget(desk.target.server_id)
    hub.catalog.forget(desk.target.server_id)
    assert await desk.fetches() == 1
    assert hub.catalog.known(desk.target) is not None


async def test_a_server_that_reconnects_is_asked_again(desk: Desk) -> None:
    hub = desk.served.app.hub
    desk.catalog = hub.catalog
    await desk.names()
    await hub.pool.forget(desk.target.server_id)
    assert await desk.fetches() == 0, "it is not connected for the sake of a list that holds"
    await hub.exchange.connect(desk.target)
    assert await desk.fetches() == 1


async def test_lists_are_bounded_and_a_newer_one_of_the_same_server_takes_no_place(desk: Desk) -> None:
    hub = desk.served.app.hub
    few = Settings().model_copy(update={"cache_entries": 2})
    desk.catalog = Catalog(hub.exchange, few, hub.clock, desk.served.app.wiring)
    made = [await desk.served.register(f"more {number}", desk.target.url) for number in range(2)]
    targets = [desk.target, *[await hub.servers.visible(desk.caller, one["uuid"]) for one in made]]

    def known() -> list[bool]:
        return [desk.catalog.known(target) is not None for target in targets]

    for target in targets[:2]:
        await desk.catalog.tools(desk.caller, target)
    desk.served.clock.advance(61)
    await desk.catalog.tools(desk.caller, targets[1])
    assert known() == [True, True, False]
    await desk.catalog.tools(desk.caller, targets[2])
    assert sum(known()) == 2 and known()[2]
    for one in made:
        await desk.served.call("DELETE", f"/api/servers/{one['uuid']}")


# --- unknown tools ---


@pytest.mark.requirement("errors.tool-not-found-suggests")
async def test_a_list_that_lacks_a_tool_is_asked_for_again_every_five_seconds_at_most(desk: Desk) -> None:
    await desk.check("echo")
    assert desk.behind.lists == 1
    for _ in range(3):
        with pytest.raises(ToolNotFound, match="Did you mean 'echo'"):
            await desk.check("ecko")
    assert desk.behind.lists == 1
    desk.served.clock.advance(5.01)
    for _ in range(3):
        with pytest.raises(ToolNotFound):
            await desk.check("ecko")
    assert desk.behind.lists == 2
    desk.behind.tools = tools("echo", "ecko")
    with pytest.raises(ToolNotFound):
        await desk.check("ecko")
    desk.served.clock.advance(5.01)
    await desk.check("ecko")
    assert desk.behind.lists == 3


async def test_a_tool_of_a_list_that_no_longer_holds_is_known_without_asking(desk: Desk) -> None:
    await desk.check("echo")
    desk.served.clock.advance(3600)
    await desk.check("echo")
    assert desk.behind.lists == 1


@given(st.text(max_size=3000), st.lists(st.text(max_size=30), max_size=20))
def test_the_sentence_about_an_unknown_tool_is_short_whatever_was_asked(name: str, names: list[str]) -> None:
    sentence = unknown("Tool", name, names)
    assert sentence.startswith(f"Tool '{name[:200]}' not found.")
    assert len(sentence) < 300


# --- names ---


async def test_a_list_of_hundreds_of_small_pages_is_read_whole(lite: Served) -> None:
    cursors: list[str | None] = [None, *(f"p{number}" for number in range(299)), None]
    pages: dict[str | None, Json] = {
        cursor: {"tools": tools(f"t{number}")} | ({"nextCursor": after} if (after := cursors[number + 1]) else {})
        for number, cursor in enumerate(cursors[:-1])
    }
    async with at_desk(lite, Listing(pages=pages)) as desk:
        assert await desk.names() == {f"t{number}" for number in range(300)}


async def test_a_list_that_goes_in_a_ring_is_an_error_that_says_so(lite: Served) -> None:
    async with at_desk(lite, Listing()) as desk:
        desk.behind.pages = {cursor: {"tools": tools("t"), "nextCursor": "again"} for cursor in (None, "again")}
        with pytest.raises(UpstreamError, match="no end: 2 pages") as refused:
            await desk.names()
        assert refused.value.details["hint"].startswith("The server's pages lead nowhere")


@given(st.from_regex(r"[a-z0-9]{1,24}", fullmatch=True), st.sets(st.text(min_size=1, max_size=90), max_size=8))
def test_aggregate_names_fit_and_stay_apart(slug: str, names: set[str]) -> None:
    made = {aggregate_name(slug, name) for name in names}
    assert len(made) == len(names)
    assert all(len(name) <= MAX_NAME and name.startswith(f"{slug}__") for name in made)
    assert all(VALID.fullmatch(name) for name in made)
    assert all(aggregate_name(slug, name) == whole for name in names if VALID.fullmatch(whole := f"{slug}__{name}"))
    assert not any(stands_for_itself(whole) for name in names if (whole := aggregate_name(slug, name)) != f"{slug}__{name}")


async def test_cut_names_lead_back_to_their_tools(lite: Served) -> None:
    names = ["short", "x" * (MAX_NAME - len("listing__")), "x" * 200, "x" * 200 + "y", "é" * 64, "a.b/c d", "a.b/c_d", "ends_in_abcdef"]
    async with at_desk(lite, Listing(tools=tools(*names))) as desk:
        for name in names:
            whole = aggregate_name("listing", name)
            tail = whole.partition("__")[2]
            assert await desk.catalog.resolve(TOOLS, desk.caller, desk.target, tail, whole) == name
        with pytest.raises(ToolNotFound):
            await desk.catalog.resolve(TOOLS, desk.caller, desk.target, "a.b/c d", "listing__a.b/c d")


@pytest.mark.requirement("mcp.many-tools")
async def test_of_two_tools_of_one_name_the_second_is_named_as_left_out(lite: Served) -> None:
    taken = aggregate_name("listing", "a.b").removeprefix("listing__")
    async with at_desk(lite, Listing(tools=tools("a.b", taken))) as desk:
        listed, failures = await desk.catalog.aggregated(TOOLS, desk.caller, [desk.target])
        assert [json.loads(tool)["name"] for tool in listed] == [f"listing__{taken}"]
        assert [(failure.slug, failure.message) for failure in failures] == [
            ("listing", f"'{taken}' is left out: another has its name here")
        ]
        assert await desk.catalog.resolve(TOOLS, desk.caller, desk.target, taken, f"listing__{taken}") == "a.b"


# --- all servers ---


@pytest.mark.requirement("bad-input.down-is-an-error")
async def test_servers_that_fail_are_named_and_the_others_listed(desk: Desk) -> None:
    down = replace(desk.target, server_id="down", slug="down", url="http://127.0.0.1:1/")
    off = replace(desk.target, server_id="off", slug="off", enabled=False)
    listed, failures = await desk.catalog.aggregated(TOOLS, desk.caller, [down, desk.target, off])
    assert [json.loads(tool)["name"] for tool in listed] == ["listing__echo"]
    assert [(failure.slug, failure.server_id) for failure in failures] == [("down", "down")]
    assert "connect" in failures[0].message.lower()
    with pytest.raises(ServerDisabled):
        await desk.catalog.tools(desk.caller, off)
    assert await desk.catalog.aggregated(TOOLS, desk.caller, []) == ([], [])
    await desk.served.app.hub.pool.forget("down")


@pytest.mark.parametrize(
    ("error", "of_call", "kind", "executed"),
    [
        (b'{"code":-32602,"message":"m"}', True, InvalidArguments, "no"),
        (b'{"code":-32602,"message":"m"}', False, UpstreamError, "no"),
        (b'{"code":-32601,"message":"m"}', True, UpstreamError, "no"),
        (b'{"code":-32603,"message":"m"}', True, UpstreamError, "unknown"),
        (b'{"code":"x"}', True, UpstreamError, "unknown"),
        (b"[]", True, UpstreamError, "unknown"),
        (None, True, UpstreamError, "unknown"),
    ],
)
def test_an_error_of_a_server_passes_as_it_came(error: bytes | None, of_call: bool, kind: type[UpstreamError], executed: str) -> None:
    made = upstream_error(error, invalid="no" if of_call else None)
    assert (type(made), made.details["executed"]) == (kind, executed)
    assert bytes(made.details["rpc_error"]) == (error or b"{}")
    assert made.details["mcp_error"] == ("m" if error and b'"m"' in error else "unknown error")
