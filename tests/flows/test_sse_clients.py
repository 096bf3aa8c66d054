"""The official Python client of the old HTTP+SSE transport against a running hub."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import mcp_types
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.sse import sse_client

from tests.flows.running_hub import Json, RunningHub

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def asking(hub: RunningHub) -> Json:
    """A server of the older revisions that asks its client."""
    return hub.register("asking", sys.executable, ["-m", "tests.conformance.fixture_server", "--stdio", "--era", "legacy"])


async def accept(context: ClientRequestContext, params: mcp_types.ElicitRequestParams) -> mcp_types.ElicitResult:
    return mcp_types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})


@asynccontextmanager
async def connected(hub: RunningHub, path: str, mode: str = "legacy") -> AsyncIterator[Client]:
    stream = sse_client(hub.url + path, headers={"Authorization": f"Bearer {hub.key}"})
    with anyio.fail_after(30):
        async with Client(stream, mode=mode, elicitation_callback=accept) as client:
            yield client


@pytest.mark.requirement("mcp.legacy-sse-door", "clients.python-sdk")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_python_client_lists_and_calls_over_the_older_transport(hub: RunningHub, mode: str) -> None:
    demo, pieces = hub.demo(), []

    async def keep(progress: float, total: float | None, message: str | None) -> None:
        pieces.append(message)

    for path, prefix in (("/sse", f"{demo['slug']}__"), (f"/servers/{demo['uuid']}/sse", "")):
        pieces.clear()
        async with connected(hub, path, mode) as client:
            assert client.protocol_version == "2025-11-25"
            assert f"{prefix}generate_text" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool(f"{prefix}generate_text", {"prompt": "the sea"}, progress_callback=keep)
            assert isinstance(block := result.content[0], mcp_types.TextContent)
            assert block.text == "".join(piece or "" for piece in pieces)
            assert len((await client.list_resources()).resources) >= 1


@pytest.mark.requirement("mcp.legacy-sse-door")
async def test_a_server_asks_a_client_of_the_older_transport(hub: RunningHub, asking: Json) -> None:
    for path, prefix in (("/sse", f"{asking['slug']}__"), (f"/servers/{asking['uuid']}/sse", "")):
        async with connected(hub, path) as client:
            result = await client.call_tool(f"{prefix}test_elicitation", {"message": "Who are you?"})
            assert isinstance(block := result.content[0], mcp_types.TextContent)
            assert "ada@example.com" in block.text
