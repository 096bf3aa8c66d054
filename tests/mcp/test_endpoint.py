"""The MCP doors: both eras in front, and what all servers look like at one door."""

import base64
import json

import pytest

from plughub.gateway.names import aggregate_name
from plughub.protocol import versions
from tests.mcp.answers import error, one
from tests.serving import META, MODERN, FakeMcp, Json, RawCall, Served, text_result, upstream

pytestmark = pytest.mark.anyio
EXTRA = {"x-unknown": {"deep": [1, None, "é"]}, "_meta": {"own/key": 2}}


# --- the handshake of the older revisions ---


@pytest.mark.requirement("mcp.legacy-handshake")
@pytest.mark.parametrize("version", versions.LEGACY)
async def test_initialize_answers_the_revision_that_was_asked_for(lite: Served, version: str) -> None:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    answer = await lite.rpc("initialize", params, id_="a-1")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["jsonrpc"], found["id"]) == ("2.0", "a-1")
    assert found["result"]["protocolVersion"] == version
    assert found["result"]["serverInfo"]["name"] == "plughub"
    assert {"tools", "resources", "prompts", "completions"} <= found["result"]["capabilities"].keys()
    headers = {"MCP-Protocol-Version": version}
    told = await lite.call("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    assert (told.status_code, told.content) == (202, b"")
    assert "content-type" not in told.headers, "nothing is of no type"
    listed = await lite.rpc("tools/list", headers=headers)
    assert "weather-server__get_weather" in [tool["name"] for tool in listed.json()["result"]["tools"]]
    assert not {"resultType", "ttlMs", "cacheScope"} & listed.json()["result"].keys()


@pytest.mark.parametrize("version", ["1999-01-01", MODERN, ""])
async def test_initialize_offers_the_latest_handshake_revision_for_others(lite: Served, version: str) -> None:
    answer = await lite.rpc("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {}})
    assert answer.json()["result"]["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 1}, {"protocolVersion": None}])
async def test_initialize_without_a_revision_is_an_error_of_the_callers(lite: Served, params: Json) -> None:
    answer = await lite.rpc("initialize", params, id_=7)
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (200, -32602, 7)


async def test_a_server_introduces_itself_at_its_own_door(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    legacy = await lite.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}}, path=one(made))
    found = legacy.json()["result"]
    assert (found["serverInfo"], found["instructions"], found["protocolVersion"]) == (behind.info, "be kind", "2025-06-18")
    modern = (await lite.rpc("server/discover", path=one(made), modern=True)).json()["result"]
    assert modern["_meta"][META + "serverInfo"] == behind.info
    assert modern["instructions"] == "be kind"


# --- 2026-07-28 ---


@pytest.mark.requirement("mcp.modern-discover")
async def test_discover_tells_the_modern_revisions(lite: Served) -> None:
    answer = await lite.rpc("server/discover", modern=True, id_=3)
    assert answer.status_code == 200
    found = answer.json()["result"]
    assert found["supportedVersions"] == [MODERN]
    assert (found["resultType"], found["ttlMs"], found["cacheScope"]) == ("complete", 0, "private")
    assert found["_meta"][META + "serverInfo"]["name"] == "plughub"
    assert "mcp-session-id" not in answer.headers


def modern_call(**changes: object) -> tuple[Json, dict[str, str]]:
    """A good tools/call of 2026-07-28, and its headers."""
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    params = {"name": "weather-server__echo", "arguments": {"text": "x"}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": "m", "method": "tools/call", "params": params}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "weather-server__echo"}
    for name, value in changes.items():
        where = headers if name[0].isupper() else meta
        name = name.replace("_", "-") if name[0].isupper() else META + name
        if value is None:
            del where[name]
        else:
            where[name] = value  # type: ignore[assignment]
    return body, headers


@pytest.mark.requirement("mcp.modern-discover", "mcp.unknown-version", "errors.mcp-shape")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"MCP_Protocol_Version": None}, -32020),
        ({"MCP_Protocol_Version": "2025-11-25"}, -32020),
        ({"MCP_Protocol_Version": "2099-01-01"}, -32020),
        ({"MCP_Protocol_Version": "v999.0.0"}, -32020),
        ({"MCP_Protocol_Version": "v999.0.0", "protocolVersion": "v999.0.0"}, -32022),
        ({"MCP_Protocol_Version": "v999.0.0", "protocolVersion": "v999.0.0", "Mcp_Name": "x"}, -32020),
        ({"MCP_Protocol_Version": "v999.0.0", "protocolVersion": None}, -32022),
        ({"protocolVersion": "2099-01-01"}, -32020),
        ({"protocolVersion": None, "Mcp_Method": None}, -32602),
        ({"clientCapabilities": None, "MCP_Protocol_Version": None}, -32602),
        ({"protocolVersion": None}, -32602),
        ({"clientCapabilities": None}, -32602),
        ({"protocolVersion": 5}, -32602),
        ({"Mcp_Method": None}, -32020),
        ({"Mcp_Method": "tools/list"}, -32020),
        ({"Mcp_Name": None}, -32020),
        ({"Mcp_Name": "weather-server__add"}, -32020),
        ({"Mcp_Name": "=?base64?!!?="}, -32020),
        ({"Mcp_Method": "TOOLS/CALL"}, -32020),
    ],
    ids=str,
)
async def test_headers_and_body_of_a_modern_request_must_agree(lite: Served, changes: Json, code: int) -> None:
    body, headers = modern_call(**changes)
    answer = await lite.call("POST", "/mcp", body, headers=headers)
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (400, code, "m")
    assert answer.headers["cache-control"] == "no-store"
    if code == -32022:
        assert error(answer)["data"]["supported"] == [MODERN]
        assert error(answer)["data"]["requested"] == headers["MCP-Protocol-Version"]


