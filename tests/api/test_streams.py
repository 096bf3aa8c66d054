"""Open streams end with their key; the second version's paths."""

import json

import pytest

from tests.serving import RawCall, Served

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream", "content-type": "application/json"}


def streaming(served: Served, tool: str, arguments: dict[str, object], key: str) -> RawCall:
    path = f"/api/servers/{served.demo_id}/tools/{tool}/execute"
    return RawCall(served, "POST", path, STREAM, key).piece(json.dumps({"parameters": arguments}).encode())


async def made(lite: Served) -> tuple[str, str]:
    answer = (await lite.call("POST", "/api/auth/keys", {"name": "k", "scopes": ["execute:tools"]})).json()
    return answer["id"], answer["key"]


@pytest.mark.requirement("keys.open-streams-close-on-revocation")
async def test_a_stream_that_has_begun_ends_with_an_error_frame_when_its_key_is_revoked(lite: Served) -> None:
    key_id, key = await made(lite)
    call = streaming(lite, "generate_text", {"prompt": "a long evening"}, key)
    running = call.start()
    await call.answer.until(lambda: b"event: progress" in call.answer.body)
    await lite.call("DELETE", f"/api/auth/keys/{key_id}")
    answer = await running
    assert answer.complete
    last = answer.body.decode().strip().split("\n\n")[-1]
    assert last.startswith("event: error") and '"GONE"' in last


@pytest.mark.requirement("keys.open-streams-close-on-revocation")
async def test_the_streams_of_other_keys_go_on(lite: Served) -> None:
    key_id, _ = await made(lite)
    _, other = await made(lite)
    call = streaming(lite, "generate_text", {"prompt": "a long evening"}, other)
    running = call.start()
    await call.answer.until(lambda: b"event: progress" in call.answer.body)
    await lite.call("DELETE", f"/api/auth/keys/{key_id}")
    assert (await running).body.decode().strip().split("\n\n")[-1].startswith("event: result")


@pytest.mark.requirement("routes.api-v2")
async def test_the_second_version_is_the_api_itself(lite: Served) -> None:
    here, there = await lite.call("GET", "/api/servers"), await lite.call("GET", "/api/v2/servers")
    assert (there.status_code, there.json()) == (200, here.json())
    called = await lite.call("POST", f"/api/v2/servers/{lite.demo_id}/tools/echo/execute", {"parameters": {"text": "x"}})
    assert called.json()["result"] == "x"
    assert (await lite.call("GET", "/api/v2/nothing")).json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.requirement("routes.api-v1")
async def test_the_first_version_is_the_api_itself_and_says_what_follows_it(lite: Served) -> None:
    here, there = await lite.call("GET", "/api/servers?limit=1"), await lite.call("GET", "/api/v1/servers?limit=1")
    assert (there.status_code, there.json()) == (200, here.json())
    assert there.headers["deprecation"].startswith("@") and "deprecation" not in here.headers and "link" not in here.headers
    assert there.headers["link"] == '</api/servers>; rel="successor-version"'
    called = await lite.call("POST", f"/api/v1/servers/{lite.demo_id}/tools/echo/execute", {"parameters": {"text": "x"}})
    assert (called.json()["result"], called.headers["link"]) == (
        "x",
        f'</api/servers/{lite.demo_id}/tools/echo/execute>; rel="successor-version"',
    )
    for path in ("/api/v1/nothing", "/api/v1/v2/servers", "/api/v1/a>;%0d%0ax: y"):
        missing = await lite.call("GET", path, headers={"X-API-Key": lite.key})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert missing.headers.get_list("link")[0].count(">") == 1 and "x" not in missing.headers
    old = await lite.call("GET", "/api/v1/servers", key="", headers={"X-API-Key": lite.key})
    assert (old.status_code, len(old.headers.get_list("deprecation"))) == (200, 1)
