"""The MCP Inspector's command line in front of the hub, as somebody uses it to look at a server."""

import json
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.flows import packages
from tests.flows.running_hub import PLUGHUB, Json, RunningHub, environment

# A first run installs the Inspector.
pytestmark = [pytest.mark.timeout(300), pytest.mark.requirement("clients.inspector")]

SUM = "The sum of 20 and 22 is 42."
ERAS = ["legacy", "modern", "auto"]


class Inspector:
    """Its command line, with a home of its own: it keeps files there."""

    def __init__(self, script: str, home: Path) -> None:
        self._command = [str(packages.NODE), script, "--cli", "--format", "json", "--quiet"]
        self._environment = environment({"HOME": str(home)})

    def run(self, *words: str) -> CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words], env=self._environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        )

    def read(self, *words: str) -> Json:
        """What it printed, of a run that ended well."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        printed: Json = json.loads(done.stdout)
        found: Json = printed.get("result", printed)
        return found


@pytest.fixture
def inspector(tmp_path: Path) -> Inspector:
    return Inspector(packages.install_inspector(), tmp_path)


@pytest.fixture
def door(hub: RunningHub) -> list[str]:
    """What leads it to `/mcp`."""
    return [f"{hub.url}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {hub.key}"]


@pytest.mark.requirement("mcp.all-servers-door")
@pytest.mark.parametrize("era", ERAS)
def test_it_lists_and_calls_tools_of_servers_of_both_eras(
    inspector: Inspector, door: list[str], real_servers: dict[str, Json], era: str
) -> None:
    there = [*door, "--protocol-era", era]
    tools = {tool["name"]: tool for tool in inspector.read(*there, "--method", "tools/list")["tools"]}
    added = f"{real_servers['everything']['slug']}__get-sum"
    converted = f"{real_servers['time']['slug']}__convert_time"
    assert tools[added]["inputSchema"]["required"] == ["a", "b"]
    called = inspector.read(*there, "--method", "tools/call", "--tool-name", added, "--tool-arg", "a=20", "b=22")
    assert called["content"] == [{"type": "text", "text": SUM}]
    tokyo = json.dumps({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"})
    called = inspector.read(*there, "--method", "tools/call", "--tool-name", converted, "--tool-args-json", tokyo)
    assert "+9.0h" in called["content"][0]["text"]


@pytest.mark.requirement("mcp.aggregated-resources-and-prompts")
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_it_reads_resources_and_gets_prompts_under_the_names_that_it_lists(
    inspector: Inspector, door: list[str], real_servers: dict[str, Json], era: str
) -> None:
    there, slug = [*door, "--protocol-era", era], real_servers["everything"]["slug"]
    uris = [row["uri"] for row in inspector.read(*there, "--method", "resources/list")["resources"]]
    uri = next(uri for uri in uris if uri.startswith(f"plughub.{slug}+"))
    [content] = inspector.read(*there, "--method", "resources/read", "--uri", uri)["contents"]
    # What a server says passes unchanged, its own URIs too.
    assert content["uri"] == uri.partition("+")[2] and "architecture" in content["text"].lower()
    prompt = f"{slug}__args-prompt"
    assert prompt in [row["name"] for row in inspector.read(*there, "--method", "prompts/list")["prompts"]]
    got = inspector.read(*there, "--method", "prompts/get", "--prompt-name", prompt, "--prompt-args", "city=Paris")
    assert "Paris" in got["messages"][0]["content"]["text"]


@pytest.mark.requirement("mcp.one-server-door")
@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("name", ["demo", "everything", "time"])
def test_it_finds_nothing_wrong_with_the_schemas_of_tools(
    hub: RunningHub, inspector: Inspector, door: list[str], real_servers: dict[str, Json], name: str, era: str
) -> None:
    there = [f"{hub.url}/servers/{real_servers[name]['uuid']}/mcp", *door[1:], "--protocol-era", era]
    assert inspector.read(*there, "--method", "tools/list", "--strict")["tools"]


@pytest.mark.requirement("cli.client-config", "cli.connect")
@pytest.mark.parametrize("client", ["claude", "claude-code"])
def test_it_takes_the_files_that_client_config_prints(hub: RunningHub, inspector: Inspector, tmp_path: Path, client: str) -> None:
    environ = environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY_FILE": str(hub.key_file)})
    printed = subprocess.run([PLUGHUB, "client-config", client], env=environ, capture_output=True, text=True, check=True).stdout
    file = tmp_path / "mcp.json"
    file.write_text(printed.replace("${PLUGHUB_KEY}", hub.key))
    there = ["--config", str(file), "--server", "plughub"]
    assert "weather-server__echo" in [tool["name"] for tool in inspector.read(*there, "--method", "tools/list")["tools"]]
    called = inspector.read(*there, "--method", "tools/call", "--tool-name", "weather-server__echo", "--tool-arg", "text=hello")
    assert called["content"] == [{"type": "text", "text": "hello"}]


@pytest.mark.requirement("mcp.challenge")
def test_without_a_key_it_understands_that_it_needs_one(hub: RunningHub, inspector: Inspector) -> None:
    done = inspector.run(f"{hub.url}/mcp", "--transport", "http", "--method", "tools/list")
    assert (done.returncode, done.stdout) == (3, "")
    assert json.loads(done.stderr)["error"]["code"] == "auth_required"