@pytest.mark.requirement("mcp.modern-discover")
@pytest.mark.parametrize("blank", [" ", "\t", "  \t "])
async def test_blanks_around_a_header_of_a_modern_request_are_no_part_of_it(lite: Served, blank: str) -> None:
    body, headers = modern_call()
    given = {name: blank + value + blank for name, value in headers.items()}
    call = RawCall(lite, "POST", "/mcp", {"content-type": "application/json", **given})
    answer = await call.piece(json.dumps(body).encode()).run()
    assert (answer.status, json.loads(answer.body)["result"]["resultType"]) == (200, "complete")


@pytest.mark.requirement("mcp.unknown-method")
async def test_a_handshake_under_a_modern_header_is_no_method(lite: Served) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    answer = await lite.rpc("initialize", params, modern=True)
    assert (answer.status_code, error(answer)["code"], "mcp-session-id" in answer.headers) == (404, -32601, False)
    for version in ("2025-11-25", "2099-01-01"):
        answer = await lite.rpc("initialize", params, headers={"MCP-Protocol-Version": version})
        assert (answer.status_code, answer.json()["result"]["protocolVersion"]) == (200, "2025-11-25")


@pytest.mark.requirement("mcp.status-by-number")
async def test_the_hubs_own_errors_have_the_status_of_their_number_for_modern_clients(lite: Served) -> None:
    for modern, status in ((False, 200), (True, 400)):
        answer = await lite.rpc("tools/call", {"name": "nope__tool"}, modern=modern)
        assert (answer.status_code, error(answer)["code"]) == (status, -32602)


