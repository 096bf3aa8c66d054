"""Two hubs on one database: what one takes away, the other gives no more, and its streams end."""

import asyncio
import json
from collections.abc import AsyncIterator

import anyio
import pytest

from tests.api.test_events import Listener, call_tool, change
from tests.api.test_key_life import REVOKED, statuses
from tests.serving import META, MODERN, FakeMcp, Json, RawCall, Served, serving, upstream

pytestmark = pytest.mark.anyio
BOTH = "application/json, text/event-stream"
STREAM = "text/event-stream"


@pytest.fixture(scope="module")
async def hubs(postgres_url: str, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[tuple[Served, Served]]:
    """Both speak with the operator's key."""
    async with (
        serving(postgres_url, tmp_path_factory.mktemp("one")) as one,
        serving(postgres_url, tmp_path_factory.mktemp("other"), secrets=one.secrets, clock=one.clock) as other,
    ):
        other.key = one.key
        yield one, other


def rpc(method: str, params: Json) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


async def streams(hub: Served, server: str, key: str) -> dict[str, RawCall]:
    """A stream at each door that has some."""
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    session = (await hub.rpc("initialize", client, key=key)).headers["mcp-session-id"]
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, "progressToken": 1}
    modern = {"accept": BOTH, "mcp-protocol-version": MODERN}
    posts = {
        "execute": (f"/api/servers/{server}/tools/slow/execute", {"accept": STREAM}, b'{"parameters":{}}'),
        "invoke": ("/v1/mcp/invoke", {"accept": STREAM}, json.dumps({"mcp_id": server, "tool": "slow", "arguments": {}}).encode()),
        "call": (
            f"/servers/{server}/mcp",
            {**modern, "mcp-method": "tools/call", "mcp-name": "slow"},
            rpc("tools/call", {"name": "slow", "arguments": {}, "_meta": meta}),
        ),
        "listen": (
            "/mcp",
            {**modern, "mcp-method": "subscriptions/listen"},
            rpc("subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": meta}),
        ),
    }
    gets = {
        "logs": (f"/api/servers/{server}/logs", {"accept": STREAM}),
        "session": ("/mcp", {"accept": STREAM, "mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}),
        "sse": ("/sse", {"accept": STREAM}),
    }
    found = {name: RawCall(hub, "GET", path, headers, key).piece(b"") for name, (path, headers) in gets.items()}
    for name, (path, headers, body) in posts.items():
        found[name] = RawCall(hub, "POST", path, {**headers, "content-type": "application/json"}, key).piece(body)
    return found


@pytest.mark.requirement("keys.open-streams-close-on-revocation", "keys.revoked-everywhere")
@pytest.mark.parametrize("how", ["revoke", "rotate", "leak"])
async def test_a_key_that_ends_here_ends_there_with_its_streams_at_every_door(hubs: tuple[Served, Served], how: str) -> None:
    here, there = hubs
    fake = FakeMcp(tools=[{"name": "slow", "inputSchema": {"type": "object"}}], progress={"slow": 1}, held={"slow": asyncio.Event()})
    async with upstream(there, fake) as made:
        key = (await here.call("POST", "/api/auth/keys", {"name": "k"})).json()
        other = (await here.call("POST", "/api/auth/keys", {"name": "other"})).json()["key"]
        assert await statuses(there, key["key"]) == [200] * 4
        calls = await streams(there, made["uuid"], key["key"])
        bystander = RawCall(there, "GET", f"/api/servers/{made['uuid']}/logs", {"accept": STREAM}, other).piece(b"")
        running = {name: call.start() for name, call in {**calls, "bystander": bystander}.items()}
        for name, call in {**calls, "bystander": bystander}.items():
            await call.answer.until(lambda call=call: bool(call.answer.messages))
            assert call.answer.status == 200, (name, call.answer.body)
        path = f"/api/auth/keys/{key['id']}"
        if how == "revoke":
            answer = await here.call("DELETE", path)
        elif how == "rotate":
            answer = await here.call("POST", path + "/rotate", {"overlap_seconds": 0})
        else:
            answer = await here.call("POST", "/api/auth/keys/leaked", {"token": key["key"]}, key="")
        assert answer.status_code == 200, answer.text
        # From here on: the other hub has followed before this one answered.
        assert await statuses(there, key["key"]) == REVOKED
        with anyio.fail_after(5):
            for name in calls:
                await running[name]
        assert all(call.answer.complete for call in calls.values())
        assert not running["bystander"].done()
        bystander.leave()
        await running["bystander"]
        fake.held["slow"].set()


@pytest.mark.requirement("keys.last-use")
async def test_both_hubs_write_when_a_key_was_used(hubs: tuple[Served, Served]) -> None:
    here, there = hubs
    made = (await here.call("POST", "/api/auth/keys", {"name": "k"})).json()
    await here.call("GET", "/api/servers", key=made["key"])
    here.clock.advance(1)
    await there.call("GET", "/api/servers", key=made["key"])
    await asyncio.gather(here.app.hub.uses.flush(), there.app.hub.uses.flush())
    await here.app.hub.uses.flush()
    shown = (await here.call("GET", f"/api/auth/keys/{made['id']}")).json()
    [seen] = shown["addresses"]
    assert shown["last_used_at"] == seen["last_seen_at"] > seen["first_seen_at"]


@pytest.mark.requirement("events.stream")
async def test_what_one_hub_writes_is_heard_at_the_other_and_its_ids_are_good_at_both(hubs: tuple[Served, Served]) -> None:
    one, other = hubs
    listener = await Listener(other, "mirror=0&type=server.created,tool.executed").opened()
    server = await change(one, "elsewhere")
    await call_tool(one)
    heard = await listener.until(2)
    assert [event for _, event, _ in heard] == ["server.created", "tool.executed"]
    assert heard[0][2] is not None and heard[0][2]["data"]["server_uuid"] == server
    await listener.leave()
    back = await Listener(one, "mirror=0&type=server.created,tool.executed", last_id=str(heard[0][0])).opened()
    assert [id_ for id_, _, _ in await back.until(1)] == [heard[1][0]]
    await back.leave()


@pytest.mark.requirement("events.tickets")
async def test_a_ticket_of_one_hub_opens_one_stream_at_any(hubs: tuple[Served, Served]) -> None:
    one, other = hubs
    query = f"token={(await one.call('POST', '/api/events/tickets')).json()['ticket']}"
    listener = await Listener(other, query, key="").opened()
    assert listener.call.answer.status == 200
    assert (await one.call("GET", f"/api/events?{query}", key="")).status_code == 401
    again = await Listener(one, query, key="", last_id=listener.last_id).opened()
    assert again.call.answer.status == 200
    for stream in (listener, again):
        await stream.leave()
