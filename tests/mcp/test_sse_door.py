"""The older transport, HTTP+SSE, for clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from sqlalchemy import text

from plughub.mcp.sse_door import MAX_UNDER_WAY
from plughub.protocol import versions
from tests.mcp.answers import error
from tests.serving import MODERN, FakeMcp, Json, RawCall, Served, text_result, upstream

pytestmark = pytest.mark.anyio
STREAM = {"accept": "text/event-stream"}


class Client:
    """One client of the older transport. `heard`: the messages of its stream so far."""

    def __init__(self, served: Served, path: str, key: str | None) -> None:
        self.served = served
        self.key = key
        self.call = RawCall(served, "GET", path, STREAM, key).piece(b"")
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self.running = self.call.start()
        await self.call.answer.until(lambda: b"\n\n" in self.call.answer.body)
        kind, address = self.call.answer.body.decode().split("\n\n")[0].split("\n")
        assert (self.call.answer.status, kind) == (200, "event: endpoint")
        self.endpoint = address.removeprefix("data: ")
        return self

    async def __aexit__(self, *failed: object) -> None:
        self.call.leave()
        await self.running

    @property
    def heard(self) -> list[Json]:
        blocks = self.call.answer.body.decode().split("\n\n")
        return [json.loads(block.split("data: ", 1)[1]) for block in blocks if block.startswith("event: message")]

    async def post(self, message: object, key: str | None = None) -> httpx2.Response:
        return await self.served.call("POST", self.endpoint, message, key=self.key if key is None else key)

    async def until(self, found: Callable[[Json], bool]) -> Json:
        await self.call.answer.until(lambda: any(found(message) for message in self.heard))
        return next(message for message in self.heard if found(message))

    async def ask(self, method: str, id_: object = 1, **params: object) -> Json:
        taken = await self.post({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        assert (taken.status_code, taken.content) == (202, b"")
        return await self.until(lambda message: message.get("id") == id_ and "method" not in message)

    async def hello(self, version: str = "2024-11-05", **capabilities: object) -> Json:
        answer = await self.ask("initialize", "hello", protocolVersion=version, capabilities=capabilities, clientInfo={"name": "c"})
        assert (await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
        found: Json = answer["result"]
        return found


@pytest.fixture
async def client(lite: Served) -> AsyncIterator[Client]:
    async with Client(lite, "/sse", None) as found:
        yield found


@asynccontextmanager
async def at_one(lite: Served, behind: FakeMcp, key: str | None = None) -> AsyncIterator[Client]:
    """A client of one server."""
    async with upstream(lite, behind) as made, Client(lite, f"/servers/{made['uuid']}/sse", key) as found:
        yield found


@pytest.mark.requirement("mcp.legacy-sse-door")
@pytest.mark.parametrize("version", versions.LEGACY)
async def test_a_client_shakes_hands_lists_and_calls(client: Client, version: str) -> None:
    assert client.endpoint.startswith("/sse/messages?session_id=")
    assert (await client.hello(version))["protocolVersion"] == version
    listed = await client.ask("tools/list", 2)
    assert "weather-server__echo" in [tool["name"] for tool in listed["result"]["tools"]]
    called = await client.ask("tools/call", "c", name="weather-server__echo", arguments={"text": "é\n\r"})
    assert called["result"]["content"][0]["text"] == "é\n\r"
    assert (await client.ask("ping", 4))["result"] == {}
    assert b"\nid:" not in client.call.answer.body, "nothing is taken up again"


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_one_server_has_a_stream_of_its_own(lite: Served) -> None:
    behind = FakeMcp(results={"echo": text_result("own")}, progress={"echo": 2})
    async with at_one(lite, behind) as client:
        assert (await client.hello())["serverInfo"] == behind.info
        called = await client.ask("tools/call", 2, name="echo", _meta={"progressToken": 7})
        assert called["result"]["content"][0]["text"] == "own"
        told = [message["params"] for message in client.heard if message.get("method") == "notifications/progress"]
        assert [(each["progressToken"], each["progress"]) for each in told] == [(7, 1), (7, 2)]
        assert client.heard[-1]["id"] == 2


@pytest.mark.requirement("mcp.legacy-sse-door", "mcp.unknown-method")
async def test_errors_of_a_message_come_on_the_stream(client: Client) -> None:
    await client.hello()
    assert (await client.ask("nope", 2))["error"]["code"] == -32601
    assert (await client.ask("server/discover", 3))["error"]["code"] == -32601
    assert (await client.ask("tools/call", 4, name="nobody__tool"))["error"]["code"] == -32602
    modern = await client.served.call(
        "POST", client.endpoint, {"jsonrpc": "2.0", "id": 5, "method": "ping"}, headers={"MCP-Protocol-Version": MODERN}
    )
    assert modern.status_code == 202
    for sent in (b"{", b"[]", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b"{}"):
        answer = await client.served.call("POST", client.endpoint, sent)
        assert (answer.status_code, answer.json()["id"]) == (400, None)


@pytest.mark.requirement("mcp.legacy-sse-door", "limits.stream-cap", "limits.refusal", "limits.not-counted")
async def test_a_stream_takes_a_place_among_the_streams_and_its_messages_are_counted(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Streams", "free"))
    clients = [Client(lite, "/sse", key) for _ in range(20)]
    async with anyio.create_task_group() as group:
        for each in clients:
            group.start_soon(each.__aenter__)
    refused = await lite.call("GET", "/sse", key=key, headers=STREAM)
    assert (refused.status_code, error(refused)["data"]["policy"]) == (429, "streams")
    assert refused.headers["x-ratelimit-remaining"] == "100"
    answers = [await clients[0].ask("tools/list", number) for number in range(11)]
    assert ["error" in answer for answer in answers] == [False] * 10 + [True]
    assert answers[-1]["error"]["data"]["policy"] == "burst"
    assert "result" in await clients[0].ask("ping", "p")
    assert (await lite.call("GET", "/api/rate-limit", key=key)).json()["concurrency"]["remaining"] == 2
    for each in clients:
        await each.__aexit__()
    async with Client(lite, "/sse", key):
        pass


@pytest.mark.requirement("mcp.legacy-sse-door", "mcp.sessions")
async def test_the_address_is_good_for_its_own_key_alone_and_while_the_stream_lasts(lite: Served) -> None:
    other = await lite.key_of(await lite.operator())
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with Client(lite, "/sse", None) as client, Client(lite, "/sse", None) as second:
        assert client.endpoint != second.endpoint
        answers = [await client.post(message, other), await lite.call("POST", "/sse/messages?session_id=made-up", message)]
        answers += [await lite.call("POST", path, message) for path in ("/sse/messages", "/sse/messages?session_id=")]
        assert (await client.post(message, "")).status_code == 401
        endpoint = client.endpoint
        assert not client.heard
    answers.append(await lite.call("POST", endpoint, message))
    for answer in answers:
        assert (answer.status_code, error(answer)["code"], error(answer)["message"]) == (404, -32001, error(answers[0])["message"])


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_the_end_of_the_stream_ends_the_session_and_what_is_under_way(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    before = len(lite.app.sessions)
    async with upstream(lite, behind) as made:
        async with Client(lite, f"/servers/{made['uuid']}/sse", None) as client:
            await client.hello()
            assert len(lite.app.sessions) == before + 1
            body = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo"}}).encode()
            call = RawCall(lite, "POST", "/sse/messages", {"content-type": "application/json"}).piece(body)
            call.scope["query_string"] = client.endpoint.partition("?")[2].encode()
            running = call.start()
            with anyio.fail_after(5):
                while not behind.calls:
                    await checkpoint()
            assert call.answer.status == 202 and not running.done()
        with anyio.fail_after(5):
            await running
        assert len(lite.app.sessions) == before


@pytest.mark.requirement("mcp.legacy-sse-door", "keys.open-streams-close-on-revocation")
async def test_a_revoked_key_ends_the_stream(lite: Served) -> None:
    made = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
    async with Client(lite, "/sse", made["key"]) as client:
        await client.hello()
        await lite.call("DELETE", f"/api/auth/keys/{made['id']}")
        with anyio.fail_after(5):
            await client.running
        assert client.call.answer.complete
        assert (await client.post({"jsonrpc": "2.0", "id": 1, "method": "ping"})).status_code == 410


@pytest.mark.requirement("mcp.legacy-sse-door", "mcp.cancel")
async def test_a_client_cancels_its_call(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with at_one(lite, behind) as client:
        await client.hello()
        asking = asyncio.create_task(client.ask("tools/call", "c", name="echo"))
        with anyio.fail_after(5):
            while not behind.calls:
                await checkpoint()
            await client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}})
            assert (await client.until(lambda message: message.get("id") == "c"))["error"]["code"] == -32800
        asking.cancel()


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_messages_under_way_are_bounded(lite: Served) -> None:
    behind = FakeMcp(held={"echo": asyncio.Event()})
    async with at_one(lite, behind) as client:
        await client.hello()
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
        asking = [asyncio.create_task(client.post({**message, "id": number})) for number in range(MAX_UNDER_WAY)]
        with anyio.fail_after(10):
            while len(behind.calls) < MAX_UNDER_WAY:
                await checkpoint()
            refused = await client.post({**message, "id": "more"})
            assert (refused.status_code, error(refused)["data"]["code"]) == (503, "UNAVAILABLE")
            behind.held["echo"].set()
            await asyncio.gather(*asking)
        assert {each["id"] for each in client.heard if "result" in each} == {*range(MAX_UNDER_WAY), "hello"}


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_shaking_hands_anew_begins_a_new_session_on_the_same_stream(client: Client) -> None:
    before = len(client.served.app.sessions)
    for version in ("2024-11-05", "2025-11-25"):
        assert (await client.ask("initialize", version, protocolVersion=version))["result"]["protocolVersion"] == version
    assert len(client.served.app.sessions) == before + 1
    assert "result" in await client.ask("tools/list", 2)


@pytest.mark.requirement("mcp.legacy-sse-door", "mcp.sessions-bounded")
async def test_a_session_that_makes_room_for_others_ends_its_stream(lite: Served) -> None:
    key = await lite.key_of(await lite.operator())
    async with Client(lite, "/sse", key) as client:
        await client.hello()
        for _ in range(lite.app.hub.settings.max_sessions_per_key):
            await lite.rpc("initialize", {"protocolVersion": "2025-11-25"}, key=key)
        with anyio.fail_after(5):
            await client.running


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_a_large_answer_arrives_whole(lite: Served) -> None:
    behind = FakeMcp(results={"echo": text_result("x" * 3_000_000)})
    async with at_one(lite, behind) as client:
        await client.hello()
        called = await client.ask("tools/call", 2, name="echo")
        assert len(called["result"]["content"][0]["text"]) == 3_000_000


@pytest.mark.requirement("mcp.legacy-sse-door", "mcp.challenge")
async def test_the_stream_is_for_who_may_call_and_can_read_one(lite: Served) -> None:
    assert (await lite.call("GET", "/sse")).status_code == 400
    assert (await lite.call("HEAD", "/sse", headers=STREAM)).status_code == 405
    assert (await lite.call("GET", f"/servers/{'0' * 36}/sse", headers=STREAM)).status_code == 404
    for path, resource in (("/sse", "/sse"), (f"/servers/{lite.demo_id}/sse",) * 2):
        challenge = (await lite.call("GET", path, key="", headers=STREAM)).headers["www-authenticate"]
        metadata = challenge.split('resource_metadata="')[1].split('"')[0]
        assert (await lite.client.get(metadata)).json()["resource"] == f"http://localhost{resource}"
    told = await lite.call("POST", "/sse/messages?session_id=x", {}, key="")
    assert 'oauth-protected-resource/sse"' in told.headers["www-authenticate"]


@pytest.mark.requirement("mcp.legacy-sse-door", "logs.no-secrets")
async def test_the_address_reaches_no_log(lite: Served, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(lite, "/sse", None) as client:
        await client.hello()
        await client.post(b"{")
        id_ = client.endpoint.partition("=")[2]
        await lite.call("POST", client.endpoint, {}, key="bad")
        await lite.call("PUT", client.endpoint, {})
    await lite.app.hub.writer.flush()
    async with lite.database.read() as connection:
        rows = (await connection.execute(text("SELECT * FROM event WHERE door = 'mcp'"))).all()
    assert any("/sse/messages" in str(row) for row in rows)
    assert not any(id_ in str(row) for row in rows)
    printed = capsys.readouterr()
    assert id_ not in printed.out + printed.err


@pytest.mark.requirement("mcp.subscribe")
async def test_what_the_server_says_of_its_own_accord_comes_on_the_same_stream(lite: Served) -> None:
    capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
    behind = FakeMcp(tells=True, capabilities=capabilities, answers={"resources/subscribe": {}})
    async with at_one(lite, behind) as client:
        await client.hello()
        assert (await client.ask("resources/subscribe", 2, uri="r:a"))["result"] == {}
        behind.tell("notifications/tools/list_changed")
        behind.tell("notifications/resources/updated", uri="r:a")
        await client.call.answer.until(lambda: b"resources/updated" in client.call.answer.body)
        assert [message["method"].split("/")[1] for message in client.heard if "method" in message] == ["tools", "resources"]
        assert (await client.ask("subscriptions/listen", 3, notifications={}))["error"]["code"] == -32601
