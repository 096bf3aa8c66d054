"""The documents' automated provisioning runs as it was printed: a project, servers of a template in it, integrations, a notification."""

import json
import subprocess
from pathlib import Path

import pytest

from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer
from plughub.settings import Settings
from tests.docs.snippets import DOCS
from tests.flows.packages import Packages
from tests.flows.running_hub import RunningHub

SNIPPETS = DOCS / "snippets"
NAME = "server-provisioner"
ROWS = {(row.method, row.path) for row in create_app(Settings(), Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)}))).rows}
# Steps that the sample takes where the hub has the routes.
NOTIFIES = ("POST", "/api/notifications") in ROWS
INTEGRATES = any(path.startswith("/api/integrations/") for _, path in ROWS)


@pytest.mark.requirement("registry.provisioning")
def test_the_provisioning_makes_a_project_with_the_servers_of_its_template(hub: RunningHub, packages: Packages, tmp_path: Path) -> None:
    text = "\n".join((SNIPPETS / f"{NAME}{part}.js").read_text() for part in ("", ".rest"))
    for printed, name in json.loads((SNIPPETS / "placeholders.json").read_text()).items():
        text = text.replace(printed, {"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key}.get(name, printed))
    program = tmp_path / f"{NAME}.mjs"
    program.write_text(text)
    done = subprocess.run([packages.node, str(program)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = ["project", "installed", "installed", *["integrated"] * INTEGRATES, *["notified"] * NOTIFIES, "done"]
    assert [next(iter(line)) for line in lines] == steps
    project = lines[-1]["done"]
    assert {line["installed"]["profile_uuid"] for line in lines if "installed" in line} == {project["default_profile_uuid"]}
    assert hub.api("GET", f"/api/projects/{project['uuid']}").json()["name"] == "Project of ada"
    for line in lines[1:3]:
        assert hub.execute(line["installed"], "echo", {"text": "hello"}).json()["result"] == "hello"


def test_the_sample_is_the_documents_own() -> None:
    text = (SNIPPETS / f"{NAME}.js").read_text()
    assert "provisionForUser(userId, template)" in text and "PLUGHUB" not in text and "plugged.in" not in text
