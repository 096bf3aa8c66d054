"""Servers in the Plugged.in dialect."""

import anyio
import pytest
from sqlalchemy import text

from plughub.api.models import ServerList, ServerOut, ToolsOut
from plughub.kit.ids import new_id
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio
PATH = "/api/servers"
URL = "http://user:canary-u@127.0.0.1:1/mcp?token=canary-q&plain=canary-p"


async def make(served: Served, key: str | None = None, **given: object) -> Json:
    body = {"name": "Made", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:1/mcp"}, "enabled": False, **given}
    answer = await served.call("POST", PATH, body, key=key)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


@pytest.mark.requirement("servers.create", "servers.slug", "http.times")
async def test_a_server_is_made_read_changed_and_removed(served: Served) -> None:
    made = await make(served, name="My  Server!", description="d")
    read = ServerOut.model_validate(made)
    assert (read.slug, read.status, read.tools_count, read.last_error) == ("my-server", "disabled", None, None)
    assert read.created_at == read.updated_at and read.created_at.endswith("Z")
    assert (await make(served, name="my server"))["slug"] == "my-server-2"
    assert (await served.call("GET", f"{PATH}/{made['uuid']}")).json() == made
    assert (await served.call("GET", f"{PATH}/{made['uuid'].upper()}")).json() == made
    served.clock.advance(5)
    for method in ("PUT", "PATCH"):
        changed = (await served.call(method, f"{PATH}/{made['uuid']}", {"name": method})).json()
        assert (changed["name"], changed["slug"], changed["description"]) == (method, "my-server", "d")
        assert changed["updated_at"] > made["updated_at"]
    same = await served.call("PATCH", f"{PATH}/{made['uuid']}", {})
    assert same.json()["updated_at"] == changed["updated_at"]
    gone = await served.call("DELETE", f"{PATH}/{made['uuid']}")
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await served.call(method, f"{PATH}/{made['uuid']}")).status_code == 404


@pytest.mark.requirement("servers.secrets-come-back-masked", "servers.masked-value-keeps-the-secret", "servers.merge-patch")
async def test_secrets_never_come_back_and_stay_when_their_mask_is_sent(served: Served) -> None:
    made = await make(served, config={"url": URL, "headers": {"Authorization": "canary-a", "X-Other": "canary-o"}})
    path = f"{PATH}/{made['uuid']}"
    answers = [await served.call("GET", path), await served.call("GET", PATH), await served.call("GET", "/v1/mcps")]
    assert made["config"]["headers"] == {"Authorization": "***", "X-Other": "***"}
    answers.append(await served.call("PATCH", path, {"config": made["config"]}))
    answers.append(await served.call("PATCH", path, {"config": {"headers": {"X-Other": None, "X-New": "canary-n"}}}))
    assert answers[-1].json()["config"]["headers"] == {"Authorization": "***", "X-New": "***"}
    answers.append(await served.call("PATCH", path, {"config": {"url": 5, "headers": {"bad name": "canary-b"}}}))
    assert answers[-1].status_code == 400
    for answer in answers:
        assert "canary" not in answer.text
    operator = await served.operator()
    entry = await served.app.hub.keys.resolve(served.key)
    assert entry is not None and entry.caller.organization_id == operator.id
    target = await served.app.hub.servers.visible(entry.caller, made["uuid"])
    assert target.url == URL
    assert target.headers == {"Authorization": "canary-a", "X-New": "canary-n"}
    async with served.database.read() as connection:
        sealed = (await connection.execute(text("SELECT sealed_config FROM server WHERE id = :id"), {"id": made["uuid"]})).scalar_one()
        events = (await connection.execute(text("SELECT data FROM event"))).scalars().all()
    assert b"canary" not in bytes(sealed) and "canary" not in str(events)


@pytest.mark.requirement("http.paging", "servers.list-all-without-limit", "keys.empty-grant-is-nothing")
async def test_servers_are_listed_all_or_in_pages_within_the_grant(served: Served) -> None:
    organization = await served.organization("Listing")
    owner = await served.key_of(organization)
    made = [(await make(served, owner, name=f"s{number}"))["uuid"] for number in range(25)]
    everything = ServerList.model_validate((await served.call("GET", PATH, key=owner)).json())
    assert ([server.uuid for server in everything.servers], everything.total, everything.limit) == (made, 25, 1000)
    page = (await served.call("GET", PATH + "?limit=3&offset=23", key=owner)).json()
    assert ([server["uuid"] for server in page["servers"]], page["total"], page["offset"]) == (made[23:], 25, 23)
    some = await served.key_of(organization, servers=[made[3], made[1]])
    page = (await served.call("GET", PATH, key=some)).json()
    assert ([server["uuid"] for server in page["servers"]], page["total"]) == ([made[1], made[3]], 2)
    none = await served.key_of(organization, servers=[])
    assert (await served.call("GET", PATH, key=none)).json()["servers"] == []
    for query in ("limit=0", "limit=101", "offset=-1", "offset=99999999999"):
        assert (await served.call("GET", f"{PATH}?{query}", key=owner)).status_code == 400


@pytest.mark.requirement("keys.listed-grant-cannot-create-servers", "servers.stdio-is-the-operators")
async def test_who_may_not_register_what(served: Served) -> None:
    listed = await served.key_of(await served.operator(), servers=[])
    answer = await served.call("POST", PATH, {"name": "x", "type": "STDIO", "config": {"command": "x"}}, key=listed)
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "server_list")
    tenant = await served.key_of(await served.organization("Tenant of URLs"))
    stdio = {"name": "x", "type": "STDIO", "config": {"command": "x"}}
    answer = await served.call("POST", PATH, stdio, key=tenant)
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "stdio_not_allowed")
    made = await make(served, tenant)
    answer = await served.call("PATCH", f"{PATH}/{made['uuid']}", stdio, key=tenant)
    assert answer.status_code == 403


