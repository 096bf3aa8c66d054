"""What a newcomer reads after the first start works as printed."""

import json
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.flows.running_hub import RunningHub

KEY = re.compile(r"\b(?:pk|sk)_live_ph_[0-9A-Za-z]{38}\b")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub at its very first start, its key on the screen."""
    with RunningHub(tmp_path_factory.mktemp("first") / "data", key_file=False) as hub:
        yield hub


def printed_curl(output: str) -> str:
    """The command as one would copy it, continued lines included."""
    lines = iter(output.splitlines())
    for line in lines:
        if line.strip().startswith("curl "):
            command = [line]
            while command[-1].rstrip().endswith("\\"):
                command.append(next(lines))
            return "\n".join(command)
    raise AssertionError(f"no curl in:\n{output}")


def printed_config(output: str) -> dict[str, Any]:
    """The JSON with `mcpServers`."""
    for found in re.finditer(r"{", output):
        try:
            value, _ = json.JSONDecoder().raw_decode(output[found.start() :])
        except ValueError:
            continue
        if "mcpServers" in value:
            config: dict[str, Any] = value
            return config
    raise AssertionError(f"no mcp.json in:\n{output}")


@pytest.mark.requirement("run.first-start-prints-the-way-in", "demo.registered-on-first-start", "clients.curl")
def test_the_printed_curl_calls_a_real_tool(first: RunningHub) -> None:
    done = subprocess.run(["/bin/sh", "-c", printed_curl(first.output)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    result = answer["data"]["result"] if "data" in answer else answer["result"]
    assert result["conditions"]
    assert isinstance(result["temperature"], int)


@pytest.mark.anyio
@pytest.mark.requirement("run.first-start-prints-the-way-in")
async def test_a_client_configured_with_the_printed_snippet_sees_the_tools(first: RunningHub) -> None:
    [server] = printed_config(first.output)["mcpServers"].values()
    with anyio.fail_after(30):
        async with (
            httpx2.AsyncClient(headers=server["headers"]) as http,
            Client(streamable_http_client(server["url"], http_client=http)) as client,
        ):
            names = [tool.name for tool in (await client.list_tools()).tools]
    assert "weather-server__get_weather" in names


@pytest.mark.requirement("run.first-start-prints-the-way-in")
def test_the_key_and_the_address_are_printed(first: RunningHub) -> None:
    [key] = set(KEY.findall(first.output))
    answer = first.api("GET", "/api/servers", key=key)
    assert answer.status_code == 200
    assert [server["slug"] for server in answer.json()["servers"]] == ["weather-server"]


@pytest.mark.requirement("run.stdio-is-announced-unsandboxed")
def test_it_is_said_that_stdio_servers_run_unsandboxed(first: RunningHub) -> None:
    assert "sandbox" in first.output


@pytest.mark.requirement("run.operator-key-shown-once", "run.second-start-keeps-everything")
def test_the_key_is_printed_once_and_works_for_ever(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "data", key_file=False) as hub:
        [key] = set(KEY.findall(hub.output))
        assert hub.stop() == 0
    with RunningHub(tmp_path / "data", key_file=False) as hub:
        assert not KEY.search(hub.output)
        assert hub.api("GET", "/api/servers", key=key).status_code == 200


@pytest.mark.requirement("run.operator-key-shown-once")
def test_a_key_that_goes_into_a_file_is_not_printed(hub: RunningHub) -> None:
    assert KEY.fullmatch(hub.key)
    assert stat.S_IMODE(hub.key_file.stat().st_mode) == 0o600
    assert not KEY.search(hub.output)
