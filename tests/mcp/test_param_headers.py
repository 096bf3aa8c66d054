"""`Mcp-Param-*` headers (MCP 2026-07-28): compared for clients, sent to servers, and tools whose marks are wrong."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.http_servers import HttpServer, Seen, error_reply
from tests.mcp.answers import error, one
from tests.serving import FakeMcp, Json, RawCall, Served, text_result, upstream

pytestmark = pytest.mark.anyio


def tool(name: str, **marks: Any) -> Json:
    properties = {argument: {"type": "string", "x-mcp-header": mark} for argument, mark in marks.items()}
    return {"name": name, "inputSchema": {"type": "object", "properties": {**properties, "other": {"type": "string"}}}}


TOOLS = [tool("where", region="Region"), tool("plain")]
WRONG = [tool("bad", region="My Region"), tool("worse", a="Same", b="same")]


def where(region: Any) -> Json:
    return {"name": "where", "arguments": {"region": region, "other": "o"}}


@pytest.mark.requirement("mcp.param-headers-checked")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_headers_are_compared_whatever_the_server_speaks(lite: Served, era: str) -> None:
    async with upstream(lite, FakeMcp(era=era, tools=TOOLS), "Marked") as made:
        for path, prefix in ((one(made), ""), ("/mcp", "marked__")):
            params = where("Hello") | {"name": f"{prefix}where"}
            for region in ("Hello", " Hello ", "=?base64?SGVsbG8=?="):
                answer = await lite.rpc("tools/call", params, path=path, modern=True, headers={"Mcp-Param-Region": region})
                assert answer.status_code == 200, answer.text
            for wrong in ({}, {"Mcp-Param-Region": "hello"}, {"Mcp-Param-Region": "=?base64?SGVsbG8?="}):
                answer = await lite.rpc("tools/call", params, path=path, modern=True, headers=wrong, id_=4)
                assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (400, -32020, 4)
            assert (await lite.rpc("tools/call", params, path=path)).status_code == 200, "older clients have no such headers"
            unmarked = {"name": f"{prefix}plain", "arguments": {"other": "o"}}
            stray = await lite.rpc("tools/call", unmarked, path=path, modern=True, headers={"Mcp-Param-Region": "x"})
            assert stray.status_code == 200


@pytest.mark.requirement("mcp.param-headers-checked")
async def test_a_doubled_header_is_refused(lite: Served) -> None:
    async with upstream(lite, FakeMcp(era="modern", tools=TOOLS)) as made:
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**where("a"), "_meta": meta}}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "where", "Mcp-Param-Region": "a"}
        call = RawCall(lite, "POST", one(made), {"content-type": "application/json", **headers})
        call.scope["headers"].append((b"mcp-param-region", b"a"))
        answer = await call.piece(json.dumps(body).encode()).run()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, -32020)


@pytest.mark.requirement("mcp.param-headers-sent")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_every_door_sends_what_the_schema_marks_to_modern_servers_alone(lite: Served, era: str) -> None:
    behind = FakeMcp(era=era, tools=TOOLS)
    async with upstream(lite, behind, "Marked") as made:
        modern = {"Mcp-Param-Region": "=?base64?w6k=?="}
        await lite.rpc("tools/call", where("\u00e9"), path=one(made))
        await lite.rpc("tools/call", where("\u00e9"), path=one(made), modern=True, headers=modern)
        await lite.rpc("tools/call", where("\u00e9") | {"name": "marked__where"})
        await lite.call("POST", f"/api/servers/{made['uuid']}/tools/where/execute", {"parameters": where("\u00e9")["arguments"]})
        await lite.rpc("tools/call", {"name": "plain", "arguments": {"other": "\u00e9"}}, path=one(made))
        sent = [seen.header("mcp-param-region") for seen in behind.calls]
        assert sent == ([*["=?base64?w6k=?="] * 4, None] if era == "modern" else [None] * 5)


@pytest.mark.requirement("mcp.param-headers-sent")
async def test_a_list_that_is_not_known_is_fetched_for_the_first_call(lite: Served) -> None:
    behind = FakeMcp(era="modern", tools=TOOLS)
    async with upstream(lite, behind) as made:
        await lite.rpc("tools/list", path=one(made))
        lite.app.hub.catalog.forget(made["uuid"])
        await asyncio.gather(*(lite.rpc("tools/call", where("a"), path=one(made)) for _ in range(3)))
        assert [seen.header("mcp-param-region") for seen in behind.calls] == ["a"] * 3


@pytest.mark.requirement("mcp.param-headers-sent")
async def test_a_server_whose_schema_changed_unsaid_is_asked_again_with_its_new_headers(lite: Served) -> None:
    class Changing(FakeMcp):
        async def _call(self, seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
            if seen.header("mcp-param-place") is None:
                self.calls.append(seen)
                return error_reply(seen, -32020, "Mcp-Param-Place header is missing", 400)
            return await super()._call(seen, writer)

    behind = Changing(era="modern", tools=TOOLS)
    async with upstream(lite, behind) as made:
        assert error(await lite.rpc("tools/call", where("a"), path=one(made)))["code"] == -32020
        assert len(behind.calls) == 1, "the list says the same: nothing is asked twice"
        behind.tools = [tool("where", region="Place")]
        answer = await lite.rpc("tools/call", where("a"), path=one(made))
        assert answer.json()["result"] == text_result("ok")
        assert [seen.header("mcp-param-place") for seen in behind.calls] == [None, None, "a"]


@pytest.mark.requirement("mcp.param-headers-wrong")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_tools_whose_marks_are_wrong_are_neither_listed_nor_called(lite: Served, modern: bool) -> None:
    behind = FakeMcp(era="modern", tools=[*WRONG, *TOOLS])
    async with upstream(lite, behind, "Marked") as made:
        listed = (await lite.rpc("tools/list", path=one(made), modern=modern)).json()["result"]["tools"]
        assert listed == TOOLS
        everything = (await lite.rpc("tools/list", modern=modern)).json()["result"]["tools"]
        assert [each["name"] for each in everything if each["name"].startswith("marked__")] == ["marked__where", "marked__plain"]
        assert (await lite.call("GET", f"/api/servers/{made['uuid']}/tools")).json()["total"] == 2
        for path, name in ((one(made), "bad"), ("/mcp", "marked__bad")):
            refused = await lite.rpc("tools/call", {"name": name, "arguments": {"region": "x"}}, path=path, modern=modern)
            assert error(refused)["data"]["code"] == "TOOL_NOT_FOUND"
        assert (await lite.call("POST", f"/api/servers/{made['uuid']}/tools/bad/execute", {})).status_code == 404
        assert behind.calls == []
        lite.clock.advance(100)
        assert (await lite.call("GET", f"/api/servers/{made['uuid']}/tools")).json()["total"] == 2
        logs = (await lite.call("GET", f"/api/servers/{made['uuid']}/logs")).text
        assert (logs.count("'bad' is left out"), logs.count("'worse' is left out")) == (1, 1)


@pytest.mark.requirement("mcp.param-headers-wrong")
async def test_to_older_servers_a_mark_means_nothing(lite: Served) -> None:
    behind = FakeMcp(tools=WRONG)
    async with upstream(lite, behind) as made:
        assert (await lite.rpc("tools/list", path=one(made))).json()["result"]["tools"] == WRONG
        for modern in (False, True):
            assert (await lite.rpc("tools/call", {"name": "bad"}, path=one(made), modern=modern)).status_code == 200
        assert len(behind.calls) == 2


@pytest.mark.requirement("mcp.param-headers-sent")
async def test_a_server_that_refuses_its_list_is_not_asked_for_it_at_every_call(lite: Served) -> None:
    lists: list[Seen] = []
    fake = FakeMcp(era="modern")

    async def refusing(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json.get("method") == "tools/list":
            lists.append(seen)
            return error_reply(seen, -32000, "not for you")
        return await fake(seen, writer)

    async with HttpServer(refusing) as server:
        made = await lite.register("Refusing", server.url)
        assert (await lite.call("GET", f"/api/servers/{made['uuid']}/tools")).status_code == 502
        asked = len(lists)
        for _ in range(3):
            answer = await lite.rpc("tools/call", {"name": "echo", "arguments": {}}, path=one(made), modern=True)
            assert answer.status_code == 200, answer.text
        assert len(lists) == asked
        lite.clock.advance(61)
        assert (await lite.rpc("tools/call", {"name": "echo", "arguments": {}}, path=one(made), modern=True)).status_code == 200
        assert len(lists) == asked + 1
        await lite.call("DELETE", f"/api/servers/{made['uuid']}")