@pytest.mark.requirement("errors.invalid-field-is-named", "errors.value-is-cut-and-masked")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"type": "TELNET"}, "type"),
        ({"config": []}, "config"),
        ({"config": {}}, "config.url"),
        ({"config": {"url": "ftp://x"}}, "config.url"),
        ({"config": {"url": "http://"}}, "config.url"),
        ({"config": {"url": "http://[::1"}}, "config.url"),
        ({"config": {"url": "http://x:99999/"}}, "config.url"),
        ({"config": {"url": "http://x/ y"}}, "config.url"),
        ({"config": {"url": "http://x", "command": "y"}}, "config.command"),
        ({"config": {"url": "http://x", "headers": {"Host": "y"}}}, "config.headers"),
        ({"config": {"url": "http://x", "headers": {"A": "b\r\nC: d"}}}, "config.headers"),
        ({"type": "STDIO", "config": {"command": ""}}, "config.command"),
        ({"type": "STDIO", "config": {"command": "x", "args": "y"}}, "config.args"),
        ({"type": "STDIO", "config": {"command": "x", "env": {"A=B": "c"}}}, "config.env"),
        ({"profile_uuid": "nope"}, "profile_uuid"),
        ({"profile_uuid": new_id()}, "profile_uuid"),
        ({"enabled": "yes"}, "enabled"),
    ],
)
async def test_a_wrong_field_is_named(lite: Served, change: Json, field: str) -> None:
    body = {"name": "x", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:1/"}, **change}
    answer = await lite.call("POST", PATH, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_PARAMETER"), answer.text
    assert answer.json()["error"]["details"]["field"].startswith(field)
    assert "Traceback" not in answer.text


@pytest.mark.requirement("servers.tools-list", "servers.live-status", "mcp.payload-unchanged")
async def test_tools_come_as_the_server_sent_them(served: Served) -> None:
    tools = [{"name": "b", "inputSchema": {"type": "object"}, "x-own": [1, {"é": None}]}, {"name": "a", "inputSchema": True}]
    async with upstream(served, FakeMcp(tools=tools)) as made:
        answer = await served.call("GET", f"{PATH}/{made['uuid']}/tools")
        assert ToolsOut.model_validate(answer.json()).model_dump() == {"tools": tools, "total": 2}
        with anyio.fail_after(5):
            while (now := (await served.call("GET", f"{PATH}/{made['uuid']}")).json())["tools_count"] is None:
                pass
        assert (now["status"], now["tools_count"], now["last_error"]) == ("connected", 2, None)


@pytest.mark.requirement("servers.create-never-dials", "bad-input.down-is-an-error", "bad-input.command-not-found", "servers.live-status")
async def test_a_server_that_is_down_is_an_error_and_shows_why(served: Served) -> None:
    made = (await served.call("POST", PATH, {"name": "Down", "type": "STDIO", "config": {"command": "/no/such/command"}})).json()
    answer = await served.call("GET", f"{PATH}/{made['uuid']}/tools")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "UPSTREAM_ERROR")
    assert answer.json()["error"]["details"]["executed"] == "no"
    now = (await served.call("GET", f"{PATH}/{made['uuid']}")).json()
    assert now["status"] == "error" and "/no/such/command" in now["last_error"]
    await served.call("PATCH", f"{PATH}/{made['uuid']}", {"enabled": False})
    answer = await served.call("GET", f"{PATH}/{made['uuid']}/tools")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "SERVER_DISABLED")


@pytest.mark.requirement("json.camel-and-snake-case")
async def test_both_spellings_are_read(lite: Served) -> None:
    profile = (await make(lite))["profile_uuid"]
    for name in ("profile_uuid", "profileUuid"):
        assert (await make(lite, **{name: profile}))["profile_uuid"] == profile
    for name in ("secret_args", "secretArgs"):
        made = await make(lite, type="STDIO", config={"command": "x", name: ["canary"]})
        assert made["config"]["secret_args"] == ["***"]


@pytest.mark.requirement("servers.secrets-stay-with-their-address")
async def test_a_key_that_may_change_a_server_cannot_have_its_secrets_sent_elsewhere(lite: Served) -> None:
    key = await lite.key_of(await lite.operator(), scopes=["read:servers", "write:servers"])
    made = await make(lite, config={"url": URL, "headers": {"Authorization": "canary-a"}})
    path = f"{PATH}/{made['uuid']}"
    for headers in ({}, {"headers": {"Authorization": "***"}}):
        for method in ("PUT", "PATCH"):
            answer = await lite.call(method, path, {"config": {"url": "http://evil.test/mcp", **headers}}, key=key)
            found = answer.json()["error"]
            assert (answer.status_code, found["code"], found["details"]["field"]) == (400, "INVALID_PARAMETER", "config.headers")
            assert "given again, or removed with null" in found["message"] and "canary" not in answer.text
    v1 = await lite.call("PATCH", f"/v1/mcps/{made['uuid']}", {"endpoint_url": "http://evil.test/mcp"}, key=key)
    assert (v1.status_code, "auth_header" in v1.json()["error"]["details"]) == (422, True)
    assert (await lite.call("GET", path)).json() == made
    moved = await lite.call("PATCH", path, {"config": {"url": "http://new.test/mcp", "headers": {"Authorization": "new"}}}, key=key)
    assert (moved.status_code, moved.json()["config"]["url"]) == (200, "http://new.test/mcp")
