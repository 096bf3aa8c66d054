"""The same servers in the PlexMCP dialect."""

import pytest

from plughub.api.models import McpDeleted, McpDetail, McpOut, Success, SuccessPage
from plughub.kit.ids import public_id
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio
PATH = "/v1/mcps"
URL = "http://127.0.0.1:1/mcp"


async def make(served: Served, key: str | None = None, **given: object) -> Json:
    answer = await served.call("POST", PATH, {"name": "Made", "endpoint_url": URL, **given}, key=key)
    assert answer.status_code == 201, answer.text
    made: Json = Success[McpOut].model_validate(answer.json()).data.model_dump()
    return made


@pytest.mark.requirement("servers.crud-on-v1", "http.ids")
async def test_an_mcp_is_made_read_changed_and_removed(served: Served) -> None:
    made = await make(served, description="d")
    uuid = (await served.call("GET", "/api/servers")).json()["servers"][-1]["uuid"]
    assert made["id"] == public_id("mcp", uuid)
    assert (made["status"], made["endpoint_url"], made["description"]) == ("active", URL, "d")
    for name in (made["id"], uuid):
        read = Success[McpDetail].model_validate((await served.call("GET", f"{PATH}/{name}")).json()).data
        assert (read.id, read.tools) == (made["id"], None), "never an empty list in place of an error"
    path = f"{PATH}/{made['id']}"
    changed = await served.call("PATCH", path, {"name": "New", "status": "inactive", "description": None})
    read = Success[McpOut].model_validate(changed.json()).data
    assert (read.name, read.status, read.health, read.description) == ("New", "inactive", "unknown", "")
    assert (await served.call("GET", f"/api/servers/{uuid}")).json()["status"] == "disabled"
    gone = Success[McpDeleted].model_validate((await served.call("DELETE", path)).json()).data
    assert gone.mcp_id == made["id"]
    answer = await served.call("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.requirement("servers.crud-on-v1", "servers.secrets-come-back-masked")
@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"auth_type": "bearer", "auth_token": "canary-1"}, "authorization", "Bearer canary-1"),
        ({"auth_type": "api_key", "auth_token": "canary-1"}, "x-api-key", "canary-1"),
        ({"auth_type": "api_key", "auth_token": "canary-1", "auth_header": "X-Mine"}, "x-mine", "canary-1"),
        ({"auth_type": "basic", "auth_username": "u", "auth_password": "canary-1"}, "authorization", "Basic dTpjYW5hcnktMQ=="),
    ],
)
async def test_the_hub_signs_in_as_it_was_told(lite: Served, auth: Json, header: str, value: str) -> None:
    behind = FakeMcp()
    async with upstream(lite, behind) as other:
        url = (await lite.call("GET", f"/api/servers/{other['uuid']}")).json()["config"]["url"]
        made = await make(lite, endpoint_url=url, **auth)
        answer = await lite.call("POST", "/v1/mcp/invoke", {"mcp_id": made["id"], "tool": "echo", "arguments": {}})
        assert answer.status_code == 200
        assert behind.calls[-1].header(header) == value
        detail = await lite.call("GET", f"{PATH}/{made['id']}")
        assert detail.json()["data"]["tools"] == [{"name": "echo", "description": "d", "input_schema": {"type": "object"}}]
        assert detail.json()["data"]["health"] == "healthy"
        assert "canary" not in detail.text
        await lite.call("DELETE", f"{PATH}/{made['id']}")


@pytest.mark.requirement("errors.v1-shape", "errors.invalid-field-is-named")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"endpoint_url": "ftp://x"}, "endpoint_url"),
        ({"endpoint_url": ""}, "endpoint_url"),
        ({"auth_type": "magic"}, "auth_type"),
        ({"auth_type": "bearer"}, "auth_token"),
        ({"auth_type": "basic", "auth_username": "x"}, "auth_password"),
        ({"auth_type": "api_key", "auth_token": "x", "auth_header": "bad name"}, "auth_header"),
        ({"auth_type": "bearer", "auth_token": "canary\n"}, "auth_header"),
        ({"description": "x" * 2001}, "description"),
    ],
)
async def test_a_wrong_field_is_named(lite: Served, change: Json, field: str) -> None:
    answer = await lite.call("POST", PATH, {"name": "x", "endpoint_url": URL, **change})
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["message"]) == (422, "validation_error", "Validation failed"), answer.text
    assert field in found["details"]
    assert "canary" not in answer.text and "config" not in answer.text


@pytest.mark.parametrize(("change", "field"), [({"name": None}, "name"), ({"name": ""}, "name"), ({"endpoint_url": None}, "endpoint_url")])
async def test_a_wrong_change_is_named(lite: Served, change: Json, field: str) -> None:
    made = await make(lite)
    answer = await lite.call("PATCH", f"{PATH}/{made['id']}", change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "validation_error"), answer.text
    assert field in answer.json()["error"]["details"]


async def test_a_server_with_a_command_is_shown_without_an_address(lite: Served) -> None:
    shown = (await lite.call("GET", f"{PATH}/{lite.demo_id}")).json()["data"]
    assert shown["endpoint_url"] is None
    assert "get_weather" in [tool["name"] for tool in shown["tools"]]
    answer = await lite.call("PATCH", f"{PATH}/{lite.demo_id}", {"endpoint_url": URL})
    assert (answer.status_code, "endpoint_url" in answer.json()["error"]["details"]) == (422, True)


@pytest.mark.requirement("http.paging")
async def test_mcps_are_listed_in_pages_by_status_and_health(served: Served) -> None:
    owner = await served.key_of(await served.organization("V1 pages"))
    ids = [(await make(served, owner, name=f"m{number}"))["id"] for number in range(5)]
    await served.call("PATCH", f"{PATH}/{ids[0]}", {"status": "inactive"}, key=owner)

    async def page(query: str) -> SuccessPage[McpOut]:
        return SuccessPage[McpOut].model_validate((await served.call("GET", f"{PATH}?{query}", key=owner)).json())

    found = await page("page=2&per_page=2")
    assert [mcp.id for mcp in found.data] == ids[2:4]
    assert found.pagination.model_dump() == {"page": 2, "per_page": 2, "total": 5, "total_pages": 3}
    assert [mcp.id for mcp in (await page("status=inactive")).data] == ids[:1]
    active = await page("status=active&per_page=3&page=2")
    assert ([mcp.id for mcp in active.data], active.pagination.total) == (ids[4:], 4)
    assert (await page("health=healthy")).data == []
    assert (await page("page=9")).data == []
