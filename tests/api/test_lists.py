"""What servers offer, as lists: of one server, and of all."""

import json

import pytest

from plughub.api.models import AllResources, AllTools, PromptsOut, ResourcesOut, TemplatesOut
from tests.serving import FakeMcp, Json, Served, upstream

pytestmark = pytest.mark.anyio

RESOURCE = {"uri": "memo://one", "name": "One", "x-own": [1, None], "size": 18446744073709551616}
TEMPLATE = {"uriTemplate": "memo://{id}", "name": "Any"}
PROMPT = {"name": "greeting", "arguments": [{"name": "who", "required": True}], "icons": []}
EVERYTHING: Json = {"tools": {}, "resources": {}, "prompts": {}}
LISTS: dict[str, Json] = {
    "resources/list": {"resources": [RESOURCE]},
    "resources/templates/list": {"resourceTemplates": [TEMPLATE]},
    "prompts/list": {"prompts": [PROMPT]},
}
NOUNS = {"resources": "resources", "resource-templates": "resourceTemplates", "prompts": "prompts"}


def offering(**more: Json) -> FakeMcp:
    return FakeMcp(capabilities=EVERYTHING, answers={**LISTS, **more})


@pytest.mark.requirement("servers.resources-and-prompts-listed")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_resources_templates_and_prompts_come_as_the_server_sent_them(lite: Served, era: str) -> None:
    behind = offering()
    behind.era = era
    async with upstream(lite, behind) as made:
        for noun, shape, wanted in (
            ("resources", ResourcesOut, {"resources": [RESOURCE], "total": 1}),
            ("resource-templates", TemplatesOut, {"resourceTemplates": [TEMPLATE], "total": 1}),
            ("prompts", PromptsOut, {"prompts": [PROMPT], "total": 1}),
        ):
            answer = await lite.call("GET", f"/api/servers/{made['uuid']}/{noun}")
            assert answer.status_code == 200, answer.text
            assert shape.model_validate(answer.json()) and answer.json() == wanted
        assert json.dumps(RESOURCE, separators=(",", ":")) in (
            await lite.call("GET", f"/api/servers/{made['uuid']}/resources")
        ).text.replace(": ", ":").replace(", ", ",")


@pytest.mark.parametrize("noun", NOUNS)
async def test_a_server_that_announces_none_has_none_and_is_not_asked(lite: Served, noun: str) -> None:
    behind = FakeMcp()
    async with upstream(lite, behind) as made:
        answer = await lite.call("GET", f"/api/servers/{made['uuid']}/{noun}")
        assert (answer.status_code, answer.json()) == (200, {NOUNS[noun]: [], "total": 0})
        assert behind.asked == []


async def test_a_server_may_have_resources_and_no_templates(lite: Served) -> None:
    async with upstream(lite, FakeMcp(capabilities={"resources": {}}, answers={"resources/list": {"resources": []}})) as made:
        answer = await lite.call("GET", f"/api/servers/{made['uuid']}/resource-templates")
        assert (answer.status_code, answer.json()["resourceTemplates"]) == (200, [])


@pytest.mark.requirement("bad-input.down-is-an-error")
@pytest.mark.parametrize(
    ("answer", "status"),
    [({"code": -32601, "message": "no"}, 502), ({"resources": {}}, 502), ({"resources": [{"name": "no uri"}]}, 502), ({}, 502)],
    ids=str,
)
async def test_a_list_that_cannot_be_had_is_an_error(lite: Served, answer: Json, status: int) -> None:
    async with upstream(lite, offering(**{"resources/list": answer})) as made:
        found = await lite.call("GET", f"/api/servers/{made['uuid']}/resources")
        assert (found.status_code, found.json()["error"]["code"]) == (status, "UPSTREAM_ERROR")


async def test_a_second_look_at_a_list_costs_no_question(lite: Served) -> None:
    behind = offering()
    async with upstream(lite, behind) as made:
        for _ in range(3):
            await lite.call("GET", f"/api/servers/{made['uuid']}/prompts")
        assert [message["method"] for message in behind.asked] == ["prompts/list"]


@pytest.mark.requirement("servers.lists-follow-list-changed")
@pytest.mark.parametrize(
    ("method", "again"),
    [
        ("notifications/resources/list_changed", {"resources", "resource-templates"}),
        ("notifications/prompts/list_changed", {"prompts"}),
        ("notifications/tools/list_changed", set()),
        ("notifications/message", set()),
    ],
)
async def test_a_list_is_asked_for_again_when_its_server_says_that_it_changed(lite: Served, method: str, again: set[str]) -> None:
    behind = offering()
    async with upstream(lite, behind) as made:

        async def asked_by(noun: str) -> int:
            before = len(behind.asked)
            assert (await lite.call("GET", f"/api/servers/{made['uuid']}/{noun}")).status_code == 200
            return len(behind.asked) - before

        assert [await asked_by(noun) for noun in NOUNS] == [1, 1, 1]
        target = await lite.app.hub.servers.visible((await lite.app.hub.keys.resolve(lite.key)).caller, made["uuid"])  # type: ignore[union-attr]
        lite.app.wiring.notification(target, method, {})
        assert {noun for noun in NOUNS if await asked_by(noun)} == again


@pytest.mark.requirement("servers.lists-of-all-servers")
async def test_all_servers_are_listed_together_and_who_failed_is_named(lite: Served) -> None:
    await lite.settled()
    async with upstream(lite, offering(), "alpha") as alpha, upstream(lite, offering(), "beta") as beta:
        down = await lite.register("gamma", "http://127.0.0.1:9/")
        answer = await lite.call("GET", "/api/resources")
        assert answer.status_code == 200, answer.text
        read = AllResources.model_validate(answer.json())
        ours = [r for r in read.resources if r["uri"] == RESOURCE["uri"]]
        assert [(r["_serverUuid"], r["_serverSlug"]) for r in ours] == [(alpha["uuid"], "alpha"), (beta["uuid"], "beta")]
        assert ours[0]["x-own"] == [1, None] and ours[0]["size"] == RESOURCE["size"]
        assert [(failure.server, failure.server_uuid) for failure in read.failures] == [("gamma", down["uuid"])]
        page = (await lite.call("GET", "/api/tools?limit=1&offset=1")).json()
        assert (len(page["tools"]), page["limit"], page["offset"], page["total"] > 2) == (1, 1, 1, True)
        AllTools.model_validate(page)
        await lite.call("DELETE", f"/api/servers/{down['uuid']}")


async def test_the_list_of_all_servers_is_that_of_the_keys_grant(lite: Served) -> None:
    async with upstream(lite, offering(), "alpha") as alpha, upstream(lite, offering(), "beta"):
        made = await lite.call("POST", "/api/auth/keys", {"name": "k", "servers": [alpha["uuid"]]})
        answer = await lite.call("GET", "/api/prompts", key=made.json()["key"])
        assert [prompt["_serverSlug"] for prompt in answer.json()["prompts"]] == ["alpha"]


@pytest.mark.requirement("bad-input.down-is-an-error")
async def test_when_no_server_could_be_asked_the_list_is_an_error(lite: Served) -> None:
    down = await lite.register("gamma", "http://127.0.0.1:9/")
    made = await lite.call("POST", "/api/auth/keys", {"name": "k", "servers": [down["uuid"]]})
    answer = await lite.call("GET", "/api/tools", key=made.json()["key"])
    assert answer.status_code == 502
    assert answer.json()["error"]["details"]["failures"][0]["server"] == "gamma"
    await lite.call("DELETE", f"/api/servers/{down['uuid']}")
