"""POST /v1/mcp/invoke: the same call in the words of the PlexMCP documents."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from plughub.api.models import Invoked, Success
from plughub.kit.ids import public_id
from tests.serving import FakeMcp, Json, Served, events_of, text_result, upstream

pytestmark = pytest.mark.anyio
INVOKE = "/v1/mcp/invoke"


@pytest.fixture
async def fake(lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    behind = FakeMcp()
    async with upstream(lite, behind) as made:
        yield behind, made


def ask(made: Json, **more: object) -> Json:
    return {"mcp_id": public_id("mcp", made["uuid"]), "tool": "echo", "arguments": {}, **more}


@pytest.mark.requirement("call.invoke", "http.ids", "http.times")
async def test_a_real_tool_is_invoked_by_either_id(served: Served) -> None:
    for mcp_id in (served.demo_id, public_id("mcp", served.demo_id)):
        body = {"mcp_id": mcp_id, "tool": "get_weather", "arguments": {"location": "Rome"}}
        answer = await served.call("POST", INVOKE, body)
        assert answer.status_code == 200
        read = Success[Invoked].model_validate(answer.json()).data
        assert read.result["location"] == "Rome"
        assert (read.metadata.mcp_id, read.metadata.tool) == (public_id("mcp", served.demo_id), "get_weather")
        assert read.metadata.timestamp == "2027-01-15T08:00:00.000Z"


@pytest.mark.requirement("call.tool-error-is-200")
@pytest.mark.parametrize(
    ("result", "told"),
    [
        (text_result("no such city", isError=True), "no such city"),
        (text_result('{"why":1}', isError=True), {"why": 1}),
        (b'{"content":[{"type":"text","text":"\\ud83d\\ude00"}],"isError":true}', "\U0001f600"),
        (b'{"content":[{"type":"text","text":"a"},{"x":18446744073709551616}],"isError":true}', None),
    ],
)
async def test_a_tools_own_error_is_a_502_with_the_content(lite: Served, fake: tuple[FakeMcp, Json], result: object, told: object) -> None:
    behind, made = fake
    behind.results["echo"] = result
    answer = await lite.call("POST", INVOKE, ask(made))
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["message"]) == (502, "mcp_error", "MCP returned an error")
    assert found["details"]["content"]
    assert told is None or found["details"]["mcp_error"] == told


@pytest.mark.requirement("call.upstream-error-is-502")
@pytest.mark.parametrize(("code", "status", "name"), [(-32000, 502, "mcp_error"), (-32602, 400, "invalid_arguments")])
async def test_an_error_of_the_server_is_told(lite: Served, fake: tuple[FakeMcp, Json], code: int, status: int, name: str) -> None:
    behind, made = fake
    behind.results["echo"] = {"code": code, "message": "no tea"}
    answer = await lite.call("POST", INVOKE, ask(made))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, name)
    assert answer.json()["error"]["details"]["mcp_error"] == "no tea"


@pytest.mark.requirement("call.invoke-context-stays")
async def test_the_context_stays_here(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    assert (await lite.call("POST", INVOKE, ask(made, context={"canary": "c-1"}))).status_code == 200
    assert b"c-1" not in behind.calls[-1].body


@pytest.mark.requirement("errors.v1-shape", "errors.invalid-field-is-named", "errors.tool-not-found-suggests")
@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"mcp_id": 5}, 422, "validation_error", "mcp_id"),
        ({"tool": None}, 422, "validation_error", "tool"),
        ({"arguments": []}, 422, "validation_error", "arguments"),
        ({"context": "x"}, 422, "validation_error", "context"),
        ({"timeout": 0}, 422, "validation_error", "timeout"),
        ({"timeout": 300_001}, 422, "validation_error", "timeout"),
        ({"extra": 1}, 422, "validation_error", "extra"),
        ({"mcp_id": "mcp_123"}, 404, "not_found", None),
        ({"tool": "ecko"}, 404, "tool_not_found", None),
    ],
)
async def test_what_is_wrong_is_named(
    lite: Served, fake: tuple[FakeMcp, Json], change: Json, status: int, code: str, field: str | None
) -> None:
    behind, made = fake
    answer = await lite.call("POST", INVOKE, ask(made, **change))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert field is None or field in answer.json()["error"]["details"]
    assert code != "tool_not_found" or answer.json()["error"]["message"] == "Tool 'ecko' not found. Did you mean 'echo'?"
    assert behind.calls == []


@pytest.mark.requirement("call.invoke-stream", "call.caller-timeout")
async def test_a_stream_speaks_the_dialect_to_the_end(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    behind.progress["echo"] = 2
    answer = await lite.call("POST", INVOKE, ask(made), headers={"Accept": "text/event-stream"})
    frames = events_of(answer.content)
    assert [name for name, _ in frames] == ["progress", "progress", "result"]
    assert frames[-1][1]["data"]["result"] == "ok"
    behind.held["echo"] = asyncio.Event()
    answer = await lite.call("POST", INVOKE, ask(made, timeout=100), headers={"Accept": "text/event-stream"})
    assert events_of(answer.content)[-1][1]["error"]["code"] == "mcp_timeout"


@pytest.mark.requirement("keys.accepted-headers", "keys.x-api-key")
async def test_the_key_may_come_in_the_documents_older_ways(lite: Served) -> None:
    for path, status in (("/v1/mcps", 200), ("/api/servers", 401)):
        answer = await lite.call("GET", path, key="", headers={"Authorization": f"ApiKey {lite.key}"})
        assert answer.status_code == status
    for path in ("/api/servers", "/v1/mcps"):
        old = await lite.call("GET", path, key="", headers={"X-API-Key": lite.key})
        assert (old.status_code, old.headers["deprecation"][0]) == (200, "@")
        assert (await lite.call("GET", path, key="", headers={"X-API-Key": "wrong"})).status_code == 401
        both = await lite.call("GET", path, key="wrong", headers={"X-API-Key": lite.key})
        assert (both.status_code, "deprecation" in both.headers) == (401, False)
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await lite.call("GET", "/api/servers", key="", headers={"Authorization": f"{scheme} {lite.key}"})).status_code == 200


@pytest.mark.requirement("keys.hint-names-the-defect", "errors.key-prefix-in-401")
async def test_the_hint_names_the_defect(lite: Served) -> None:
    key = lite.key
    cases = {
        "": "Authorization: Bearer",
        key: "must begin with 'Bearer '",
        "Basic " + base64.b64encode(key.encode()).decode(): "must begin with 'Bearer '",
        "Bearer": "no API key",
        f"Bearer  {key}": "whitespace",
        f"Bearer {key} x": "whitespace",
        f'Bearer "{key}"': "quotes",
        f"Bearer {key[:-3]}": "incomplete",
        f"Bearer {key}1": "incomplete",
        "Bearer abc": "not an API key",
        "Bearer \u00e9": "not an API key",
    }
    for header, words in cases.items():
        given = {"Authorization": header.encode("latin-1")} if header else {}
        answer = await lite.client.get("/api/servers", headers=given)
        assert answer.status_code == 401
        assert words in answer.json()["error"]["details"]["hint"], header
        assert key not in answer.text
