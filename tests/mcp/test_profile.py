"""`/mcp/{profile_slug}`: one profile as an MCP endpoint."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from plughub.gateway.names import aggregate_name, aggregate_uri
from tests.mcp.answers import error
from tests.mcp.test_everything import CAPABILITIES, offering
from tests.serving import FakeMcp, Json, Served, text_result, upstream

pytestmark = pytest.mark.anyio
LONG = "x" * 70


@dataclass
class Place:
    """A profile `desk` with the servers alpha and beta by reference, and gamma beside it."""

    served: Served
    slug: str
    uuid: str
    fakes: dict[str, FakeMcp]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/mcp/{self.slug}"

    async def say(self, slug: str, **told: object) -> None:
        answer = await self.served.call("PUT", f"/api/profiles/{self.uuid}/servers/{self.ids[slug]}", told)
        assert answer.status_code == 200, answer.text

    async def tools(self, modern: bool = False) -> list[Json]:
        found: list[Json] = (await self.served.rpc("tools/list", path=self.path, modern=modern)).json()["result"]["tools"]
        return found

    async def names(self) -> list[str]:
        return [tool["name"] for tool in await self.tools()]


def server(name: str, era: str) -> FakeMcp:
    behind = offering(name, era)
    behind.capabilities = CAPABILITIES
    behind.tools = [
        {"name": tool, "description": f"{tool} of {name}", "inputSchema": {"type": "object"}, "x-own": [1, None]}
        for tool in ("echo", "send", LONG)
    ]
    behind.results = {tool: text_result(f"{name} {tool}") for tool in ("echo", "send", LONG)}
    return behind


@pytest.fixture
async def desk(lite: Served) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        fakes = {"alpha": server("alpha", "legacy"), "beta": server("beta", "modern"), "gamma": server("gamma", "legacy")}
        made = {name: await stack.enter_async_context(upstream(lite, fake, name)) for name, fake in fakes.items()}
        profile = (await lite.call("POST", "/api/profiles", {"name": "Desk"})).json()
        place = Place(lite, profile["slug"], profile["uuid"], fakes, {name: one["uuid"] for name, one in made.items()})
        for name in ("alpha", "beta"):
            await place.say(name)
        yield place
        await lite.call("DELETE", f"/api/profiles/{place.uuid}")


async def called(desk: Place, name: str, modern: bool = False) -> str:
    answer = await desk.served.rpc("tools/call", {"name": name, "arguments": {}}, path=desk.path, modern=modern)
    text: str = answer.json()["result"]["content"][0]["text"]
    return text


@pytest.mark.requirement("mcp.profile-door")
async def test_a_profile_is_an_endpoint_of_its_members_alone(desk: Place) -> None:
    long = {slug: aggregate_name(slug, LONG) for slug in ("alpha", "beta")}
    assert await desk.names() == [name for slug in ("alpha", "beta") for name in (f"{slug}__echo", f"{slug}__send", long[slug])]
    for modern in (False, True):
        assert await called(desk, "alpha__echo", modern) == "alpha echo"
        assert await called(desk, long["beta"], modern) == f"beta {LONG}"
        listed = (await desk.served.rpc("resources/list", path=desk.path, modern=modern)).json()["result"]["resources"]
        assert {resource["uri"].split("+")[0] for resource in listed} == {"plughub.alpha", "plughub.beta"}
        prompts = (await desk.served.rpc("prompts/list", path=desk.path, modern=modern)).json()["result"]["prompts"]
        assert [prompt["name"] for prompt in prompts] == ["alpha__greeting", "beta__greeting"]
        templates = (await desk.served.rpc("resources/templates/list", path=desk.path, modern=modern)).json()["result"]
        assert len(templates["resourceTemplates"]) == 2
        got = await desk.served.rpc("prompts/get", {"name": "beta__greeting"}, path=desk.path, modern=modern)
        assert got.json()["result"]["messages"][0]["content"]["text"] == "beta"
        ref = {"ref": {"type": "ref/prompt", "name": "alpha__greeting"}, "argument": {"name": "a", "value": ""}}
        done = await desk.served.rpc("completion/complete", ref, path=desk.path, modern=modern)
        assert done.json()["result"]["completion"]["values"] == ["alpha"]
    hello = await desk.served.rpc("initialize", {"protocolVersion": "2025-11-25"}, path=desk.path)
    assert hello.json()["result"]["serverInfo"] == {**hello.json()["result"]["serverInfo"], "name": "plughub", "title": "Desk"}


@pytest.mark.requirement("mcp.profile-door")
async def test_what_is_not_in_the_profile_looks_unknown(desk: Place) -> None:
    await desk.say("beta", enabled=False)
    assert [name for name in await desk.names() if not name.startswith("alpha__")] == []
    unknown = await desk.served.rpc("tools/call", {"name": "nobody__echo"}, path=desk.path)
    for slug in ("beta", "gamma"):
        answer = await desk.served.rpc("tools/call", {"name": f"{slug}__echo"}, path=desk.path)
        assert (answer.status_code, error(answer)["code"]) == (unknown.status_code, error(unknown)["code"])
        assert error(answer)["message"].replace(slug, "nobody") == error(unknown)["message"]
        read = await desk.served.rpc("resources/read", {"uri": aggregate_uri(slug, "memo://one")}, path=desk.path)
        assert error(read)["code"] == -32002
        own = await desk.served.rpc("resources/read", {"uri": f"only://{slug}"}, path=desk.path)
        assert error(own)["code"] == -32002
        got = await desk.served.rpc("prompts/get", {"name": f"{slug}__greeting"}, path=desk.path)
        assert error(got)["data"]["code"] == "TOOL_NOT_FOUND"
        assert not desk.fakes[slug].calls
    found = await desk.served.rpc("resources/read", {"uri": "only://alpha"}, path=desk.path)
    assert found.json()["result"]["contents"][0]["text"] == "alpha"


@pytest.mark.requirement("mcp.profile-door")
async def test_tools_are_switched_off_renamed_and_described_anew(desk: Place) -> None:
    renamed, cut = "post_letter", "y" * 60
    await desk.say("alpha", tools={"echo": {"enabled": False}, "send": {"name": renamed, "description": "By mail"}, LONG: {"name": cut}})
    shown = {tool["name"]: tool for tool in await desk.tools()}
    long = aggregate_name("alpha", cut)
    assert [name for name in shown if name.startswith("alpha__")] == [f"alpha__{renamed}", long]
    assert shown[f"alpha__{renamed}"]["description"] == "By mail"
    assert shown[f"alpha__{renamed}"]["x-own"] == [1, None]
    for modern in (False, True):
        assert await called(desk, f"alpha__{renamed}", modern) == "alpha send"
        assert await called(desk, long, modern) == f"alpha {LONG}"
    assert [seen.json["params"]["name"] for seen in desk.fakes["alpha"].calls] == ["send", LONG] * 2
    unknown = await desk.served.rpc("tools/call", {"name": "alpha__nothing"}, path=desk.path)
    for name in ("echo", "send"):
        answer = await desk.served.rpc("tools/call", {"name": f"alpha__{name}"}, path=desk.path)
        assert error(answer)["message"].replace(name, "nothing") == error(unknown)["message"]
        assert (answer.status_code, error(answer)["code"], error(answer)["data"]["code"]) == (200, -32602, "TOOL_NOT_FOUND")
    off = await desk.served.rpc("tools/call", {"name": aggregate_name("alpha", LONG)}, path=desk.path)
    assert error(off)["data"]["code"] == "TOOL_NOT_FOUND"
    everywhere = (await desk.served.rpc("tools/list")).json()["result"]["tools"]
    assert {"alpha__echo", "alpha__send"} <= {tool["name"] for tool in everywhere}


@pytest.mark.requirement("mcp.profile-door", "routes.foreign-is-missing")
async def test_missing_foreign_and_not_granted_profiles_look_alike(desk: Place) -> None:
    lite = desk.served
    other = await lite.key_of(await lite.organization("Elsewhere"))
    none = await lite.key_of(await lite.operator(), servers=[desk.ids["gamma"]])
    some = await lite.key_of(await lite.operator(), servers=[desk.ids["beta"], desk.ids["gamma"]])
    answers = [
        await lite.rpc("tools/list", path="/mcp/no-such", key=lite.key),
        await lite.rpc("tools/list", path=desk.path, key=other),
        await lite.rpc("tools/list", path=desk.path, key=none),
    ]
    for answer in answers:
        told = {**answer.json()["error"]["data"], "request_id": ""}
        assert (answer.status_code, error(answer)["message"], answer.json()["id"]) == (404, "Profile not found", None)
        assert told == {**answers[0].json()["error"]["data"], "request_id": ""}
    listed = (await lite.rpc("tools/list", path=desk.path, key=some)).json()["result"]["tools"]
    assert {tool["name"].partition("__")[0] for tool in listed} == {"beta"}
    refused = await lite.rpc("tools/call", {"name": "alpha__echo"}, path=desk.path, key=some)
    assert error(refused)["data"]["code"] == "TOOL_NOT_FOUND"


@pytest.mark.requirement("mcp.profile-door", "mcp.sessions")
async def test_a_session_belongs_to_its_profile(desk: Place) -> None:
    lite = desk.served
    other = (await lite.call("POST", "/api/profiles", {"name": "Shelf"})).json()
    opened = await lite.rpc("initialize", {"protocolVersion": "2025-11-25"}, path=desk.path)
    headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
    assert (await lite.rpc("ping", path=desk.path, headers=headers)).status_code == 200
    for path in ("/mcp", f"/mcp/{other['slug']}", f"/servers/{desk.ids['alpha']}/mcp"):
        assert (await lite.rpc("ping", path=path, headers=headers)).status_code == 404
    assert (await lite.call("DELETE", desk.path, headers=headers)).status_code == 204
    assert (await lite.rpc("ping", path=desk.path, headers=headers)).status_code == 404
    await lite.call("DELETE", f"/api/profiles/{other['uuid']}")


@pytest.mark.requirement("mcp.profile-door", "mcp.challenge")
async def test_a_profile_tells_its_address_and_a_401_its_metadata(desk: Place) -> None:
    told = (await desk.served.call("GET", f"/api/profiles/{desk.uuid}")).json()
    assert told["mcp_url"] == f"http://localhost{desk.path}"
    challenge = (await desk.served.rpc("tools/list", path=desk.path, key="")).headers["www-authenticate"]
    metadata = challenge.split('resource_metadata="')[1].split('"')[0]
    assert metadata == f"http://localhost/.well-known/oauth-protected-resource{desk.path}"
    assert (await desk.served.client.get(metadata)).json()["resource"] == told["mcp_url"]
