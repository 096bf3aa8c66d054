"""Two servers of one name with 150 tools of the same names each, told in pages: nothing is lost, nothing is taken for another."""

import json
import re
import sys

import anyio
import mcp_types
import pytest
from mcp import Client, MCPError

from tests.fakes import many_tools
from tests.flows.doors import unwrapped
from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub
from tests.flows.test_official_clients import LEGACY, MODERN, connected, run_node

pytestmark = pytest.mark.anyio

COUNT = 150
NAMES = many_tools.names(COUNT)
# The protocol's rule for names of tools, at the length that all makers of models take.
VALID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Era and tools a page: the last page is full in one and not in the other.
KINDS = {"older": ("legacy", 25), "newer": ("modern", 7)}


@pytest.fixture(scope="module")
def both(hub: RunningHub) -> dict[str, Json]:
    """By the label that each answers with."""
    found = {}
    for label, (era, page) in KINDS.items():
        found[label] = hub.register("Many tools", sys.executable, [many_tools.__file__, label, era, str(COUNT), str(page)])
    return found


async def pages(client: Client) -> list[list[mcp_types.Tool]]:
    """Every page, followed by its cursor."""
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found.append(page.tools)
        cursor = page.next_cursor
        if cursor is None:
            return found


def theirs(both: dict[str, Json], tools: list[mcp_types.Tool]) -> dict[str, tuple[str, str]]:
    """The listed names of the two servers: whose it is and its name there, by its description."""
    begin = tuple(f"{server['slug']}__" for server in both.values())
    mine = [tool for tool in tools if tool.name.startswith(begin)]
    found = {tool.name: (tool.description or "").split(": ") for tool in mine}
    assert len(found) == len(mine), "a name is listed twice"
    return {name: (label, own) for name, (label, own) in found.items()}


@pytest.mark.requirement("mcp.many-tools", "mcp.all-servers-door", "clients.python-sdk")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_every_tool_is_listed_under_a_name_of_its_own_that_calls_it(hub: RunningHub, both: dict[str, Json], mode: str) -> None:
    with anyio.fail_after(40):
        async with connected(f"{hub.url}/mcp", hub.key, mode) as client:
            shown = theirs(both, [tool for page in await pages(client) for tool in page])
            assert sorted(shown.values()) == sorted((label, name) for label in both for name in NAMES)
            for name, (label, own) in shown.items():
                whole = f"{both[label]['slug']}__{own}"
                assert VALID.fullmatch(name)
                assert (name == whole) is (VALID.fullmatch(whole) is not None)
            for number, (name, (label, own)) in enumerate(shown.items()):
                result = await client.call_tool(name, {"number": number})
                said = unwrapped(result.model_dump(by_alias=True, mode="json", exclude_none=True))
                assert said == {"label": label, "tool": own, "arguments": {"number": number}}


@pytest.mark.requirement("mcp.many-tools", "clients.typescript-sdk")
@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ({"pin": MODERN}, MODERN)], ids=["legacy", "pinned"])
async def test_the_typescript_client_finds_and_calls_them_too(
    hub: RunningHub, packages: Packages, both: dict[str, Json], mode: str | Json, version: str
) -> None:
    with anyio.fail_after(30):
        async with connected(f"{hub.url}/mcp", hub.key, "auto") as client:
            shown = theirs(both, [tool for page in await pages(client) for tool in page])
    long = {name: told for name, told in shown.items() if len(name) == 64}
    assert len(long) > 40
    calls = [{"name": name, "arguments": {}} for name in long]
    printed = run_node(packages, "client.mjs", url=f"{hub.url}/mcp", key=hub.key, mode=mode, calls=calls)
    assert printed["version"] == version
    assert set(shown) <= set(printed["tools"])
    said = [json.loads(result["content"][0]["text"]) for result in printed["results"]]
    assert [(answer["label"], answer["tool"]) for answer in said] == list(long.values())


@pytest.mark.requirement("mcp.many-tools", "mcp.one-server-door", "clients.python-sdk")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
@pytest.mark.parametrize("label", KINDS)
async def test_the_door_of_one_server_passes_its_pages(hub: RunningHub, both: dict[str, Json], label: str, mode: str) -> None:
    _, size = KINDS[label]
    with anyio.fail_after(30):
        async with connected(f"{hub.url}/servers/{both[label]['uuid']}/mcp", hub.key, mode) as client:
            found = await pages(client)
    assert [tool.name for page in found for tool in page] == NAMES
    assert [len(page) for page in found[:-1]] == [size] * ((COUNT - 1) // size)


@pytest.mark.requirement("mcp.many-tools")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_cut_name_with_another_end_calls_nothing(hub: RunningHub, both: dict[str, Json], mode: str) -> None:
    whole = f"{both['older']['slug']}__{max(NAMES, key=len)}"
    with anyio.fail_after(30):
        async with connected(f"{hub.url}/mcp", hub.key, mode) as client:
            for name in (whole[:64], f"{whole[:57]}_ffffff", whole):
                with pytest.raises(MCPError, match="Unknown tool"):
                    await client.call_tool(name, {})