@pytest.mark.requirement("mcp.modern-discover")
@pytest.mark.parametrize("name", ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"])
async def test_a_doubled_header_of_a_modern_request_is_refused(lite: Served, name: str) -> None:
    body, headers = modern_call()
    call = RawCall(lite, "POST", "/mcp", {"content-type": "application/json", **headers})
    again = (name.lower().encode(), headers[name].encode())
    for others in ([again], [(again[0], b"2025-11-25")]):
        call = RawCall(lite, "POST", "/mcp", {"content-type": "application/json", **headers})
        call.scope["headers"] += others
        answer = await call.piece(json.dumps(body).encode()).run()
        assert answer.status == 400
        found = json.loads(answer.body)
        assert (found["error"]["code"], found["id"]) == (-32020, "m")
        assert f"{name} header appears more than once" in found["error"]["message"]


async def test_other_doubled_headers_concern_nobody(lite: Served) -> None:
    body, headers = modern_call()
    call = RawCall(lite, "POST", "/mcp", {"content-type": "application/json", **headers})
    call.scope["headers"] += [(b"accept", b"application/json"), (b"accept", b"text/event-stream")]
    answer = await call.piece(json.dumps(body).encode()).run()
    assert (answer.status, json.loads(answer.body)["id"]) == (200, "m")


async def test_the_name_header_may_be_in_base64(lite: Served) -> None:
    body, headers = modern_call(Mcp_Name="=?base64?" + base64.b64encode(b"weather-server__echo").decode() + "?=")
    answer = await lite.call("POST", "/mcp", body, headers=headers)
    assert answer.json()["result"]["content"][0]["text"] == "x"
    assert answer.json()["result"]["resultType"] == "complete"


@pytest.mark.requirement("mcp.unknown-method")
@pytest.mark.parametrize("method", ["foo/bar", "initialize2", "ping", "tasks/list", ""])
async def test_an_unknown_method_is_a_404_for_modern_clients_and_a_200_for_older_ones(lite: Served, method: str) -> None:
    modern = await lite.rpc(method, modern=True, id_=9)
    assert (modern.status_code, error(modern)["code"], modern.json()["id"]) == (404, -32601, 9)
    if method != "ping":
        legacy = await lite.rpc(method, id_=9)
        assert (legacy.status_code, error(legacy)["code"], legacy.json()["id"]) == (200, -32601, 9)


# --- messages ---


@pytest.mark.requirement("mcp.ping", "limits.not-counted")
async def test_ping_and_notifications_are_answered_and_not_counted(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Pinging", "free"))
    for number in range(30):
        answer = await lite.rpc("ping", key=key, id_=number)
        assert answer.json() == {"jsonrpc": "2.0", "id": number, "result": {}}
        told = await lite.call("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}, key=key)
        assert (told.status_code, told.content) == (202, b"")
        replied = await lite.call("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "result": {}}, key=key)
        assert (replied.status_code, replied.content) == (202, b"")
        assert told.headers["x-ratelimit-remaining"] == "100"
    counted = await lite.rpc("initialize", {"protocolVersion": "2025-11-25"}, key=key)
    assert counted.headers["x-ratelimit-remaining"] == "99"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"{", -32700),
        (b"nope", -32700),
        (b"[]", -32600),
        (b" []", -32600),
        (b'"x"', -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping","params":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":1,"a":2}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32602),
    ],
)
@pytest.mark.requirement("json.duplicate-envelope-keys-refused", "errors.mcp-shape")
async def test_what_is_no_message_is_a_400(lite: Served, sent: bytes, code: int) -> None:
    answer = await lite.call("POST", "/mcp", sent)
    assert (answer.status_code, error(answer)["code"]) == (400, code)
    assert answer.json()["id"] is None


@pytest.mark.parametrize("raw", [b"0", b"-7", b'"a"', b'""', b"1.5", b"18446744073709551616", b'"\\u0041\xc3\xa9"', b'"01"'])
async def test_the_id_comes_back_as_it_was_written(lite: Served, raw: bytes) -> None:
    for method in (b"ping", b"nope"):
        answer = await lite.call("POST", "/mcp", b'{"jsonrpc":"2.0","id":%b,"method":"%b"}' % (raw, method))
        assert b'"id":%b,' % raw in answer.content


