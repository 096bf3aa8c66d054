"""`/mcp`: resources, templates, prompts and completions of several servers at one door."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from plughub.gateway.names import aggregate_uri
from tests.mcp.answers import error
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio

CAPABILITIES: Json = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}


def offering(name: str, era: str) -> FakeMcp:
    answers = {
        "resources/list": {"resources": [{"uri": "memo://one", "name": name, "x-own": [1, None]}, {"uri": f"only://{name}", "name": name}]},
        "resources/templates/list": {"resourceTemplates": [{"uriTemplate": f"{name}://{{id}}", "name": name}]},
        "prompts/list": {"prompts": [{"name": "greeting", "title": name}]},
        "resources/read": {"contents": [{"uri": "memo://one", "text": name}]},
        "prompts/get": {"messages": [{"role": "user", "content": {"type": "text", "text": name}}]},
        "completion/complete": {"completion": {"values": [name]}},
    }
    if era == "modern":
        answers = {method: {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **found} for method, found in answers.items()}
    return FakeMcp(era=era, capabilities=CAPABILITIES, answers=answers)


@pytest.fixture
async def two(lite: Served) -> AsyncIterator[dict[str, FakeMcp]]:
    """An older server `alpha` and a modern one `beta`, and a key that may use these two alone."""
    async with AsyncExitStack() as stack:
        fakes = {"alpha": offering("alpha", "legacy"), "beta": offering("beta", "modern")}
        made = [await stack.enter_async_context(upstream(lite, fake, name)) for name, fake in fakes.items()]
        key = await lite.call("POST", "/api/auth/keys", {"name": "two", "servers": [one["uuid"] for one in made]})
        operator, lite.key = lite.key, key.json()["key"]
        try:
            yield fakes
        finally:
            lite.key = operator


@pytest.mark.requirement("mcp.aggregated-resources-and-prompts", "mcp.any-pairing")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
async def test_everything_is_listed_under_names_of_its_server(lite: Served, two: dict[str, FakeMcp], modern: bool) -> None:
    resources = (await lite.rpc("resources/list", modern=modern)).json()["result"]["resources"]
    assert [resource["uri"] for resource in resources] == [
        aggregate_uri(slug, uri) for slug in two for uri in ("memo://one", f"only://{slug}")
    ]
    assert resources[0]["x-own"] == [1, None]
    prompts = (await lite.rpc("prompts/list", modern=modern)).json()["result"]["prompts"]
    assert [(prompt["name"], prompt["title"]) for prompt in prompts] == [("alpha__greeting", "alpha"), ("beta__greeting", "beta")]
    answer = (await lite.rpc("resources/templates/list", modern=modern)).json()["result"]
    assert [t["uriTemplate"] for t in answer["resourceTemplates"]] == ["plughub.alpha+alpha://{id}", "plughub.beta+beta://{id}"]
    assert ("resultType" in answer, "ttlMs" in answer) == (modern, modern)


@pytest.mark.requirement("mcp.aggregated-resources-and-prompts", "mcp.any-pairing")
@pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
@pytest.mark.parametrize("slug", ["alpha", "beta"])
async def test_what_is_named_reaches_its_server_under_its_own_name(lite: Served, two: dict[str, FakeMcp], slug: str, modern: bool) -> None:
    uri = aggregate_uri(slug, "memo://one")
    headers = {"Mcp-Name": uri} if modern else {}
    read = await lite.rpc("resources/read", {"uri": uri}, modern=modern, headers=headers)
    assert read.json()["result"]["contents"][0]["text"] == slug
    got = await lite.rpc("prompts/get", {"name": f"{slug}__greeting"}, modern=modern)
    assert got.json()["result"]["messages"][0]["content"]["text"] == slug
    for ref in ({"type": "ref/prompt", "name": f"{slug}__greeting"}, {"type": "ref/resource", "uri": f"plughub.{slug}+{slug}://{{id}}"}):
        done = await lite.rpc("completion/complete", {"ref": ref, "argument": {"name": "id", "value": "o"}}, modern=modern)
        assert done.json()["result"]["completion"]["values"] == [slug]
    asked = {message["method"]: message["params"] for message in two[slug].asked}
    assert asked["resources/read"]["uri"] == "memo://one"
    assert asked["prompts/get"]["name"] == "greeting"
    assert asked["completion/complete"]["ref"]["uri"] == f"{slug}://{{id}}"
    assert asked["completion/complete"]["argument"] == {"name": "id", "value": "o"}


async def test_a_uri_as_it_stands_in_a_result_is_found_at_the_one_server_that_has_it(lite: Served, two: dict[str, FakeMcp]) -> None:
    for uri, slug in (("only://beta", "beta"), ("alpha://anything", "alpha")):
        assert (await lite.rpc("resources/read", {"uri": uri})).json()["result"]["contents"][0]["text"] == slug
    both = await lite.rpc("resources/read", {"uri": "memo://one"})
    assert error(both)["code"] == -32602
    assert "plughub.alpha+memo://one, plughub.beta+memo://one" in error(both)["message"]


@pytest.mark.requirement("errors.missing-resource-is-404")
@pytest.mark.parametrize(("modern", "code"), [(False, -32002), (True, -32602)])
async def test_a_missing_resource_has_the_number_of_the_clients_revision(
    lite: Served, two: dict[str, FakeMcp], modern: bool, code: int
) -> None:
    for uri in ("nothing://here", aggregate_uri("gamma", "memo://one")):
        answer = await lite.rpc("resources/read", {"uri": uri}, modern=modern, headers={"Mcp-Name": uri} if modern else {})
        assert (error(answer)["code"], error(answer)["data"]["uri"]) == (code, uri)
    for slug, own in (("alpha", -32002), ("beta", -32602)):
        two[slug].answers["resources/read"] = {"code": own, "message": "gone", "data": {"uri": "memo://one", "x": 1}}
        uri = aggregate_uri(slug, "memo://one")
        answer = await lite.rpc("resources/read", {"uri": uri}, modern=modern, headers={"Mcp-Name": uri} if modern else {})
        assert error(answer) == {"code": code, "message": "gone", "data": {"uri": "memo://one", "x": 1}}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", {"name": "gamma__greeting"}),
        ("prompts/get", {"name": "greeting"}),
        ("prompts/get", {}),
        ("resources/read", {"uri": 1}),
        ("completion/complete", {}),
        ("completion/complete", {"ref": []}),
        ("completion/complete", {"ref": {"type": "ref/resource"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": 5}}),
    ],
    ids=str,
)
async def test_what_names_nothing_is_an_error_of_the_callers(lite: Served, two: dict[str, FakeMcp], method: str, params: Json) -> None:
    assert error(await lite.rpc(method, params))["code"] == -32602
