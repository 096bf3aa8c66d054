"""Reading resources and getting prompts over REST."""

from collections.abc import AsyncIterator

import pytest

from plughub.api.models import PromptResult, ResourceContents
from plughub.kit.ids import public_id
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio

CONTENTS = {"contents": [{"uri": "memo://one", "text": "hello", "x-own": None}], "x-top": 18446744073709551616}
MESSAGES = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi Ada"}}], "description": "d"}


def offering(era: str = "legacy", **more: Json) -> FakeMcp:
    lists = {"prompts/list": {"prompts": [{"name": "greeting"}]}}
    answers = {"resources/read": CONTENTS, "prompts/get": MESSAGES, **lists, **more}
    return FakeMcp(era=era, capabilities={"resources": {}, "prompts": {}}, answers=answers)


@pytest.fixture(params=["legacy", "modern"])
async def fake(request: pytest.FixtureRequest, lite: Served) -> AsyncIterator[tuple[FakeMcp, Json]]:
    behind = offering(request.param)
    async with upstream(lite, behind) as made:
        yield behind, made


@pytest.mark.requirement("servers.resources-read")
async def test_a_resource_is_read(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    answer = await lite.call("POST", f"/api/servers/{made['uuid']}/resources/read", {"uri": "memo://one"})
    assert answer.status_code == 200, answer.text
    read = ResourceContents.model_validate(answer.json())
    assert read.contents == CONTENTS["contents"]
    assert answer.json()["x-top"] == CONTENTS["x-top"]
    assert (read.metadata.server_uuid, read.metadata.uri) == (made["uuid"], "memo://one")
    assert read.metadata.request_id == answer.headers["x-request-id"]
    assert behind.asked[-1]["params"]["uri"] == "memo://one"


@pytest.mark.requirement("servers.prompts-get")
async def test_a_prompt_is_got(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    behind, made = fake
    answer = await lite.call("POST", f"/api/servers/{made['uuid']}/prompts/greeting/get", {"arguments": {"who": "Ada"}})
    assert answer.status_code == 200, answer.text
    read = PromptResult.model_validate(answer.json())
    assert read.messages == MESSAGES["messages"]
    assert (read.metadata.prompt, answer.json()["description"]) == ("greeting", "d")
    params = behind.asked[-1]["params"]
    assert (params["name"], params["arguments"]) == ("greeting", {"who": "Ada"})


@pytest.mark.requirement("servers.resources-read-v1")
async def test_a_resource_is_read_in_the_words_of_v1(lite: Served, fake: tuple[FakeMcp, Json]) -> None:
    _, made = fake
    answer = await lite.call("POST", "/v1/mcp/resources", {"mcp_id": public_id("mcp", made["uuid"]), "uri": "memo://one"})
    assert (answer.status_code, answer.json()) == (200, {"success": True, "data": {"contents": CONTENTS["contents"]}})


@pytest.mark.requirement("demo.resource-and-prompt")
async def test_the_demo_server_tells_its_locations_and_its_prompt(served: Served) -> None:
    demo = f"/api/servers/{served.demo_id}"
    uris = [resource["uri"] for resource in (await served.call("GET", f"{demo}/resources")).json()["resources"]]
    assert uris == ["weather://locations"]
    answer = await served.call("POST", f"{demo}/resources/read", {"uri": uris[0]})
    assert "San Francisco, CA" in answer.json()["contents"][0]["text"]
    prompt = (await served.call("GET", f"{demo}/prompts")).json()["prompts"][0]
    given = {argument["name"]: "Tokyo" for argument in prompt["arguments"] if argument.get("required")}
    got = await served.call("POST", f"{demo}/prompts/{prompt['name']}/get", {"arguments": given})
    assert got.status_code == 200 and "Tokyo" in got.text


@pytest.mark.requirement("errors.missing-resource-is-404")
@pytest.mark.parametrize(("era", "code"), [("legacy", -32002), ("modern", -32602)])
async def test_a_resource_that_is_not_there_is_a_404_in_every_revision(lite: Served, era: str, code: int) -> None:
    async with upstream(lite, offering(era, **{"resources/read": {"code": code, "message": "gone"}})) as made:
        answer = await lite.call("POST", f"/api/servers/{made['uuid']}/resources/read", {"uri": "memo://two"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert answer.json()["message"] == "Resource 'memo://two' not found"


@pytest.mark.requirement("errors.missing-prompt-is-404")
async def test_a_prompt_that_is_not_there_is_a_404_and_wrong_arguments_are_a_400(lite: Served) -> None:
    async with upstream(lite, offering(**{"prompts/get": {"code": -32602, "message": "who is missing"}})) as made:
        path = f"/api/servers/{made['uuid']}/prompts"
        missing = await lite.call("POST", f"{path}/greetings/get", {})
        assert (missing.status_code, missing.json()["message"]) == (404, "Prompt 'greetings' not found. Did you mean 'greeting'?")
        wrong = await lite.call("POST", f"{path}/greeting/get", {})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "INVALID_PARAMETER")
        assert wrong.json()["error"]["details"]["mcp_error"] == "who is missing"


@pytest.mark.requirement("servers.input-required-is-an-error")
@pytest.mark.parametrize(
    ("method", "path", "body"), [("resources/read", "resources/read", {"uri": "a:b"}), ("prompts/get", "prompts/p/get", {})]
)
async def test_a_server_that_asks_for_input_is_an_error_that_says_so(lite: Served, method: str, path: str, body: Json) -> None:
    asks: Json = {"resultType": "input_required", "inputRequests": {}}
    async with upstream(lite, offering("modern", **{method: asks})) as made:
        answer = await lite.call("POST", f"/api/servers/{made['uuid']}/{path}", body)
        assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (502, "no")
        assert "asks for input" in answer.json()["message"]


@pytest.mark.requirement("errors.invalid-field-is-named", "errors.unknown-field-is-400")
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("resources/read", b"{}", "uri"),
        ("resources/read", b'{"uri":1}', "uri"),
        ("resources/read", b'{"uri":"a:b","timeout_ms":0}', "timeout_ms"),
        ("resources/read", b'{"uri":"a:b","more":1}', "more"),
        ("resources/read", b'{"uri":"a:b","uri":"c:d"}', None),
        ("prompts/p/get", b'{"arguments":[]}', "arguments"),
        ("prompts/p/get", b'{"name":"q"}', "name"),
    ],
)
async def test_a_wrong_body_never_reaches_the_server(lite: Served, path: str, body: bytes, field: str | None) -> None:
    behind = offering()
    async with upstream(lite, behind) as made:
        answer = await lite.call("POST", f"/api/servers/{made['uuid']}/{path}", body)
        assert (answer.status_code, answer.json()["error"]["details"].get("field")) == (400, field)
        assert [message for message in behind.asked if message["method"] in ("resources/read", "prompts/get")] == []


async def test_the_scope_for_reading_is_that_of_calling(lite: Served) -> None:
    made = await lite.call("POST", "/api/auth/keys", {"name": "k", "scopes": ["read:servers"]})
    answer = await lite.call("POST", f"/api/servers/{lite.demo_id}/resources/read", {"uri": "weather://locations"}, key=made.json()["key"])
    assert (answer.status_code, answer.json()["error"]["details"]["required_scope"]) == (403, "execute:tools")
