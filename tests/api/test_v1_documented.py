"""What the PlexMCP documents print of `/v1`: every error with its status, code and text, and the members of every answer."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest

from plughub.api.models import McpDetail, Success, SuccessPage, V1Key, V1KeyDetail
from plughub.api.render import render_v1
from plughub.door.request import Request
from plughub.kit.errors import Conflict, HubError, Internal, NotFound
from plughub.kit.ids import new_id, public_id
from tests.serving import FakeMcp, Json, Served, text_result, upstream

pytestmark = pytest.mark.anyio
INVOKE = "/v1/mcp/invoke"
# Status, code and text as the documents have them, each with what brings it about. A monthly quota (`quota_exceeded`) no tier has.
TEXTS = {
    "no key": (401, "unauthorized", "Invalid or missing API key"),
    "expired": (401, "expired_key", "API key has expired"),
    "revoked": (401, "revoked_key", "API key has been revoked"),
    "scope": (403, "forbidden", "You don't have permission to perform this action"),
    "grant": (403, "mcp_not_permitted", "API key does not have access to this MCP"),
    "only key": (403, "forbidden", "Cannot revoke your only active key"),
    "no such mcp": (404, "not_found", "MCP not found"),
    "no such key": (404, "not_found", "API key not found"),
    "no such member": (404, "not_found", "Member not found"),
    "no such tool": (404, "tool_not_found", "Tool 'get_whether' not found. Did you mean 'get_weather'?"),
    "broken": (400, "invalid_request", "Invalid request format"),
    "permissions": (400, "invalid_request", "Invalid permissions format"),
    "arguments": (400, "invalid_arguments", "The tool does not take these arguments"),
    "past expiry": (422, "validation_error", "Validation failed"),
    "role": (422, "validation_error", "Validation failed"),
    "limited": (429, "rate_limited", "Too many requests"),
    "unreachable": (502, "mcp_unreachable", "Could not connect to MCP server"),
    "server's error": (502, "mcp_error", "MCP returned an error"),
    "slow": (504, "mcp_timeout", "MCP server did not respond in time"),
}
DETAILS: dict[str, Json] = {
    "past expiry": {"expires_at": "Must be a future date"},
    "role": {"role": "Must be one of: owner, admin, member, viewer"},
    "server's error": {"mcp_error": "Tool not found: unknown_tool"},
}


@pytest.fixture
async def fake(lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    behind = FakeMcp()
    async with upstream(lite, behind) as made:
        yield behind, made


async def invoke(lite: Served, mcp_id: str, tool: str, key: str | None = None, **more: object) -> httpx2.Response:
    return await lite.call("POST", INVOKE, {"mcp_id": mcp_id, "tool": tool, "arguments": {}, **more}, key=key)


REQUESTS: dict[str, tuple[str, str, Json | bytes | None]] = {
    "no such mcp": ("GET", f"/v1/mcps/{public_id('mcp', new_id())}", None),
    "no such key": ("GET", f"/v1/api-keys/{public_id('key', new_id())}", None),
    "no such member": ("PATCH", f"/v1/organization/members/{public_id('user', new_id())}", {"role": "viewer"}),
    "broken": ("POST", "/v1/api-keys", b"{"),
    "permissions": ("POST", "/v1/api-keys", {"name": "x", "permissions": {"mcps": "some"}}),
    "past expiry": ("POST", "/v1/api-keys", {"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
    "role": ("POST", "/v1/organization/members/invite", {"email": "a@example.com", "role": "captain"}),
}


async def by_key(name: str, lite: Served) -> httpx2.Response:
    """A request whose key is the reason why it is refused."""
    given: Json = {
        "expired": {"expires_at": "2027-01-15T08:00:01Z"},
        "scope": {"scopes": ["read:servers"]},
        "limited": {"rate_limit": {"burst": 1}},
    }
    key = "" if name == "no key" else await lite.key_of(await lite.organization(f"Documented: {name}"), **given.get(name, {}))
    if name == "expired":
        lite.clock.advance(2)
    if name == "scope":
        return await lite.call("GET", "/v1/api-keys", key=key)
    if name in ("revoked", "only key"):
        own = (await lite.call("GET", "/v1/api-keys", key=key)).json()["data"][0]["id"]
        answer = await lite.call("DELETE", f"/{'v1/api-keys' if name == 'only key' else 'api/auth/keys'}/{own}", key=key)
        return answer if name == "only key" else await lite.call("GET", "/v1/mcps", key=key)
    answer = await lite.call("GET", "/v1/mcps", key=key)
    return await lite.call("GET", "/v1/mcps", key=key) if name == "limited" else answer


async def by_call(name: str, lite: Served, behind: FakeMcp, mcp: str) -> httpx2.Response:
    """A call that fails."""
    if name == "grant":
        listed = await lite.call("POST", "/v1/api-keys", {"name": "listed", "permissions": {"mcps": []}})
        return await invoke(lite, mcp, "echo", listed.json()["data"]["key"])
    if name == "no such tool":
        return await invoke(lite, lite.demo_id, "get_whether")
    if name == "unreachable":
        down = await lite.register("Down", "http://127.0.0.1:1/mcp")
        return await invoke(lite, down["uuid"], "echo")
    if name == "slow":
        behind.held["echo"] = asyncio.Event()
    else:
        behind.results["echo"] = {"code": -32602 if name == "arguments" else -32000, "message": "Tool not found: unknown_tool"}
    return await invoke(lite, mcp, "echo", timeout=50 if name == "slow" else 10_000)


async def provoke(name: str, lite: Served, behind: FakeMcp, made: Json) -> httpx2.Response:
    """The answer that the documents describe."""
    if name in REQUESTS:
        return await lite.call(*REQUESTS[name])
    if name in ("no key", "expired", "revoked", "scope", "only key", "limited"):
        return await by_key(name, lite)
    return await by_call(name, lite, behind, public_id("mcp", made["uuid"]))


@pytest.mark.requirement("errors.v1-documented-texts")
@pytest.mark.parametrize("name", TEXTS)
async def test_an_error_has_the_documents_status_code_and_text(lite: Served, fake: tuple[FakeMcp, Json], name: str) -> None:
    answer = await provoke(name, lite, *fake)
    body = answer.json()
    assert (answer.status_code, body["error"]["code"], body["error"]["message"], body["success"]) == (*TEXTS[name], False)
    assert DETAILS.get(name, {}).items() <= body["error"]["details"].items()
    assert name != "unreachable" or body["error"]["details"]["reason"], "why, beside the text"
    assert name != "limited" or int(answer.headers["retry-after"]) > 0


@pytest.mark.requirement("errors.v1-documented-texts")
@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (Internal(), 500, "internal_error", "An unexpected error occurred"),
        (Conflict(), 409, "already_exists", "Resource already exists"),
        (NotFound(), 404, "not_found", "Resource not found"),
    ],
)
def test_what_nobody_can_bring_about_has_its_text_too(error: HubError, status: int, code: str, text: str) -> None:
    request = Request.__new__(Request)
    request.id = "req_1"
    rendered = render_v1(error, request)
    found = msgspec.json.decode(rendered.body)["error"]
    assert (rendered.status, found["code"], found["message"]) == (status, code, text)


@pytest.mark.requirement("servers.v1-figures")
async def test_an_mcp_has_the_figures_of_its_calls(served: Served) -> None:
    behind = FakeMcp()
    async with upstream(served, behind) as made:
        path, mcp = f"/v1/mcps/{made['uuid']}", public_id("mcp", made["uuid"])
        for result in (text_result("yes"), text_result("yes"), text_result("no", isError=True)):
            behind.results["echo"] = result
            await served.call("POST", INVOKE, {"mcp_id": mcp, "tool": "echo", "arguments": {}})
        await served.app.hub.writer.flush()
        found = Success[McpDetail].model_validate((await served.call("GET", path)).json()).data
        assert (found.request_count, found.stats.total_requests, found.stats.requests_today) == (3, 3, 3)
        assert found.stats.error_rate == 0.3333 and found.stats.avg_latency_ms is not None
        assert found.last_active is not None and found.health_checked_at is not None
        listed = {one["id"]: one for one in (await served.call("GET", "/v1/mcps?per_page=100")).json()["data"]}
        assert (listed[mcp]["request_count"], listed[mcp]["last_active"]) == (3, found.last_active)


@pytest.mark.requirement("keys.v1-maker-and-activity")
async def test_a_key_has_its_maker_and_its_newest_calls(served: Served) -> None:
    person = await served.browser(await served.operator())
    body = {"name": "Made", "permissions": {"mcps": "*"}}
    by_person, by_key = [(await served.call("POST", "/v1/api-keys", body, key=key)).json()["data"] for key in (person, served.key)]
    async with upstream(served, FakeMcp()) as made:
        ask = {"mcp_id": made["uuid"], "tool": "echo", "arguments": {}}
        assert (await served.call("POST", INVOKE, ask, key=by_person["key"])).status_code == 200
        await served.app.hub.writer.flush()
        seen = [await served.call("GET", f"/v1/api-keys/{key['id']}") for key in (by_person, by_key)]
        first, second = (Success[V1KeyDetail].model_validate(answer.json()).data for answer in seen)
    assert (
        first.created_by is not None and first.created_by.id == public_id("user", person.user_id) and "@" in (first.created_by.email or "")
    )
    assert second.created_by is not None and second.created_by.id.startswith("key_") and second.created_by.email is None
    [call] = first.recent_activity
    assert (call.mcp_id, call.tool, call.status) == (public_id("mcp", made["uuid"]), "echo", "success")
    assert second.recent_activity == []


async def test_a_key_may_end_itself_when_another_works(lite: Served) -> None:
    team = await lite.organization("Two keys")
    first, second = await lite.key_of(team), await lite.key_of(team)
    ids = [key.id for key in SuccessPage[V1Key].model_validate((await lite.call("GET", "/v1/api-keys", key=first)).json()).data]
    assert (await lite.call("DELETE", f"/v1/api-keys/{ids[0]}", key=first)).status_code == 200
    assert (await lite.call("DELETE", f"/v1/api-keys/{ids[1]}", key=second)).status_code == 403
    assert (await lite.call("DELETE", f"/v1/api-keys/{ids[1]}")).status_code == 404, "nobody else's business"
