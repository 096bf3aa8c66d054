"""The official clients, in Python and TypeScript, in both eras of the protocol, at both MCP doors."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.flows.packages import Packages
from tests.flows.running_hub import Json, RunningHub

pytestmark = pytest.mark.anyio

MODERN, LEGACY = "2026-07-28", "2025-11-25"
SUM = "The sum of 20 and 22 is 42."
# Server, tool, arguments: a modern upstream (demo, time) and a legacy one (everything).
CALLS: dict[str, tuple[str, Json, str]] = {
    "demo": ("generate_text", {"prompt": "the sea"}, "You asked: the sea"),
    "everything": ("get-sum", {"a": 20, "b": 22}, SUM),
    "time": ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}, "+9.0h"),
}


def place(hub: RunningHub, server: Json, tool: str, door: str) -> tuple[str, str]:
    """The address of a door, and the tool's name there."""
    if door == "all":
        return f"{hub.url}/mcp", f"{server['slug']}__{tool}"
    return f"{hub.url}/servers/{server['uuid']}/mcp", tool


@asynccontextmanager
async def connected(url: str, key: str, mode: str) -> AsyncIterator[Client]:
    """The official Python client at an address, with a key."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers) as http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        yield client


@pytest.mark.requirement("clients.python-sdk", "mcp.all-servers-door", "mcp.one-server-door", "mcp.progress")
@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), (MODERN, MODERN), ("auto", MODERN)])
@pytest.mark.parametrize("door", ["all", "one"])
@pytest.mark.parametrize("name", CALLS)
async def test_the_python_client_lists_and_calls(
    hub: RunningHub, real_servers: dict[str, Json], name: str, door: str, mode: str, version: str
) -> None:
    tool, arguments, expected = CALLS[name]
    url, shown = place(hub, real_servers[name], tool, door)
    pieces: list[str | None] = []

    async def keep(progress: float, total: float | None, message: str | None) -> None:
        pieces.append(message)

    with anyio.fail_after(30):
        async with connected(url, hub.key, mode) as client:
            assert client.protocol_version == version
            assert shown in [row.name for row in (await client.list_tools()).tools]
            result = await client.call_tool(shown, arguments, progress_callback=keep)
    assert isinstance(block := result.content[0], mcp_types.TextContent)
    assert expected in block.text
    if name == "demo":
        assert "".join(piece or "" for piece in pieces) == block.text


def run_node(packages: Packages, program: str, **job: Any) -> Json:
    """One of `clients/*.mjs`; what it printed."""
    command = [packages.node, str(packages.clients / program), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    printed: Json = json.loads(done.stdout)
    return printed


def check_printed(printed: Json, shown: str, name: str, version: str) -> None:
    _, _, expected = CALLS[name]
    assert printed["version"] == version
    assert shown in printed["tools"]
    [result] = printed["results"]
    text = result["content"][0]["text"]
    assert expected in text
    if name == "demo":
        assert "".join(update["message"] for update in printed["progress"]) == text


@pytest.mark.requirement("clients.typescript-sdk")
@pytest.mark.parametrize(
    ("mode", "version"), [("legacy", LEGACY), ({"pin": MODERN}, MODERN), ("auto", MODERN)], ids=["legacy", "pinned", "auto"]
)
@pytest.mark.parametrize("door", ["all", "one"])
@pytest.mark.parametrize("name", ["demo", "everything"])
def test_the_typescript_client_lists_and_calls(
    hub: RunningHub, packages: Packages, real_servers: dict[str, Json], name: str, door: str, mode: Any, version: str
) -> None:
    tool, arguments, _ = CALLS[name]
    url, shown = place(hub, real_servers[name], tool, door)
    printed = run_node(packages, "client.mjs", url=url, key=hub.key, mode=mode, calls=[{"name": shown, "arguments": arguments}])
    check_printed(printed, shown, name, version)


@pytest.mark.requirement("clients.typescript-sdk", "mcp.legacy-handshake")
@pytest.mark.parametrize("door", ["all", "one"])
@pytest.mark.parametrize("name", ["demo", "everything"])
def test_the_first_typescript_sdk_lists_and_calls(
    hub: RunningHub, packages: Packages, real_servers: dict[str, Json], name: str, door: str
) -> None:
    tool, arguments, _ = CALLS[name]
    url, shown = place(hub, real_servers[name], tool, door)
    printed = run_node(packages, "sdk_v1.mjs", url=url, key=hub.key, calls=[{"name": shown, "arguments": arguments}])
    check_printed(printed, shown, name, LEGACY)


@pytest.mark.requirement("mcp.challenge")
async def test_a_client_with_a_wrong_key_is_told_so(hub: RunningHub) -> None:
    with anyio.fail_after(20), pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        async with connected(f"{hub.url}/mcp", hub.key[:-1], "legacy"):
            pass


@pytest.mark.requirement("mcp.profile-door", "clients.python-sdk")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_python_client_calls_a_renamed_tool_of_a_profile(hub: RunningHub, mode: str) -> None:
    demo = hub.demo()
    profile = hub.api("POST", "/api/profiles", {"name": f"Renaming {mode}"}).json()
    told = {"tools": {"echo": {"name": "say"}, "add": {"enabled": False}}}
    assert hub.api("PUT", f"/api/profiles/{profile['uuid']}/servers/{demo['uuid']}", told).status_code == 200
    with anyio.fail_after(30):
        async with connected(profile["mcp_url"], hub.key, mode) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert f"{demo['slug']}__say" in names
            assert not {f"{demo['slug']}__{name}" for name in ("echo", "add")} & names
            result = await client.call_tool(f"{demo['slug']}__say", {"text": "hello"})
            assert isinstance(block := result.content[0], mcp_types.TextContent)
            assert block.text == "hello"
            with pytest.raises(MCPError):
                await client.call_tool(f"{demo['slug']}__add", {"a": 1, "b": 2})
