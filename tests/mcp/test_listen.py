"""Clients that listen, of either era, to servers of either era: what they hear, what they do not, and that nothing is left behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Message

from plughub.kit.errors import Unavailable
from plughub.mcp.listen import MAX_URIS
from tests.mcp.answers import error, one
from tests.mcp.test_sessions import VERSION, listening, session_of
from tests.serving import META, MODERN, FakeMcp, Json, RawCall, Served, events_of, upstream

pytestmark = pytest.mark.anyio

TOOLS, PROMPTS, RESOURCES = (f"notifications/{name}/list_changed" for name in ("tools", "prompts", "resources"))
UPDATED = "notifications/resources/updated"
ALL = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
}
ID = META + "subscriptionId"
BOTH = "application/json, text/event-stream"
EVERYTHING = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


def telling(era: str = "legacy", **given: Any) -> FakeMcp:
    answers = {name: {} for name in ("resources/subscribe", "resources/unsubscribe", "logging/setLevel")}
    more = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    answers["resources/list"] = {"resources": [{"uri": "r:a", "name": "a"}], **more}
    answers["resources/templates/list"] = {"resourceTemplates": [], **more}
    return FakeMcp(era=era, tells=True, **{"capabilities": ALL, "answers": answers, **given})


@pytest.fixture(params=["legacy", "modern"])
async def behind(request: pytest.FixtureRequest, lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    """A server of one era that says things of its own accord."""
    fake = telling(request.param)
    async with upstream(lite, fake) as made:
        yield fake, made


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0)


class Hearing:
    """A stream that is read: its messages but the first event of a session's stream."""

    def __init__(self, call: RawCall) -> None:
        self.call = call
        self.task = call.start()

    @property
    def messages(self) -> list[Json]:
        lines = [line for line in self.call.answer.body.decode().split("\n") if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    @property
    def told(self) -> list[str]:
        return [message["method"] for message in self.messages if "method" in message]

    async def heard(self, count: int) -> list[Json]:
        await self.call.answer.until(lambda: len(self.messages) >= count)
        return self.messages


@asynccontextmanager
async def listen(
    lite: Served, path: str, notifications: Json, *, id_: Any = 1700000000001, key: str | None = None
) -> AsyncIterator[Hearing]:
    """`subscriptions/listen`, acknowledged; the client leaves in the end."""
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": id_, "method": "subscriptions/listen", "params": {"notifications": notifications, "_meta": meta}}
    headers = {"accept": BOTH, "content-type": "application/json", "mcp-protocol-version": MODERN, "mcp-method": "subscriptions/listen"}
    call = RawCall(lite, "POST", path, headers, key).piece(json.dumps(body).encode())
    hearing = Hearing(call)
    await hearing.heard(1)
    try:
        yield hearing
    finally:
        call.leave()
        await asyncio.wait([hearing.task])


@asynccontextmanager
async def attending(lite: Served, path: str, *, key: str | None = None, level: str | None = None) -> AsyncIterator[tuple[Hearing, Json]]:
    """A session whose stream is read, and the headers of its requests; it is ended in the end."""
    session = await session_of(lite, path, key=key)
    headers = {**VERSION, "Mcp-Session-Id": session}
    if level is not None:
        await lite.rpc("logging/setLevel", {"level": level}, path=path, key=key, headers=headers)
    call = listening(lite, session, path)
    if key is not None:
        call.scope["headers"] = [pair for pair in call.scope["headers"] if pair[0] != b"authorization"]
        call.scope["headers"].append((b"authorization", f"Bearer {key}".encode()))
    hearing = Hearing(call)
    await call.answer.until(lambda: bool(call.answer.body))
    try:
        yield hearing, headers
    finally:
        await lite.call("DELETE", path, key=key, headers=headers)
        call.leave()
        await asyncio.wait([hearing.task])


def nothing_left(lite: Served, *fakes: FakeMcp) -> Callable[[], bool]:
    """Whether nobody listens, here or there."""
    hub = lite.app.hub
    return lambda: len(hub.listening) == hub.listening.servers == 0 and not any(fake.streams for fake in fakes) and not hub.pool._wanted


# ---- every pairing


@pytest.mark.requirement("mcp.listen")
@pytest.mark.parametrize("id_", [1700000000001, "a-1"])
async def test_a_new_client_hears_what_it_asked_for_under_its_id(lite: Served, behind: tuple[FakeMcp, Json], id_: Any) -> None:
    fake, made = behind
    wanted = {"toolsListChanged": True, "promptsListChanged": False, "resourceSubscriptions": ["r:a"]}
    async with listen(lite, one(made), wanted, id_=id_) as hearing:
        assert hearing.call.answer.headers["content-type"].startswith("text/event-stream")
        assert hearing.messages[0]["method"] == "notifications/subscriptions/acknowledged"
        assert hearing.messages[0]["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["r:a"]}
        for method, params in ((PROMPTS, {}), (TOOLS, {"x": [1]}), (UPDATED, {"uri": "r:b"}), (UPDATED, {"uri": "r:a", "y": 2})):
            fake.tell(method, **params)
        frames = (await hearing.heard(3))[1:]
        assert [frame["method"] for frame in frames] == [TOOLS, UPDATED]
        assert (frames[0]["params"]["x"], frames[1]["params"]["uri"], frames[1]["params"]["y"]) == ([1], "r:a", 2)
        for frame in hearing.messages:
            assert frame["params"]["_meta"][ID] == id_
        assert frames[0]["params"]["_meta"].get("own/key") == (1 if fake.era == "modern" else None)
    await until(nothing_left(lite, fake))
    assert [message["params"]["uri"] for message in fake.asked if message["method"] == "resources/unsubscribe"] == (
        ["r:a"] if fake.era == "legacy" else []
    )


@pytest.mark.requirement("mcp.subscribe")
async def test_an_older_client_hears_on_the_stream_of_its_session(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    fake, made = behind
    async with attending(lite, one(made)) as (hearing, headers):
        for uri in ("r:a", "r:gone"):
            answer = await lite.rpc("resources/subscribe", {"uri": uri}, path=one(made), headers=headers)
            assert answer.json()["result"] == {}
        await lite.rpc("resources/unsubscribe", {"uri": "r:gone"}, path=one(made), headers=headers)
        await lite.app.hub.pool.settled([made["uuid"]])
        await until(lambda: len(fake.streams) == 1)
        for method, params in ((TOOLS, {}), (UPDATED, {"uri": "r:gone"}), (UPDATED, {"uri": "r:a/part", "z": 1})):
            fake.tell(method, **params)
        frames = await hearing.heard(2)
        assert [frame["method"] for frame in frames] == [TOOLS, UPDATED]
        assert frames[1]["params"]["uri"] == "r:a/part"
        assert ID not in frames[1]["params"].get("_meta", {}), "that is the hub's own subscription"
    await until(nothing_left(lite, fake))


async def test_a_subscription_is_one_of_many_until_the_last_has_gone(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    fake, made = behind
    wanted = {"resourceSubscriptions": ["r:a"]}
    async with listen(lite, one(made), wanted) as first, attending(lite, one(made)) as (_, headers):
        await lite.rpc("resources/subscribe", {"uri": "r:a"}, path=one(made), headers=headers)
        async with listen(lite, one(made), wanted) as second:
            await until(lambda: len(fake.streams) == 1)
            fake.tell(UPDATED, uri="r:a")
            await first.heard(2)
            await second.heard(2)
        await lite.rpc("resources/unsubscribe", {"uri": "r:a"}, path=one(made), headers=headers)
        await lite.app.hub.pool.settled([made["uuid"]])
        await until(lambda: len(fake.streams) == 1)
        assert [message["method"] for message in fake.asked].count("resources/unsubscribe") == 0
        fake.tell(UPDATED, uri="r:a")
        await first.heard(3)
    subscribed = [message["method"] for message in fake.asked].count("resources/subscribe")
    assert subscribed == (1 if fake.era == "legacy" else 0)
    await until(nothing_left(lite, fake))


# ---- all servers at one door


@pytest.mark.requirement("mcp.listen", "mcp.subscribe")
async def test_at_the_door_of_all_servers_resources_have_their_names_of_there(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    fake, made = behind
    await lite.rpc("tools/list", path=one(made))
    whole = f"plughub.{made['slug']}+r:a"
    async with listen(lite, "/mcp", {**EVERYTHING, "resourceSubscriptions": [whole, "plughub.nobody+x"]}) as new:
        assert new.messages[0]["params"]["notifications"] == {**EVERYTHING, "resourceSubscriptions": [whole]}
        async with attending(lite, "/mcp") as (old, headers):
            answer = await lite.rpc("resources/subscribe", {"uri": whole}, headers=headers)
            assert answer.json()["result"] == {}
            await lite.app.hub.pool.settled([made["uuid"]])
            await until(lambda: len(fake.streams) == 1)
            fake.tell(TOOLS)
            fake.tell(UPDATED, uri="r:a")
            for hearing, first in ((new, 1), (old, 0)):
                frames = (await hearing.heard(first + 2))[first:]
                assert [frame["method"] for frame in frames] == [TOOLS, UPDATED]
                assert frames[1]["params"]["uri"] == whole
            # As it stands in a tool's result, it is told so.
            await lite.rpc("resources/subscribe", {"uri": "r:a"}, headers=headers)
            fake.tell(UPDATED, uri="r:a")
            assert (await old.heard(3))[2]["params"]["uri"] == "r:a"
            unknown = await lite.rpc("resources/subscribe", {"uri": "plughub.nobody+x"}, headers=headers)
            assert error(unknown)["code"] == -32002
    await until(nothing_left(lite, fake))


async def test_servers_that_come_and_go_change_the_lists_of_all(lite: Served) -> None:
    fake = telling()
    async with listen(lite, "/mcp", {"toolsListChanged": True}) as hearing:
        async with upstream(lite, fake, "Comes"):
            await hearing.heard(2)
            await until(lambda: len(fake.streams) == 1)
            fake.tell(TOOLS)
            await hearing.heard(3)
        await hearing.heard(4)
        assert hearing.told[1:] == [TOOLS] * 3
    await until(nothing_left(lite, fake))


async def test_what_is_announced_is_true(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    found = (await lite.rpc("server/discover", modern=True)).json()["result"]["capabilities"]
    assert found["resources"] == {"subscribe": True, "listChanged": True}
    assert found["tools"] == found["prompts"] == {"listChanged": True}


# ---- who hears nothing


@pytest.mark.requirement("mcp.listen-granted")
async def test_only_callers_who_may_use_the_server_hear_of_it(lite: Served) -> None:
    mine, other = telling(), telling()
    async with upstream(lite, mine, "Mine") as made, upstream(lite, other, "Other") as hidden:
        key = await lite.key_of(await lite.operator(), scopes=["execute:tools"], servers=[made["uuid"]])
        stranger = await lite.key_of(await lite.organization("elsewhere"))
        for each in (made, hidden):
            await lite.rpc("tools/list", path=one(each))
        async with (
            listen(lite, "/mcp", {"toolsListChanged": True}, key=key) as some,
            listen(lite, "/mcp", {"toolsListChanged": True}, key=stranger) as none,
            listen(lite, "/mcp", {"toolsListChanged": True}) as everything,
        ):
            await until(lambda: len(mine.streams) == len(other.streams) == 1)
            other.tell(TOOLS, of="other")
            mine.tell(TOOLS, of="mine")
            await everything.heard(3)
            assert [message["params"].get("of") for message in (await some.heard(2))[1:]] == ["mine"]
            assert none.told == ["notifications/subscriptions/acknowledged"]
        for refused in (
            await lite.rpc("subscriptions/listen", {"notifications": EVERYTHING}, path=one(hidden), key=key, modern=True),
            await lite.rpc("subscriptions/listen", {"notifications": EVERYTHING}, path=one(made), key=stranger, modern=True),
        ):
            assert refused.status_code in (403, 404)
        async with attending(lite, "/mcp", key=key) as (_, headers):
            uri = f"plughub.{hidden['slug']}+r:a"
            answer = await lite.rpc("resources/subscribe", {"uri": uri}, key=key, headers=headers)
            assert error(answer)["code"] == -32002
    await until(nothing_left(lite, mine, other))


@pytest.mark.requirement("mcp.listen-granted")
async def test_a_key_with_other_rights_listens_anew(lite: Served) -> None:
    mine, other = telling(), telling()
    async with upstream(lite, mine, "Mine") as made, upstream(lite, other, "Other") as taken:
        body = {"name": "k", "scopes": ["execute:tools"], "servers": [made["uuid"], taken["uuid"]]}
        key = (await lite.call("POST", "/api/auth/keys", body)).json()
        for each in (made, taken):
            await lite.rpc("tools/list", path=one(each))
        async with (
            listen(lite, "/mcp", {"toolsListChanged": True}, key=key["key"]) as new,
            attending(lite, "/mcp", key=key["key"]) as (old, headers),
        ):
            await lite.rpc("resources/subscribe", {"uri": f"plughub.{taken['slug']}+r:a"}, key=key["key"], headers=headers)
            changed = await lite.call("PATCH", f"/api/auth/keys/{key['id']}", {"servers": [made["uuid"]]})
            assert changed.status_code == 200, changed.text
            with anyio.fail_after(5):
                await new.task
                await old.task
            assert new.messages[-1]["result"]["resultType"] == "complete"
            again = Hearing(listening_as(lite, key["key"], headers))
            await again.call.answer.until(lambda: bool(again.call.answer.body))
            await until(lambda: len(mine.streams) == 1 and not other.streams)
            mine.tell(TOOLS)
            await again.heard(1)
            again.call.leave()
            await again.task
    await until(nothing_left(lite, mine, other))


def listening_as(lite: Served, key: str, headers: Json) -> RawCall:
    given = {"accept": "text/event-stream", **{name.lower(): value for name, value in headers.items()}}
    return RawCall(lite, "GET", "/mcp", given, key).piece(b"")


async def test_servers_that_announce_nothing_are_asked_nothing(lite: Served) -> None:
    for era in ("legacy", "modern"):
        fake = telling(era, capabilities={"tools": {}, "resources": {}})
        async with upstream(lite, fake) as made:
            async with listen(lite, one(made), {**EVERYTHING, "resourceSubscriptions": ["r:a"]}) as hearing:
                assert hearing.messages[0]["params"]["notifications"] == {}
                async with attending(lite, one(made)) as (_, headers):
                    answer = await lite.rpc("resources/subscribe", {"uri": "r:a"}, path=one(made), headers=headers)
                    assert error(answer)["code"] == -32601
            assert not fake.streams
            assert not {message["method"] for message in fake.asked} & {"resources/subscribe", "subscriptions/listen"}


# ---- how it ends


@pytest.mark.requirement("mcp.listen", "keys.open-streams-close-on-revocation")
@pytest.mark.parametrize("how", ["key", "server", "stop"])
async def test_whatever_ends_it_ends_it_in_good_order(lite: Served, how: str) -> None:
    fake = telling()
    async with upstream(lite, fake) as made:
        key = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
        async with listen(lite, one(made), EVERYTHING, id_=7, key=key["key"]) as hearing:
            if how == "key":
                await lite.call("DELETE", f"/api/auth/keys/{key['id']}")
            elif how == "server":
                await lite.call("DELETE", f"/api/servers/{made['uuid']}")
            else:
                lite.app.hub.streams.stop_all(Unavailable("the hub is shutting down"), resting_only=True)
            with anyio.fail_after(5):
                await hearing.task
            assert hearing.messages[-1] == {"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete", "_meta": {ID: 7}}}
            assert hearing.call.answer.complete
    await until(nothing_left(lite, fake))


async def test_a_client_that_reads_too_slowly_is_told_to_listen_again(lite: Served) -> None:
    fake = telling()
    async with upstream(lite, fake) as made, listen(lite, one(made), EVERYTHING) as hearing:
        reads, send = asyncio.Event(), hearing.call.sends

        async def slowly(message: Message) -> None:
            await reads.wait()
            await send(message)

        hearing.call.sends = slowly
        hub = lite.app.hub
        for number in range(300):
            fake.tell(TOOLS, at=number)
        await until(lambda: len(hub.listening) == 0)
        reads.set()
        with anyio.fail_after(10):
            await hearing.task
        assert hearing.messages[-1]["result"]["resultType"] == "complete"
        assert 200 < len(hearing.messages) < 300
    await until(nothing_left(lite, fake))


async def test_a_stream_that_rests_takes_no_place_of_a_call(lite: Served) -> None:
    organization = await lite.organization("small", "free")
    key = await lite.key_of(organization)
    async with listen(lite, "/mcp", EVERYTHING, key=key), attending(lite, "/mcp", key=key):
        for _ in range(2):
            assert (await lite.rpc("tools/list", key=key)).status_code == 200


async def test_a_server_that_comes_back_may_have_other_lists(lite: Served) -> None:
    fake = telling()
    async with upstream(lite, fake) as made, listen(lite, one(made), {"toolsListChanged": True}) as hearing:
        live = lite.app.hub.pool._supervisors[made["uuid"]].live
        assert live is not None
        live.end("its cable was pulled")  # type: ignore[union-attr]
        assert (await hearing.heard(2))[1]["method"] == TOOLS
        await until(lambda: len(fake.streams) == 1)
        fake.tell(TOOLS)
        await hearing.heard(3)
    await until(nothing_left(lite, fake))


# ---- messages


@pytest.mark.requirement("mcp.log-levels")
async def test_messages_outside_a_request_reach_sessions_that_set_a_level(lite: Served) -> None:
    fake = telling()
    async with upstream(lite, fake) as made:
        path = one(made)
        async with attending(lite, path, level="warning") as (loud, _), attending(lite, path) as (quiet, _):
            await until(lambda: len(fake.streams) == 1)
            for level in ("info", "warning", "emergency", "odd", 5):
                fake.tell("notifications/message", level=level, data="d")
            fake.tell(TOOLS)
            fake.tell("notifications/x-own/thing", a=1)
            await quiet.heard(2)
            levels = [message["params"].get("level") for message in await loud.heard(4)]
            assert levels == ["warning", "emergency", None, None]
            assert quiet.told == [TOOLS, "notifications/x-own/thing"]
        fake.tell("notifications/message", level="error")
    await until(nothing_left(lite, fake))


@pytest.mark.requirement("mcp.log-levels")
async def test_the_level_of_a_session_reaches_a_new_server_and_that_of_a_request_an_old_one(lite: Served) -> None:
    newer, older = telling("modern"), telling()
    async with upstream(lite, newer, "New") as new, upstream(lite, older, "Old") as old:
        session = await session_of(lite, one(new))
        headers = {**VERSION, "Mcp-Session-Id": session}
        await lite.rpc("logging/setLevel", {"level": "debug"}, path=one(new), headers=headers)
        assert (await lite.rpc("tools/call", {"name": "echo"}, path=one(new), headers=headers)).status_code == 200
        params = {"name": "echo", "_meta": {META + "logLevel": "error"}}
        assert (await lite.rpc("tools/call", params, path=one(old), modern=True)).status_code == 200
    assert newer.calls[-1].json["params"]["_meta"][META + "logLevel"] == "debug"
    assert [message["params"] for message in older.asked if message["method"] == "logging/setLevel"] == [{"level": "error"}]


# ---- what is wrong


@pytest.mark.parametrize(
    "notifications", [None, [], {"toolsListChanged": "yes"}, {"resourceSubscriptions": [1]}, {"resourceSubscriptions": [""]}]
)
async def test_a_filter_that_cannot_be_read_is_refused(lite: Served, notifications: Any) -> None:
    answer = await lite.rpc("subscriptions/listen", {"notifications": notifications}, modern=True, id_="x")
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (400, -32602, "x")


async def test_what_one_client_watches_is_bounded(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    fake, made = behind
    many = [f"r:{number}" for number in range(MAX_URIS + 1)]
    answer = await lite.rpc("subscriptions/listen", {"notifications": {"resourceSubscriptions": many}}, path=one(made), modern=True)
    assert error(answer)["code"] == -32602
    async with attending(lite, one(made)) as (_, headers):
        for uri in many[:-1]:
            await lite.rpc("resources/subscribe", {"uri": uri}, path=one(made), headers=headers)
        for uri, refused in ((many[-1], True), (many[0], False)):
            answer = await lite.rpc("resources/subscribe", {"uri": uri}, path=one(made), headers=headers)
            assert ("error" in answer.json()) is refused
    await until(nothing_left(lite, fake))


async def test_a_refusal_of_the_server_is_the_clients(lite: Served) -> None:
    fake = telling(answers={"resources/subscribe": {"code": -32002, "message": "no such thing", "data": {"uri": "r:x"}}})
    async with upstream(lite, fake) as made, attending(lite, one(made)) as (_, headers):
        answer = await lite.rpc("resources/subscribe", {"uri": "r:x"}, path=one(made), headers=headers)
        assert error(answer)["message"] == "no such thing"
        for wrong in ({}, {"uri": 5}, {"uri": ""}):
            answer = await lite.rpc("resources/subscribe", wrong, path=one(made), headers=headers)
            assert error(answer)["code"] == -32602
        alone = await lite.rpc("resources/subscribe", {"uri": "r:a"}, path=one(made))
        assert error(alone)["code"] == -32602
    await until(nothing_left(lite, fake))


@pytest.mark.parametrize(
    ("method", "modern"), [("subscriptions/listen", False), ("resources/subscribe", True), ("resources/unsubscribe", True)]
)
async def test_each_way_belongs_to_its_era(lite: Served, method: str, modern: bool) -> None:
    answer = await lite.rpc(method, {"notifications": {}, "uri": "r:a"}, modern=modern)
    assert error(answer)["code"] == -32601


async def test_who_can_read_no_stream_is_told_so(lite: Served) -> None:
    answer = await lite.rpc("subscriptions/listen", {"notifications": {}}, modern=True, headers={"Accept": "application/json"})
    assert (answer.status_code, error(answer)["code"]) == (400, -32600)


async def test_events_are_frames_of_one_line(lite: Served, behind: tuple[FakeMcp, Json]) -> None:
    fake, made = behind
    async with listen(lite, one(made), EVERYTHING) as hearing:
        fake.tell(TOOLS)
        await hearing.heard(2)
        assert [event for event, _ in events_of(hearing.call.answer.body)] == ["message", "message"]
