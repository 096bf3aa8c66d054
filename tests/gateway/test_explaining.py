"""What is told about access is what a call is answered: every key with every server, asked and called."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from plughub.api.audit_shapes import AccessExplained
from plughub.kit.caller import DEFAULT_SCOPES
from plughub.kit.ids import new_id, public_id
from tests.fakes.http_servers import HttpServer
from tests.serving import FakeMcp, Served, serving

pytestmark = pytest.mark.anyio
KEYS = {
    "all": {},
    "admin": {"scopes": ["admin"]},
    "listed": {"servers": ["good"]},
    "empty list": {"servers": []},
    "no scope": {"scopes": ["read:servers"]},
    "secret": {"kind": "secret"},
    "suspended": {},
    "revoked": {},
    "expired": {},
    "revoked after it expired": {},
    "expired, suspended and without the scope": {"scopes": ["read:servers"]},
}
SERVERS = ("good", "disabled", "down", "missing", "foreign", "malformed")
TOOLS = ("echo", "nothing")


@dataclass
class Hall:
    served: Served
    keys: dict[str, tuple[str, str]]
    servers: dict[str, str]


@pytest.fixture(scope="module")
async def hall(both_url: str, hub_dir: Any, anyio_backend: str) -> AsyncIterator[Hall]:
    async with serving(both_url, hub_dir) as served, HttpServer(FakeMcp()) as web:
        other = await served.organization("Other")
        servers = {
            "good": (await served.register("good", web.url))["uuid"],
            "disabled": (await served.register("disabled", web.url))["uuid"],
            "down": (await served.register("down", "http://127.0.0.1:9/mcp"))["uuid"],
            "missing": new_id(),
            "foreign": (await served.register("foreign", web.url, key=await served.key_of(other)))["uuid"],
            "malformed": "nope",
        }
        await served.call("PATCH", f"/api/servers/{servers['disabled']}", {"enabled": False})
        keys = {}
        for name, given in KEYS.items():
            body = {"name": name, "scopes": sorted(DEFAULT_SCOPES), "servers": "*", **given}
            if body["servers"] != "*":
                body["servers"] = [servers[known] for known in body["servers"]]
            if "expired" in name:
                body["expires_at"] = "2027-01-15T08:00:01Z"
            made = (await served.call("POST", "/api/auth/keys", body)).json()
            keys[name] = (made["id"], made["key"])
            path = f"/api/auth/keys/{made['id']}"
            if "suspended" in name:
                await served.call("PATCH", path, {"status": "suspended"})
            if "revoked" in name:
                await served.call("DELETE", path)
        served.clock.advance(2)
        yield Hall(served, keys, servers)


async def explained(hall: Hall, key_id: str, server: str, tool: str | None = None, **given: Any) -> AccessExplained:
    query = f"key={key_id}&server={server}" + (f"&tool={tool}" if tool else "")
    answer = await hall.served.call("GET", f"/api/access/explain?{query}", **given)
    assert answer.status_code == 200, answer.text
    return AccessExplained.model_validate(answer.json())


@pytest.mark.requirement("access.explained-as-answered")
@pytest.mark.parametrize("key", KEYS)
async def test_what_is_explained_is_what_a_call_is_answered(hall: Hall, key: str) -> None:
    key_id, secret = hall.keys[key]
    for server in SERVERS:
        for tool in TOOLS:
            id_ = hall.servers[server]
            told = await explained(hall, key_id, id_, tool)
            answer = await hall.served.call("POST", f"/api/servers/{id_}/tools/{tool}/execute", {"parameters": {}}, key=secret)
            code = None if answer.status_code == 200 else answer.json()["error"]["code"]
            assert (told.status, told.code) == (answer.status_code, code), (server, tool, told)
            assert told.allowed == (answer.status_code == 200) == (told.decided_by is None)
            if not told.allowed:
                first = next(check for check in told.checks if check.passed is False)
                assert (first.check, first.status, first.code) == (told.decided_by, told.status, told.code)
                details = answer.json()
                assert server in ("down",) or first.reason == details["message"]


@pytest.mark.requirement("access.explained-as-answered")
async def test_the_checks_stand_in_the_order_of_a_call_and_name_what_decides(hall: Hall) -> None:
    good = hall.servers["good"]
    told = await explained(hall, hall.keys["expired, suspended and without the scope"][0], public_id("mcp", good), "echo")
    assert [check.check for check in told.checks] == [
        "key_revoked",
        "key_expiry",
        "key_status",
        "environment",
        "address",
        "browser",
        "scope",
        "limit_concurrency",
        "limit_burst",
        "limit_hourly",
        "server",
        "grant",
        "server_enabled",
        "tool",
    ]
    failed = [check.check for check in told.checks if check.passed is False]
    assert failed == ["key_expiry", "key_status", "scope"] and told.decided_by == "key_expiry"
    assert told.checks[-1].passed is None
    decided = {server: (await explained(hall, hall.keys["empty list"][0], hall.servers[server])).decided_by for server in SERVERS}
    assert decided == {
        "good": "grant",
        "disabled": "grant",
        "down": "grant",
        "missing": "server",
        "foreign": "server",
        "malformed": "server",
    }
    foreign, missing = [await explained(hall, hall.keys["all"][0], hall.servers[kind]) for kind in ("foreign", "missing")]
    assert foreign.checks == missing.checks
    assert hall.keys["all"][1] not in told.model_dump_json()


@pytest.mark.requirement("access.explained-as-answered")
async def test_a_limit_that_is_used_up_is_what_decides_and_asking_counts_nothing(hall: Hall) -> None:
    served = hall.served
    small = await served.organization("Small", "free", stdio_allowed=True)
    admin, caller = await served.key_of(small), await served.key_of(small, name="caller")
    listed = (await served.call("GET", "/api/auth/keys", key=admin)).json()["keys"]
    key_id = next(found["id"] for found in listed if found["name"] == "caller")
    server = (await served.call("GET", "/api/servers", key=admin)).json()["servers"]
    assert server == []
    before = await explained(hall, key_id, new_id(), key=admin)
    for _ in range(20):
        assert (await explained(hall, key_id, new_id(), key=admin)).checks == before.checks
    while (await served.call("GET", "/api/servers", key=caller)).status_code == 200:
        pass
    told = await explained(hall, key_id, new_id(), key=admin)
    assert (told.decided_by, told.status, told.code) == ("limit_burst", 429, "RATE_LIMITED")
    answer = await served.call("POST", f"/api/servers/{new_id()}/tools/x/execute", {"parameters": {}}, key=caller)
    assert (answer.status_code, answer.json()["error"]["details"]["policy"]) == (429, "burst")


@pytest.mark.requirement("access.own-keys-only")
async def test_keys_of_others_are_missing_and_a_server_list_hides_the_other_servers(hall: Hall) -> None:
    served, good = hall.served, hall.servers["good"]
    operator = await served.operator()
    stranger, test = await served.key_of(await served.organization("Third")), await served.key_of(operator, "test")
    for key in (stranger, test):
        foreign, missing = [
            await served.call("GET", f"/api/access/explain?key={id_}&server={good}", key=key)
            for id_ in (hall.keys["all"][0], public_id("key", new_id()))
        ]
        assert foreign.status_code == missing.status_code == 404
        assert foreign.json()["message"] == missing.json()["message"] == "API key not found"
    assert (await served.call("GET", f"/api/access/explain?key=nope&server={good}")).status_code == 404
    listed = await served.key_of(operator, servers=[good])
    seen = await served.call("GET", f"/api/access/explain?key={hall.keys['all'][0]}&server={good}", key=listed)
    hidden = await served.call("GET", f"/api/access/explain?key={hall.keys['all'][0]}&server={hall.servers['disabled']}", key=listed)
    assert (seen.status_code, hidden.status_code) == (200, 403)
    nobody = await served.call("GET", f"/api/access/explain?key={hall.keys['all'][0]}")
    assert (nobody.status_code, nobody.json()["message"]) == (400, "The 'server' field is required")
