"""mcp-remote between the hub and a client that knows STDIO alone, as people put it into such a client's file."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.client.stdio import stdio_client

from tests.flows import packages
from tests.flows.running_hub import Json, RunningHub, environment
from tests.flows.test_official_clients import CALLS, LEGACY, MODERN

# A first run installs mcp-remote.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.requirement("clients.mcp-remote", "clients.python-sdk")]

MODES = [("legacy", LEGACY), (MODERN, MODERN), ("auto", MODERN)]


@asynccontextmanager
async def through(url: str, header: str, home: Path, mode: str, **more: Any) -> AsyncIterator[Client]:
    """The official Python client of an mcp-remote; the header's value comes from its environment, and its files go below `home`."""
    words = [packages.install_remote(), url, "--allow-http", "--transport", "http-only", "--header", "Authorization:${AUTH_HEADER}"]
    env = environment({"HOME": str(home), "AUTH_HEADER": header})
    with (home / "errors").open("w") as errors, anyio.fail_after(40):
        parameters = StdioServerParameters(command=str(packages.NODE), args=words, env=env)
        async with Client(stdio_client(parameters, errlog=errors), mode=mode, **more) as client:
            yield client


@pytest.mark.requirement("mcp.all-servers-door", "mcp.progress")
@pytest.mark.parametrize(("mode", "version"), MODES)
async def test_a_stdio_client_lists_and_calls_through_it(
    hub: RunningHub, real_servers: dict[str, Json], tmp_path: Path, mode: str, version: str
) -> None:
    pieces: list[str | None] = []

    async def keep(progress: float, total: float | None, message: str | None) -> None:
        pieces.append(message)

    async with through(f"{hub.url}/mcp", f"Bearer {hub.key}", tmp_path, mode) as client:
        assert client.protocol_version == version
        names = {tool.name for tool in (await client.list_tools()).tools}
        for server, (tool, arguments, expected) in CALLS.items():
            shown = f"{real_servers[server]['slug']}__{tool}"
            assert shown in names
            pieces.clear()
            result = await client.call_tool(shown, arguments, progress_callback=keep)
            assert isinstance(block := result.content[0], mcp_types.TextContent)
            assert expected in block.text
            if server == "demo":
                assert "".join(piece or "" for piece in pieces) == block.text


@pytest.fixture(scope="module")
def asking(hub: RunningHub) -> Json:
    """A server of the older revisions that asks its client."""
    return hub.register("asked through", sys.executable, ["-m", "tests.conformance.fixture_server", "--stdio", "--era", "legacy"])


async def accept(context: ClientRequestContext, params: mcp_types.ElicitRequestParams) -> mcp_types.ElicitResult:
    return mcp_types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})


@pytest.mark.requirement("mcp.input-in-any-pairing")
@pytest.mark.parametrize(("mode", "version"), MODES)
async def test_a_server_asks_a_stdio_client_through_it(hub: RunningHub, asking: Json, tmp_path: Path, mode: str, version: str) -> None:
    url = f"{hub.url}/servers/{asking['uuid']}/mcp"
    async with through(url, f"Bearer {hub.key}", tmp_path, mode, elicitation_callback=accept) as client:
        assert client.protocol_version == version
        result = await client.call_tool("test_elicitation", {"message": "Who are you?"})
    assert isinstance(block := result.content[0], mcp_types.TextContent)
    assert "ada@example.com" in block.text
