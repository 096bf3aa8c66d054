"""Eight real servers in one profile: what the official clients see and call there, in both eras."""

import asyncio
import os
from functools import partial

import anyio
import anyio.to_thread
import mcp_types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.flows.doors import unwrapped
from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub
from tests.flows.test_official_clients import LEGACY, MODERN, connected, run_node

pytestmark = pytest.mark.anyio

GRACE = {"name": "Grace", "entityType": "person", "observations": ["found the first bug"]}
PAGE = b"<html><head><title>Harbour</title></head><body><h1>Harbour</h1><p>Eleven boats came in last night.</p></body></html>"
RENAMED = "read_page"


@pytest.fixture(scope="module")
def members(hub: RunningHub, packages: Packages, real_servers: dict[str, Json]) -> dict[str, Json]:
    """The seven real servers and mcp-server-fetch, which may fetch from this machine."""
    fetch = hub.register("fetch", packages.python, ["-m", "mcp_server_fetch", "--allow-private-ips"])
    return {**{name: server for name, server in real_servers.items() if name != "demo"}, "fetch": fetch}


@pytest.fixture(scope="module")
def profile(hub: RunningHub, members: dict[str, Json]) -> Json:
    """A profile, in a project of its own, that has them all by reference and calls one tool otherwise."""
    project = made(hub, "/api/projects", {"name": "Eight servers"})
    profile = made(hub, "/api/profiles", {"name": "All eight", "project_uuid": project["uuid"]})
    for name, server in members.items():
        told = {"tools": {"fetch": {"name": RENAMED}}} if name == "fetch" else {}
        answer = hub.api("PUT", f"/api/profiles/{profile['uuid']}/servers/{server['uuid']}", told)
        assert answer.status_code == 200, answer.text
    return profile


def made(hub: RunningHub, path: str, body: Json) -> Json:
    answer = hub.api("POST", path, body)
    assert answer.status_code == 201, answer.text
    new: Json = answer.json()
    return new


async def told(server: Json) -> list[mcp_types.Tool]:
    """The tools that a server tells the official client without a hub between them."""
    config = server["config"]
    parameters = StdioServerParameters(command=config["command"], args=config["args"])
    with open(os.devnull, "w") as errors:
        async with Client(stdio_client(parameters, errlog=errors), mode="auto") as client:
            return (await client.list_tools()).tools


async def harbour(seen: Seen, _: asyncio.StreamWriter) -> bytes:
    """A site of one page and no robots.txt."""
    return reply(200, PAGE, "text/html") if seen.target == "/harbour" else reply(404, b"", "text/plain")


@pytest.fixture(scope="module")
def expected(members: dict[str, Json]) -> dict[str, Json]:
    """What the profile must list: under each name the definition that the server tells without the hub."""

    async def everywhere() -> dict[str, Json]:
        return {shown_name(name, server, tool.name): definition(tool) for name, server in members.items() for tool in await told(server)}

    return anyio.run(everywhere)


def shown_name(name: str, server: Json, tool: str) -> str:
    return f"{server['slug']}__{RENAMED if name == 'fetch' else tool}"


def definition(tool: mcp_types.Tool) -> Json:
    """All but its name."""
    return tool.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"name"})


@pytest.mark.requirement("clients.eight-servers-one-profile", "mcp.profile-door", "clients.python-sdk")
@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), (MODERN, MODERN)])
async def test_a_profile_lists_every_tool_of_its_servers_and_nothing_else(
    hub: RunningHub, profile: Json, expected: dict[str, Json], mode: str, version: str
) -> None:
    with anyio.fail_after(30):
        async with connected(profile["mcp_url"], hub.key, mode) as client:
            assert client.protocol_version == version
            listed = await client.list_tools()
    assert profile["mcp_url"] == f"{hub.url}/mcp/{profile['slug']}"
    assert listed.next_cursor is None
    assert len(listed.tools) == len(expected) > 50
    assert {tool.name: definition(tool) for tool in listed.tools} == expected


@pytest.mark.requirement("clients.eight-servers-one-profile", "mcp.profile-door", "clients.python-sdk")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_python_client_calls_each_server_of_a_profile(
    hub: RunningHub, members: dict[str, Json], profile: Json, mode: str
) -> None:
    with anyio.fail_after(40):
        async with HttpServer(harbour) as site, connected(profile["mcp_url"], hub.key, mode) as client:
            calls = calls_of_each(members, site.port)
            results = [await client.call_tool(call["name"], call["arguments"]) for call in calls]
            assert [seen.target for seen in site.seen] == ["/robots.txt", "/harbour"]
    check(calls, [result.model_dump(by_alias=True, mode="json", exclude_none=True) for result in results])


@pytest.mark.requirement("clients.eight-servers-one-profile", "mcp.profile-door", "clients.typescript-sdk")
@pytest.mark.parametrize(
    ("program", "job", "version"),
    [("client.mjs", {"mode": "legacy"}, LEGACY), ("client.mjs", {"mode": {"pin": MODERN}}, MODERN), ("sdk_v1.mjs", {}, LEGACY)],
    ids=["legacy", "pinned", "first-sdk"],
)
async def test_the_typescript_clients_list_and_call_each_server_of_a_profile(
    hub: RunningHub,
    packages: Packages,
    members: dict[str, Json],
    profile: Json,
    expected: dict[str, Json],
    program: str,
    job: Json,
    version: str,
) -> None:
    async with HttpServer(harbour) as site:
        calls = calls_of_each(members, site.port)
        asked = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
        run = partial(run_node, packages, program, url=profile["mcp_url"], key=hub.key, calls=asked, **job)
        printed = await anyio.to_thread.run_sync(run)
        assert [seen.target for seen in site.seen] == ["/robots.txt", "/harbour"]
    assert printed["version"] == version
    assert sorted(printed["tools"]) == sorted(expected)
    check(calls, printed["results"])


def calls_of_each(members: dict[str, Json], port: int) -> list[Json]:
    """A call of each server under the profile's names, and what its answer must hold; `port` is that of the site."""
    folder = members["filesystem"]["config"]["args"][-1]
    repository = members["git"]["config"]["args"][-1]
    tokyo = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    thought = {"thought": "Look.", "nextThoughtNeeded": True, "thoughtNumber": 1, "totalThoughts": 2}
    asked = [
        ("memory", "create_entities", {"entities": [GRACE]}, ""),
        ("memory", "open_nodes", {"names": ["Grace"]}, "found the first bug"),
        ("everything", "get-sum", {"a": 20, "b": 22}, "The sum of 20 and 22 is 42."),
        ("filesystem", "read_text_file", {"path": f"{folder}/hello.txt"}, "hello from a file"),
        ("thinking", "sequentialthinking", thought, "totalThoughts"),
        ("time", "convert_time", tokyo, "+9.0h"),
        ("git", "git_status", {"repo_path": repository}, "No commits yet"),
        ("sqlite", "read_query", {"query": "SELECT 40 + 2 AS answer"}, "42"),
        ("fetch", RENAMED, {"url": f"http://127.0.0.1:{port}/harbour"}, "Eleven boats came in last night."),
    ]
    return [{"name": f"{members[name]['slug']}__{tool}", "arguments": given, "holds": holds} for name, tool, given, holds in asked]


def check(calls: list[Json], results: list[Json]) -> None:
    """Each answer is a success and holds what only the right server says."""
    for call, result in zip(calls, results, strict=True):
        assert call["holds"] in str(unwrapped(result)), call["name"]
