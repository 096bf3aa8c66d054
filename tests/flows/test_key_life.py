"""A key from its making to its end, as its holder meets it at every door."""

from typing import Any

import httpx2
import pytest

from tests.flows.running_hub import Json, RunningHub


def make_key(hub: RunningHub, **given: Any) -> Json:
    answer = hub.api("POST", "/api/auth/keys", {"name": "life", **given})
    assert answer.status_code == 201, answer.text
    key: Json = answer.json()
    return key


def at_doors(hub: RunningHub, key: str) -> dict[str, httpx2.Response]:
    """The same call with the key at the three doors."""
    demo = hub.demo()
    execute = f"/api/servers/{demo['uuid']}/tools/echo/execute"
    initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "flows", "version": "1"}}
    accept = {"Accept": "application/json, text/event-stream"}
    return {
        "api": hub.api("POST", execute, {"parameters": {"text": "a"}}, key=key),
        "v1": hub.api("POST", "/v1/mcp/invoke", {"mcp_id": demo["uuid"], "tool": "echo", "arguments": {"text": "a"}}, key=key),
        "mcp": hub.api("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize}, key=key, headers=accept),
    }


def statuses(hub: RunningHub, key: str) -> dict[str, int]:
    return {door: answer.status_code for door, answer in at_doors(hub, key).items()}


@pytest.mark.requirement("keys.create-on-api", "keys.suspended-answers-403", "keys.revoked-answers-410", "keys.revoked-answers-401-on-v1")
def test_a_key_is_made_used_suspended_resumed_and_revoked(hub: RunningHub) -> None:
    key = make_key(hub)
    path = f"/api/auth/keys/{key['id']}"
    assert statuses(hub, key["key"]) == {"api": 200, "v1": 200, "mcp": 200}

    assert hub.api("PATCH", path, {"status": "suspended"}).status_code == 200
    assert statuses(hub, key["key"]) == {"api": 403, "v1": 403, "mcp": 403}
    assert hub.api("PATCH", path, {"status": "active"}).status_code == 200
    assert statuses(hub, key["key"]) == {"api": 200, "v1": 200, "mcp": 200}

    answer = hub.api("DELETE", path)
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["status"]) == (key["id"], "revoked")
    assert answer.json()["revoked_at"].endswith("Z")
    answers = at_doors(hub, key["key"])
    assert {door: answer.status_code for door, answer in answers.items()} == {"api": 410, "v1": 401, "mcp": 410}
    assert answers["api"].json()["error"]["code"] == "GONE"
    error = answers["v1"].json()["error"]
    assert (error["code"], error["message"]) == ("revoked_key", "API key has been revoked")
    assert "www-authenticate" in answers["v1"].headers


@pytest.mark.requirement("keys.revoke-keeps-the-row")
def test_a_revoked_key_stays_in_the_list(hub: RunningHub) -> None:
    key = make_key(hub)
    for _ in range(2):
        assert hub.api("DELETE", f"/api/auth/keys/{key['id']}").json()["status"] == "revoked"
    assert hub.api("GET", f"/api/auth/keys/{key['id']}").json()["status"] == "revoked"


@pytest.mark.requirement("keys.shown-once")
def test_the_secret_is_shown_once(hub: RunningHub) -> None:
    key = make_key(hub)
    assert key["key"].startswith(key["prefix"])
    assert key["key"] not in hub.api("GET", f"/api/auth/keys/{key['id']}").text
    assert key["key"] not in hub.api("GET", "/api/auth/keys?limit=100").text
    assert key["key"] not in hub.output


@pytest.mark.requirement("keys.grant-excludes-answers-403", "keys.empty-grant-is-nothing")
def test_a_key_without_any_server_sees_none_and_calls_none(hub: RunningHub) -> None:
    key = make_key(hub, servers=[])
    assert hub.api("GET", "/api/servers", key=key["key"]).json()["servers"] == []
    answers = at_doors(hub, key["key"])
    assert answers["api"].status_code == 403
    assert (answers["v1"].status_code, answers["v1"].json()["error"]["code"]) == (403, "mcp_not_permitted")
    assert answers["v1"].json()["error"]["message"] == "API key does not have access to this MCP"


@pytest.mark.requirement("keys.environments-apart")
def test_a_test_key_has_a_demo_server_of_its_own(hub: RunningHub) -> None:
    key = make_key(hub, environment="test")
    [demo] = hub.api("GET", "/api/servers", key=key["key"]).json()["servers"]
    assert demo["slug"] == "weather-server"
    assert demo["uuid"] != hub.demo()["uuid"]
    path = "/api/servers/{}/tools/echo/execute"
    assert hub.api("POST", path.format(demo["uuid"]), {"parameters": {"text": "a"}}, key=key["key"]).json()["result"] == "a"
    assert hub.api("POST", path.format(hub.demo()["uuid"]), {"parameters": {"text": "a"}}, key=key["key"]).status_code == 404


@pytest.mark.requirement("keys.scope-missing-answers-403")
def test_a_key_that_may_only_read_calls_nothing(hub: RunningHub) -> None:
    key = make_key(hub, scopes=["read:servers"])
    answers = at_doors(hub, key["key"])
    assert answers["api"].status_code == 403
    assert answers["api"].json()["error"]["details"]["required_scope"] == "execute:tools"
    assert hub.api("GET", "/api/servers", key=key["key"]).status_code == 200


@pytest.mark.requirement("keys.hint-names-the-defect", "errors.every-401-challenges")
@pytest.mark.parametrize("key", ["", "nonsense", "pk_live_ph_tooshort"])
def test_no_key_and_a_wrong_one_are_401_at_every_door(hub: RunningHub, key: str) -> None:
    for answer in at_doors(hub, key).values():
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers
