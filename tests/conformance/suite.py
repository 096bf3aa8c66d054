"""The official suite as a program: installed once, run for one server or one client scenario, its results read."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import compare
from tests.flows.packages import NODE, ROOT, npm_folder
from tests.flows.running_hub import environment
from tests.flows.waiting import until

PINS = ("@modelcontextprotocol/conformance@0.2.0-alpha.12",)
MODERN, LEGACY = "2026-07-28", "2025-11-25"
SCENARIO_MS = 12_000
SERVER_RUN_S = 75
CLIENT_RUN_S = 25
# Scenarios about signing in need an authorization server between client and hub, which the hub does not have.
AUTH = "auth/"


@dataclass(frozen=True)
class Suite:
    """Where it is installed, and when everything has to be over, by the monotonic clock."""

    folder: Path
    deadline: float = math.inf

    @classmethod
    def installed(cls, limit_s: float) -> "Suite":
        """Install it when it is missing; the limit begins afterwards."""
        folder = npm_folder("conformance", PINS) / "node_modules" / "@modelcontextprotocol" / "conformance"
        return cls(folder, time.monotonic() + limit_s)

    def scored(self, leg: str, revision: str) -> list[str]:
        """What the revision requires of a `server` or a `client`, but for signing in."""
        text = (self.folder / "requirements" / f"{revision}.yaml").read_text()
        return [name for name in required(text, leg) if not name.startswith(AUTH)]

    def server(self, url: str, revision: str, out: Path) -> compare.Results:
        """Run every server scenario of the revision against `url`, scored or not. A run that takes too long is cut; what it did counts."""
        command = ["server", "--url", url, "--requirements", revision, "--timeout", str(SCENARIO_MS), "-o", str(out)]
        self._run(command, out, SERVER_RUN_S, {})
        return compare.read(out)

    def client(self, scenario: str, revision: str, out: Path, more: Mapping[str, str]) -> None:
        """Run one client scenario with our driver; `more` is its environment."""
        driver = f"{sys.executable} -m tests.conformance.client_driver"
        command = ["client", "--command", driver, "--scenario", scenario, "--spec-version", revision]
        self._run([*command, "--timeout", str(SCENARIO_MS), "-o", str(out)], out.with_name(f"{out.name}-{scenario}"), CLIENT_RUN_S, more)

    def authorization(self, url: str, client_id: str, out: Path, answer: Callable[[str], None]) -> compare.Results:
        """Run the scenarios of authorization servers against an issuer; `answer` is called with the address that a browser is to open."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["authorization", "--url", url, "--client-id", client_id, "--resource", f"{url}/mcp", "--port", str(port), "-o", str(out)]
        log = out.with_name(f"{out.name}.log")
        log.unlink(missing_ok=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self._run, command, out, CLIENT_RUN_S, {})
            answer(until(lambda: _find_address(log), "the address to open", CLIENT_RUN_S))
            running.result()
        return compare.read(out)

    def _run(self, command: list[str], log: Path, limit_s: float, more: Mapping[str, str]) -> None:
        whole = [str(NODE), str(self.folder / "dist" / "index.js"), *command]
        limit_s = min(limit_s, self.deadline - time.monotonic())
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.with_name(f"{log.name}.log").open("w") as writing:
            if limit_s <= 0:
                writing.write("not run: the time is over\n")
                return
            running = subprocess.Popen(
                whole,
                cwd=ROOT,
                env={**environment(), **more},
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                running.wait(limit_s)
            except subprocess.TimeoutExpired:
                writing.write(f"\ncut after {limit_s:.0f} s\n")
            finally:
                # The driver is a child of the suite's shell.
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def _find_address(log: Path) -> str | None:
    found = re.search(r"http://\S+/oauth/authorize\?\S+", log.read_text()) if log.exists() else None
    return found.group() if found else None


def required(text: str, leg: str) -> list[str]:
    """The scenarios below `leg:` in the suite's list of requirements, which uses nothing of YAML but this."""
    found, inside = [], False
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            inside = line == f"{leg}:"
        elif inside and line.startswith("  - "):
            found.append(line[4:].strip())
    return found