@pytest.mark.parametrize("path", ["/mcp", "/servers/{demo}/mcp"])
async def test_only_post_is_spoken(lite: Served, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await lite.call(method, path.format(demo=lite.demo_id))
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json()["jsonrpc"] == "2.0"


# --- who may ---


@pytest.mark.requirement("mcp.challenge")
@pytest.mark.parametrize("path", ["/mcp", "/servers/{demo}/mcp"])
async def test_a_401_says_where_to_ask(lite: Served, path: str) -> None:
    path = path.format(demo=lite.demo_id)
    for key, word in (("", None), ("bad", 'error="invalid_token"')):
        answer = await lite.rpc("tools/list", path=path, key=key)
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="http://localhost/.well-known/oauth-protected-resource{path}"' in challenge
        assert 'scope="execute:tools"' in challenge
        assert (word or "Bearer") in challenge and (word is not None or "error=" not in challenge)
        metadata = challenge.split('resource_metadata="')[1].split('"')[0]
        told = await lite.client.get(metadata)
        assert (told.status_code, told.json()["resource"]) == (200, f"http://localhost{path}")


@pytest.mark.requirement("mcp.challenge", "keys.scope-missing-answers-403")
async def test_a_key_that_may_not_call_is_told_the_scope(lite: Served) -> None:
    key = await lite.key_of(await lite.operator(), scopes=["read:servers"])
    for modern in (False, True):
        answer = await lite.rpc("tools/list", key=key, modern=modern, id_=4)
        assert (answer.status_code, answer.json()["id"]) == (403, 4)
        assert error(answer)["data"]["required_scope"] == "execute:tools"
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert 'scope="execute:tools"' in answer.headers["www-authenticate"]


@pytest.mark.requirement("limits.refusal")
async def test_over_the_limit_a_client_learns_how_long_to_wait(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Limited", "free"))
    answers = [await lite.rpc("initialize", {"protocolVersion": "2025-11-25"}, key=key) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert answers[-1].headers["retry-after"] == str(error(answers[-1])["data"]["retry_after"])
    assert answers[-1].json()["id"] == 1
    assert (await lite.rpc("ping", key=key)).status_code == 200


@pytest.mark.requirement("http.host-and-origin")
async def test_foreign_hosts_and_origins_are_refused(lite: Served) -> None:
    for host in ("evil.test", "localhost.evil.test", "evil.test:80", "", "127.0.0.1.evil.test", "[::1", "localhost@evil.test"):
        answer = await lite.rpc("ping", headers={"Host": host})
        assert answer.status_code == 403, host
    for host in ("localhost:12005", "127.0.0.1", "[::1]:12005", "LOCALHOST", "192.168.1.4:1"):
        assert (await lite.rpc("ping", headers={"Host": host})).status_code == 200, host
    key = await lite.key_of(await lite.operator())
    for origin in ("https://evil.test", "null", "http://localhost.evil.test", "file://", "http://127.0.0.1.evil.test"):
        assert (await lite.rpc("ping", key=key, headers={"Origin": origin})).status_code == 403, origin
    for origin in ("http://localhost:3000", "http://127.0.0.1:6274", "https://localhost"):
        assert (await lite.rpc("ping", key=key, headers={"Origin": origin})).status_code == 200, origin


@pytest.mark.requirement("keys.secret-keys-not-from-browsers")
async def test_a_secret_key_is_refused_with_an_origin(lite: Served) -> None:
    key = await lite.key_of(await lite.operator(), kind="secret")
    assert (await lite.rpc("ping", key=key)).status_code == 200
    answer = await lite.rpc("ping", key=key, headers={"Origin": "http://localhost:3000"})
    assert (answer.status_code, error(answer)["data"]["reason"]) == (403, "secret_key_in_browser")


# --- all servers at one door ---


@pytest.mark.requirement("mcp.all-servers-door")
async def test_tools_of_all_servers_are_listed_in_order_and_unchanged(lite: Served) -> None:
    key = await lite.key_of(organization := await lite.operator())
    tools = [{"name": n, "description": n, "inputSchema": {"type": "object", "$defs": {"a": {}}}, **EXTRA} for n in ("zeta", "alpha")]
    async with upstream(lite, FakeMcp(tools=tools), "b server") as b, upstream(lite, FakeMcp(era="modern", tools=tools), "A server") as a:
        for modern in (False, True):
            found = (await lite.rpc("tools/list", key=key, modern=modern)).json()["result"]
            names = [tool["name"] for tool in found["tools"]]
            assert names[:4] == ["a-server__zeta", "a-server__alpha", "b-server__zeta", "b-server__alpha"]
            assert found["tools"][:4] == [{**tool, "name": name} for tool, name in zip(tools * 2, names[:4], strict=True)]
            assert ("resultType" in found) is modern
        some = await lite.key_of(organization, servers=[a["uuid"]])
        assert [tool["name"] for tool in (await lite.rpc("tools/list", key=some)).json()["result"]["tools"]] == names[:2]
        refused = await lite.rpc("tools/call", {"name": "b-server__zeta"}, key=some)
        assert error(refused)["data"]["code"] == "TOOL_NOT_FOUND"
        called = await lite.rpc("tools/call", {"name": "b-server__zeta"}, key=key)
        assert called.json()["result"]["content"][0]["text"] == "ok"
        await lite.call("PATCH", f"/api/servers/{b['uuid']}", {"enabled": False})
        assert "b-server__zeta" not in (await lite.rpc("tools/list", key=key)).text
        assert error(await lite.rpc("tools/call", {"name": "b-server__zeta"}, key=key))["data"]["code"] == "SERVER_DISABLED"


@pytest.mark.requirement("bad-input.down-is-an-error", "mcp.all-servers-door")
async def test_a_server_that_is_down_is_named_and_when_all_are_it_is_an_error(lite: Served) -> None:
    organization = await lite.organization("Down", stdio_allowed=True)
    key = await lite.key_of(organization)
    empty = await lite.rpc("tools/list", key=key)
    assert empty.json()["result"] == {"tools": []}
    down = {"name": "Down", "type": "STDIO", "config": {"command": "/nonexistent/command"}}
    made = (await lite.call("POST", "/api/servers", down, key=key)).json()
    for modern in (False, True):
        answer = await lite.rpc("tools/list", key=key, modern=modern)
        assert answer.status_code == 200
        assert "result" not in answer.json()
        assert error(answer)["data"]["code"] == "UPSTREAM_ERROR"
        assert "down" in error(answer)["message"]
        assert error(answer)["data"]["failures"][0]["server_uuid"] == made["uuid"]
    demo = await lite.call("GET", f"/api/servers/{lite.demo_id}", key=lite.key)
    up = {"name": "Up", "type": "STDIO", "config": demo.json()["config"]}
    assert (await lite.call("POST", "/api/servers", up, key=key)).status_code == 201
    found = (await lite.rpc("tools/list", key=key)).json()["result"]
    assert "up__echo" in [tool["name"] for tool in found["tools"]]
    assert [failure["server"] for failure in found["_meta"]["plughub/failures"]] == ["down"]


@pytest.mark.parametrize(
    "listed",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"tools":null}',
        b'{"tools":{}}',
        b'{"tools":[1]}',
        b'{"tools":[{"name":5}]}',
        b'{"tools":[{}]}',
        b'{"tools":[],"ttlMs":"x"}',
    ],
)
async def test_a_list_that_cannot_be_read_is_that_servers_failure_alone(lite: Served, listed: bytes) -> None:
    async with upstream(lite, FakeMcp(list_result=listed), "Odd") as made:
        found = (await lite.rpc("tools/list")).json()["result"]
        assert "weather-server__echo" in [tool["name"] for tool in found["tools"]]
        assert [failure["server"] for failure in found["_meta"]["plughub/failures"]] == ["odd"]
        alone = await lite.call("GET", f"/api/servers/{made['uuid']}/tools")
        assert (alone.status_code, alone.json()["error"]["code"]) == (502, "UPSTREAM_ERROR")


async def test_a_null_cursor_ends_the_list(lite: Served) -> None:
    async with upstream(lite, FakeMcp(list_more={"nextCursor": None})) as made:
        assert (await lite.call("GET", f"/api/servers/{made['uuid']}/tools")).json()["total"] == 1


async def test_an_endless_list_ends(lite: Served) -> None:
    async with upstream(lite, FakeMcp(list_more={"nextCursor": "again"})) as made:
        answer = await lite.call("GET", f"/api/servers/{made['uuid']}/tools")
        assert answer.status_code in (200, 502)


@pytest.mark.requirement("mcp.all-servers-door")
async def test_long_names_are_cut_and_still_find_their_tool(lite: Served) -> None:
    names = ["x" * 70 + "1", "x" * 70 + "2", "y" * 40, "é" * 60]
    slug = "a-name-of-24-characters"
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    behind = FakeMcp(tools=tools, results={name: text_result(name) for name in names})
    async with upstream(lite, behind, slug) as made:
        assert made["slug"] == slug
        listed = [t["name"] for t in (await lite.rpc("tools/list")).json()["result"]["tools"] if t["name"].startswith(slug)]
        assert len(set(listed)) == 4
        for long, name in zip(listed, names, strict=True):
            assert len(long) <= 64
            assert long == aggregate_name(slug, name)
            assert (await lite.rpc("tools/call", {"name": long})).json()["result"]["content"][0]["text"] == name
        unknown = await lite.rpc("tools/call", {"name": f"{slug}__{'x' * 70}1"})
        assert error(unknown)["data"]["code"] == "TOOL_NOT_FOUND"


@pytest.mark.parametrize("name", ["nope", "nope__tool", "__", "weather-server", "a__b__c", "x" * 5000])
async def test_an_unknown_name_is_an_error_in_the_answer(lite: Served, name: str) -> None:
    answer = await lite.rpc("tools/call", {"name": name}, id_=5)
    assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (200, -32602, 5)
    assert len(answer.content) < 2000


async def test_a_call_without_a_name_is_an_error_of_the_callers(lite: Served) -> None:
    for params in ({}, {"name": 5}, {"name": None}):
        for modern, status in ((False, 200), (True, 400)):
            headers = {"Mcp-Name": "x"} if modern else {}
            answer = await lite.rpc("tools/call", params, id_=5, modern=modern, headers=headers)
            assert (answer.status_code, error(answer)["code"], answer.json()["id"]) == (status, -32602, 5)
