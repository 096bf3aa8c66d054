"""The Postman collection as its readers use it: fetched from the hub and run by Postman's own runner."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.flows import packages
from tests.flows.running_hub import RunningHub


@pytest.mark.timeout(300)  # a first run installs the runner
@pytest.mark.requirement("routes.postman-collection")
def test_the_whole_collection_runs_with_an_address_and_a_key(hub: RunningHub, tmp_path: Path) -> None:
    newman = packages.install_newman()
    collection, report = tmp_path / "postman.json", tmp_path / "report.json"
    collection.write_text(hub.api("GET", "/api/postman.json", key="").text)
    before = servers_and_keys(hub)
    variables = ["--env-var", f"base_url={hub.url}", "--env-var", f"api_key={hub.key}"]
    reporters = ["--reporters", "json", "--reporter-json-export", str(report), "--color", "off", "--timeout-request", "10000"]
    command = [str(packages.NODE), newman, "run", str(collection), *variables, *reporters]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    run = json.loads(report.read_text())["run"]
    failed = [(failure["source"]["name"], failure["error"]["message"]) for failure in run["failures"]]
    assert (failed, done.returncode) == ([], 0), done.stderr
    # Five requests make a server and two a document; those that remove them are sent again for each.
    asked = requests_in(json.loads(collection.read_text())) + 5
    assert run["stats"]["assertions"]["total"] == run["stats"]["requests"]["total"] == asked
    assert servers_and_keys(hub) == before, "what was there before the run is there after it, and nothing else that lives"


def requests_in(collection: dict[str, list[dict[str, list[object]]]]) -> int:
    return sum(len(folder["item"]) for folder in collection["item"])


def servers_and_keys(hub: RunningHub) -> list[str]:
    servers = [row["uuid"] for row in hub.api("GET", "/api/servers").json()["servers"]]
    return servers + [row["id"] for row in hub.api("GET", "/api/auth/keys?status=active&limit=100").json()["keys"]]
