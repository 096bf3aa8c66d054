"""Real servers from npm and PyPI, registered through the API and called through every door."""

import json
import subprocess
from typing import Any

import pytest

from tests.flows.doors import DOORS, POSTS
from tests.flows.running_hub import PLUGHUB, Json, RunningHub, environment
from tests.flows.waiting import until

ADA = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
THOUGHT = {"thought": "what now", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}
FOLDER = "the server's last argument"
CALLS: dict[str, tuple[str, Json]] = {
    "memory": ("open_nodes", {"names": ["Ada"]}),
    "everything": ("get-sum", {"a": 20, "b": 22}),
    "time": ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
    "filesystem": ("list_allowed_directories", {}),
    "thinking": ("sequentialthinking", THOUGHT),
    "git": ("git_branch", {"repo_path": FOLDER, "branch_type": "local"}),
    "sqlite": ("read_query", {"query": "SELECT 40 + 2 AS answer"}),
    "demo": ("get_weather", {"location": "San Francisco, CA"}),
}


def call_of(name: str, server: Json) -> tuple[str, Json]:
    """The tool and its arguments."""
    tool, arguments = CALLS[name]
    return tool, {key: server["config"]["args"][-1] if value is FOLDER else value for key, value in arguments.items()}


def check(name: str, result: Any) -> None:
    """What the server is known to answer."""
    if name == "memory":
        assert [entity["name"] for entity in result["entities"]] == ["Ada"]
    elif name == "everything":
        assert result == "The sum of 20 and 22 is 42."
    elif name == "filesystem":
        assert "files" in str(result)
    elif name == "thinking":
        assert result["thoughtHistoryLength"] >= 1
    elif name == "git":
        assert isinstance(result, str)
    elif name == "sqlite":
        assert "42" in str(result)
    elif name == "time":
        assert result["time_difference"] == "+9.0h"
    else:
        assert (result["temperature"], result["unit"]) == (65, "fahrenheit")


@pytest.fixture(scope="module", autouse=True)
def someone_to_remember(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    """The memory server knows one person."""
    answer = hub.execute(real_servers["memory"], "create_entities", {"entities": [ADA]})
    assert answer.status_code == 200, answer.text


@pytest.mark.requirement(
    "clients.seven-servers",
    "clients.server-memory",
    "clients.server-everything",
    "clients.server-time",
    "clients.curl",
    "call.one-way-through",
)
@pytest.mark.parametrize("program", POSTS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", CALLS)
def test_a_real_server_answers_through_every_door(
    hub: RunningHub, real_servers: dict[str, Json], name: str, door: str, program: str
) -> None:
    tool, arguments = call_of(name, real_servers[name])
    check(name, DOORS[door](POSTS[program], hub, real_servers[name], tool, arguments))


@pytest.mark.requirement("clients.seven-servers")
@pytest.mark.parametrize("name", CALLS)
def test_a_real_server_answers_the_command_line(hub: RunningHub, real_servers: dict[str, Json], name: str) -> None:
    tool, arguments = call_of(name, real_servers[name])
    command = [PLUGHUB, "--json", "call", real_servers[name]["uuid"], tool, json.dumps(arguments)]
    settings = environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key})
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    check(name, json.loads(done.stdout)["result"])


@pytest.mark.requirement("servers.live-status")
@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_was_called_is_connected(hub: RunningHub, real_servers: dict[str, Json], name: str) -> None:
    tool, arguments = call_of(name, real_servers[name])
    assert hub.execute(real_servers[name], tool, arguments).status_code == 200
    server = hub.server(real_servers[name]["uuid"])
    assert (server["status"], server["last_error"]) == ("connected", None)


@pytest.mark.requirement("servers.tools-list")
def test_the_tools_come_as_the_server_sent_them(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    tools = hub.api("GET", f"/api/servers/{real_servers['everything']['uuid']}/tools").json()["tools"]
    structured = next(tool for tool in tools if tool["name"] == "get-structured-content")
    assert structured["outputSchema"]["type"] == "object"
    assert len(tools) >= 10
    until(lambda: hub.server(real_servers["everything"]["uuid"])["tools_count"] == len(tools), "tools_count")


@pytest.mark.requirement("servers.secrets-come-back-masked")
def test_the_environment_of_a_server_comes_back_masked(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    assert hub.server(real_servers["memory"]["uuid"])["config"]["env"] == {"MEMORY_FILE_PATH": "***"}


@pytest.mark.requirement("servers.child-environment")
def test_a_child_inherits_nothing_of_the_hubs_environment(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    seen = hub.execute(real_servers["everything"], "get-env", {}).json()["result"]
    assert set(seen) <= {"PATH", "HOME", "LANG"}
    assert seen["PATH"]


@pytest.mark.requirement("call.execute-stream")
def test_progress_of_a_real_server_reaches_the_caller_over_rest(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    path = f"/api/servers/{real_servers['everything']['uuid']}/tools/trigger-long-running-operation/execute"
    answer = hub.api("POST", path, {"parameters": {"duration": 0.4, "steps": 4}}, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    events = [line.removeprefix("event:").strip() for line in answer.text.splitlines() if line.startswith("event:")]
    assert events == ["progress"] * 4 + ["result"]


@pytest.mark.requirement("servers.resources-and-prompts-listed", "servers.resources-read", "servers.prompts-get")
def test_resources_and_prompts_of_a_real_server_reach_the_caller(hub: RunningHub, real_servers: dict[str, Json]) -> None:
    server = f"/api/servers/{real_servers['everything']['uuid']}"
    resources = hub.api("GET", f"{server}/resources").json()["resources"]
    read = hub.api("POST", f"{server}/resources/read", {"uri": resources[0]["uri"]})
    assert read.json()["contents"][0]["uri"] == resources[0]["uri"]
    assert hub.api("GET", f"{server}/resource-templates").json()["total"] >= 1
    prompts = {prompt["name"]: prompt for prompt in hub.api("GET", f"{server}/prompts").json()["prompts"]}
    got = hub.api("POST", f"{server}/prompts/simple-prompt/get", {})
    assert "simple-prompt" in prompts and got.json()["messages"][0]["content"]["type"] == "text"
    assert hub.api("POST", f"{server}/resources/read", {"uri": "nothing://here"}).status_code == 404
