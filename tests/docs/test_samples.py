"""The documents' samples run: each stands in docs/snippets/ as it was printed, with the rest of a program beside it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.docs.samples import ROWS, SNIPPETS, filled
from tests.flows.packages import Packages
from tests.flows.running_hub import RunningHub

# A sample that looks every 30 s looks a hundred times as often here.
FASTER = "const later = globalThis.setInterval; globalThis.setInterval = (run, ms) => later(run, ms / 100);\n"
SUBSCRIBES = "GET /api/events" in ROWS


class Running:
    """A sample that runs, and what it prints, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def lines(self) -> Iterator[Any]:
        """What it prints, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def until(self, kind: str) -> Any:
        """The next line of that kind."""
        return next(line[kind] for line in self.lines() if kind in line)


@contextmanager
def running(name: str, values: dict[str, str], packages: Packages, tmp_path: Path) -> Iterator[Running]:
    """The sample of that name with its rest, as one program in Node.js; ended when the block ends."""
    program = tmp_path / f"{name}.mjs"
    parts = [(SNIPPETS / f"{name}{part}.js").read_text() for part in ("", ".rest")]
    program.write_text(FASTER + filled("\n".join(parts), values.__getitem__))
    command = [packages.node, "--no-warnings", "--experimental-eventsource", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, env=dict(os.environ)) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@pytest.fixture
def values(hub: RunningHub) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {hub.key}"}
    server = httpx2.get(f"{hub.url}/api/servers", headers=headers).json()["servers"][0]["uuid"]
    return {"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key, "PLUGHUB_SERVER": server}


@pytest.mark.requirement("around.monitoring-dashboard")
def test_the_monitoring_dashboard_loads_the_servers_and_looks_at_them(values: dict[str, str], packages: Packages, tmp_path: Path) -> None:
    with running("monitoring-dashboard", values, packages, tmp_path) as sample:
        assert sample.until("servers") == [{"uuid": values["PLUGHUB_SERVER"], "slug": "weather-server"}]
        for _ in range(2):
            health = sample.until("health")
            assert (health["uuid"], health["status"], health["last_error"]) == (values["PLUGHUB_SERVER"], "connected", None)


@pytest.mark.skipif(not SUBSCRIBES, reason="needs GET /api/events")
def test_the_monitoring_dashboard_hears_of_a_call(values: dict[str, str], packages: Packages, tmp_path: Path) -> None:
    execute = f"{values['PLUGHUB_URL']}/api/servers/{values['PLUGHUB_SERVER']}/tools/echo/execute"
    headers = {"Authorization": f"Bearer {values['PLUGHUB_KEY']}"}
    with running("monitoring-dashboard", values, packages, tmp_path) as sample:
        # It looks at the server all the time; a call before its subscription is open it does not hear.
        for line in sample.lines():
            if line.get("update", {}).get("event") == "tool.executed":
                assert line["update"]["data"]["server_uuid"] == values["PLUGHUB_SERVER"]
                break
            httpx2.post(execute, headers=headers, json={"parameters": {"text": "hello"}})
        else:
            pytest.fail("it ended")


def test_a_sample_differs_from_the_documents_in_nothing_but_what_is_replaced() -> None:
    """Every placeholder is one that the documents print."""
    for name in ("monitoring-dashboard",):
        text = (SNIPPETS / f"{name}.js").read_text()
        assert "https://plugged.in/api/events?token=${this.apiKey}" in text and "PLUGHUB" not in text
