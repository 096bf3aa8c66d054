"""The hub's own tools and resources: documents, for who may read them, beside what servers have."""

import json

import pytest

from plughub.kit.caller import SCOPES
from tests.documents.making import make
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio
OWN = ["search_documents", "get_document"]


async def listed(lite: Served, method: str, member: str, name: str, **given: object) -> list[str]:
    answer = await lite.rpc(method, **given)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [item[name] for item in answer.json()["result"][member]]


async def called(lite: Served, tool: str, arguments: Json, **given: object) -> Json:
    answer = await lite.rpc("tools/call", {"name": tool, "arguments": arguments}, **given)  # type: ignore[arg-type]
    result: Json = answer.json()["result"]
    return result


@pytest.mark.requirement("documents.mcp")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_documents_are_tools_and_resources_of_the_hub_itself(lite: Served, modern: bool) -> None:
    organization = await lite.organization(f"Own {modern}")
    key = await lite.key_of(organization)
    given = {"key": key, "modern": modern}
    assert await listed(lite, "tools/list", "tools", "name", **given) == []  # nothing to find, nothing to read about
    assert await listed(lite, "resources/templates/list", "resourceTemplates", "name", **given) == []
    one = await make(lite, "Refund policy", "# Refunds\n\nRefunds are paid within thirty days.", key=key)
    two = await make(lite, "Shipping", "Parcels leave on Tuesdays.", key=key, tags=["post"])
    assert await listed(lite, "tools/list", "tools", "name", **given) == OWN
    uris = [f"plughub://documents/{each['id']}" for each in (one, two)]
    assert await listed(lite, "resources/list", "resources", "uri", **given) == uris
    assert await listed(lite, "resources/templates/list", "resourceTemplates", "uriTemplate", **given) == ["plughub://documents/{id}"]
    result = await called(lite, "search_documents", {"query": "when are refunds paid"}, **given)
    [hit] = result["structuredContent"]["results"]
    assert (hit["id"], hit["uri"], hit["heading"], result["isError"]) == (one["id"], uris[0], "Refunds", False)
    assert "thirty days" in result["content"][0]["text"]
    assert (await called(lite, "search_documents", {"query": "refunds", "tags": ["post"]}, **given))["structuredContent"] == {"results": []}
    part = (await called(lite, "get_document", {"id": one["id"], "offset": 2, "limit": 7}, **given))["structuredContent"]
    assert (part["content"], part["next_offset"], part["total_characters"]) == ("Refunds", 9, 47)
    read = await lite.rpc("resources/read", {"uri": uris[1]}, headers={"Mcp-Name": uris[1]} if modern else None, **given)  # type: ignore[arg-type]
    contents = read.json()["result"]["contents"]
    assert contents == [{"uri": uris[1], "mimeType": "text/markdown", "text": "Parcels leave on Tuesdays."}]
    for wrong in ({}, {"query": ""}, {"query": "x", "colour": 1}, {"query": "x", "limit": 100}):
        assert (await called(lite, "search_documents", wrong, **given))["isError"] is True
    for missing in ("nope", "00000000-0000-7000-8000-000000000000"):
        failed = await called(lite, "get_document", {"id": missing}, **given)
        assert (failed["isError"], failed["content"][0]["text"]) == (True, "Document not found")


@pytest.mark.requirement("documents.mcp", "keys.scope-missing-answers-403")
async def test_a_key_without_the_scope_or_of_another_place_sees_none_of_it(lite: Served) -> None:
    organization = await lite.organization("Scoped")
    owner = await lite.key_of(organization)
    made = await make(lite, "Secret", "canary", key=owner)
    uri = f"plughub://documents/{made['id']}"
    blind = await lite.key_of(organization, scopes=sorted(SCOPES - {"admin", "read:documents"}))
    stranger = await lite.key_of(await lite.organization("Stranger to it"))
    unknown = await lite.rpc("tools/call", {"name": "nothing"}, key=blind)
    for key in (blind, stranger, await lite.key_of(organization, "test")):
        assert await listed(lite, "tools/list", "tools", "name", key=key) == []
        assert await listed(lite, "resources/list", "resources", "uri", key=key) == []
        refused = await lite.rpc("tools/call", {"name": "search_documents", "arguments": {"query": "canary"}}, key=key)
        assert refused.json()["error"]["message"].replace("search_documents", "nothing") == unknown.json()["error"]["message"]
        read = await lite.rpc("resources/read", {"uri": uri}, key=key)
        assert (read.json()["error"]["code"], read.json()["error"]["message"]) == (-32002, "Resource not found")
    await make(lite, "Other", "text", key=stranger)
    assert (await called(lite, "search_documents", {"query": "canary"}, key=stranger))["structuredContent"]["results"] == []
    assert (await called(lite, "get_document", {"id": made["id"]}, key=stranger))["isError"] is True


@pytest.mark.requirement("documents.mcp", "mcp.profile-door")
async def test_they_stand_after_what_servers_have_at_every_door_of_several(lite: Served) -> None:
    organization = await lite.organization("Beside")
    key = await lite.key_of(organization)
    await make(lite, "Text", "text", key=key)
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("search_documents", "zeta")]
    fake = FakeMcp(tools=tools)
    made = (await lite.call("GET", "/api/profiles", key=key)).json()["profiles"][0]
    slug = made["slug"]
    assert await listed(lite, "tools/list", "tools", "name", path=f"/mcp/{slug}", key=key) == OWN
    async with upstream(lite, fake, "Documents") as server:
        operator = lite.key
        await make(lite, "Text", "text", key=operator)
        names = await listed(lite, "tools/list", "tools", "name", key=operator)
        assert names[-2:] == OWN and {"documents__search_documents", "documents__zeta"} <= set(names)
        assert (await called(lite, "documents__search_documents", {}, key=operator))["content"][0]["text"] == "ok"
        one = await lite.rpc("tools/list", path=f"/servers/{server['uuid']}/mcp", key=operator)
        assert [tool["name"] for tool in one.json()["result"]["tools"]] == ["search_documents", "zeta"]
    log = (await lite.call("GET", "/api/logs?limit=50", key=key)).json()["logs"]
    assert json.dumps(log)
