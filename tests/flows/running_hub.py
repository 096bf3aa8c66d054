"""The hub as a user runs it: a process of its own, talked to over HTTP and by its printed output, never imported."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from tests.flows.waiting import until

PLUGHUB = str(Path(sys.executable).parent / "plughub")
URL = re.compile(r"http://(?:127\.0\.0\.1|localhost):\d+")
START_S = 30
STOP_S = 20
Json = dict[str, Any]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a login shell has, and no setting of the hub but `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLUGHUB_")}
    return {**kept, **(extra or {})}


class RunningHub:
    """`plughub serve` on a free port; use as a context manager."""

    def __init__(self, data_dir: Path, *, key_file: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.key_file = data_dir.with_name(data_dir.name + ".key")
        self._with_key_file = key_file
        self._settings = settings
        self._lines: list[str] = []
        self.key = ""
        self.url = ""

    def command(self) -> list[str]:
        """The command line; the port is chosen by the system."""
        command = [PLUGHUB, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(self.data_dir)]
        return [*command, "--operator-key-file", str(self.key_file)] if self._with_key_file else command

    def __enter__(self) -> "RunningHub":
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(self._settings)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = until(self._find_url, "the address in the output", START_S)
            self._client = httpx2.Client(base_url=self.url, timeout=60)
            until(self._is_ready, "/ready", START_S)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.output}") from None
        if self._with_key_file:
            self.key = self.key_file.read_text().strip()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit code. A hub that does not end fails the test."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Wait for the process to end; the exit code."""
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the hub did not stop within {STOP_S} s\n{self.output}") from None
        self._reader.join(STOP_S)
        return code

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_S)

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    def api(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One request as the operator, or with another key ("" = none)."""
        key = self.key if key is None else key
        given = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        return (
            self._client.request(method, path, json=body, headers=given)
            if body is not None
            else self._client.request(method, path, headers=given)
        )

    def register(self, name: str, command: str, args: list[str], env: Mapping[str, str] | None = None) -> Json:
        """A new STDIO server; what the hub answers."""
        config = {"command": command, "args": args, "env": dict(env or {})}
        answer = self.api("POST", "/api/servers", {"name": name, "type": "STDIO", "config": config})
        assert answer.status_code == 201, answer.text
        server: Json = answer.json()
        return server

    def server(self, uuid: str) -> Json:
        """The server as it is now."""
        answer = self.api("GET", f"/api/servers/{uuid}")
        assert answer.status_code == 200, answer.text
        server: Json = answer.json()
        return server

    def demo(self) -> Json:
        """The demo server that every hub begins with."""
        [found] = [row for row in self.api("GET", "/api/servers").json()["servers"] if row["slug"] == "weather-server"]
        server: Json = found
        return server

    def execute(self, server: Json, tool: str, parameters: Json, **more: Any) -> httpx2.Response:
        """Call a tool through `/api`."""
        return self.api("POST", f"/api/servers/{server['uuid']}/tools/{tool}/execute", {"parameters": parameters, **more})

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.append(line.decode("utf-8", "replace"))
        self.process.stdout.close()

    def _find_url(self) -> str | None:
        if self.process.poll() is not None:
            raise AssertionError(f"the hub ended with code {self.process.returncode}")
        found = URL.search(self.output)
        return found.group() if found else None

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/ready").status_code == 200
        except httpx2.TransportError:
            return False
