"""The documents' samples as programs: filled with a hub's own address, key and ids, run, and what they print."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer
from plughub.kit.ids import public_id
from plughub.settings import Settings
from tests.docs.snippets import DOCS
from tests.flows.packages import Packages
from tests.flows.person import EMAIL, PASSWORD
from tests.flows.running_hub import RunningHub

SNIPPETS = DOCS / "snippets"
PLACEHOLDERS: dict[str, str] = json.loads((SNIPPETS / "placeholders.json").read_text())
MANIFEST: list[dict[str, str]] = tomllib.loads((SNIPPETS / "manifest.toml").read_text())["sample"]
ROWS = frozenset(
    f"{row.method} {row.path}" for row in create_app(Settings(), Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)}))).rows
)
CALLBACK = "https://app.example/callback"
_LATER = "2031-12-31T23:59:59Z"
_FIRST_ANSWER = re.compile(r"^const (\w+) = await fetch\(", re.MULTILINE)
_TELLS_JS = "\nif (!{0}.ok) throw new Error(`${{{0}.status}} ${{await {0}.text()}}`);\nconsole.log(JSON.stringify(await {0}.json()));\n"
_TELLS_PYTHON = "\nimport json\nassert response.ok, response.text\nprint(json.dumps(response.json()))\n"


@dataclass(frozen=True)
class Done:
    """What a program has printed."""

    out: str
    err: str

    def json(self) -> Any:
        """Its output as JSON; None when it printed nothing."""
        return json.loads(self.out) if self.out.strip() else None


def missing(name: str) -> str | None:
    """The route that a sample needs and the hub has not got."""
    [needs] = {sample.get("needs") for sample in MANIFEST if sample.get("file") == name}
    return needs if needs is not None and needs not in ROWS else None


class World:
    """What stands for the documents' placeholders at a hub. Things are made when a sample names them."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self._own: dict[str, Callable[[], str]] = {
            "PLUGHUB_URL": lambda: hub.url,
            "PLUGHUB_KEY": lambda: hub.key,
            "PLUGHUB_SERVER": lambda: hub.demo()["uuid"],
            "PLUGHUB_TOOL": lambda: "get_weather",
            "PLUGHUB_MCP": lambda: public_id("mcp", hub.demo()["uuid"]),
            "PLUGHUB_PROFILE": lambda: hub.demo()["profile_uuid"],
            "PLUGHUB_KEY_ID": lambda: self.key()["id"],
            "PLUGHUB_LATER": lambda: _LATER,
            "PLUGHUB_CALLBACK": lambda: CALLBACK,
            "PLUGHUB_EMAIL": lambda: EMAIL,
            "PLUGHUB_PASSWORD": lambda: f"'{PASSWORD}'",
            "PLUGHUB_STDIO": lambda: "type: 'STDIO', config: { command: 'true' }",
            "PLUGHUB_SSE": lambda: "type: 'SSE', config: { url: 'https://example.com/sse' }",
        }

    def filled(self, text: str, given: Mapping[str, str] | None = None) -> str:
        """The sample with the hub's own in the place of the documents'."""
        given = given or {}
        return filled(text, lambda name: given[name] if name in given else self._own[name]())

    def key(self, **body: Any) -> dict[str, Any]:
        """A new key, with its secret."""
        answer = self.hub.api("POST", "/api/auth/keys", {"name": "For a sample", **body})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def server(self, name: str = "For a sample") -> str:
        """The uuid of a new server."""
        return str(self.hub.register(name, "true", [])["uuid"])


def filled(text: str, value: Callable[[str], str]) -> str:
    """A sample with every placeholder that it prints replaced, and nothing else: `${uuid}` is JavaScript's own."""
    for printed, name in PLACEHOLDERS.items():
        pattern = r"(?<!\$)" + re.escape(printed)
        if re.search(pattern, text):
            text = re.sub(pattern, value(name).replace("\\", r"\\"), text)
    return text


def sample(name: str) -> str:
    """The sample as it is printed."""
    return (SNIPPETS / name).read_text()


def program(name: str) -> str:
    """A sample in JavaScript with what stands around it, or else with a line that prints the answer it fetched."""
    text, stem = sample(name), name.removesuffix(".js")
    before, rest = SNIPPETS / f"{stem}.before.js", SNIPPETS / f"{stem}.rest.js"
    found = _FIRST_ANSWER.search(text)
    after = rest.read_text() if rest.exists() else _TELLS_JS.format(found[1]) if found else ""
    return "\n".join([*([before.read_text()] if before.exists() else []), text, after])


def run_js(text: str, packages: Packages, folder: Path, env: Mapping[str, str] | None = None, options: tuple[str, ...] = ()) -> Done:
    """A module of Node.js, run to its end."""
    file = folder / f"sample-{os.getpid()}.mjs"
    file.write_text(text)
    try:
        return _run([packages.node, "--no-warnings", *options, str(file)], env)
    finally:
        file.unlink()


def run_python(text: str, folder: Path) -> Done:
    """A program in Python, run to its end; it prints its `response`."""
    file = folder / "sample.py"
    file.write_text(text + _TELLS_PYTHON)
    return _run([sys.executable, str(file)])


def run_sh(text: str) -> Done:
    """Commands of a shell."""
    return _run(["/bin/sh", "-eu", "-c", text])


def run_http(text: str, hub: RunningHub) -> Any:
    """A request line and, after an empty line, a body; the answer's body, None when it has none."""
    head, _, body = text.partition("\n\n")
    method, path = head.split()
    answer = hub.api(method, path, json.loads(body) if body else None)
    assert answer.status_code < 400, answer.text
    return answer.json() if answer.content else None


def same_shape(documented: Any, found: Any, place: str = "body") -> list[str]:
    """Where an answer lacks what the documents show, or has another kind of value there. Their values are examples."""
    if isinstance(documented, dict) and isinstance(found, dict):
        lacking = [f"{place}.{name} is missing" for name in documented if name not in found]
        return lacking + [
            line for name in documented if name in found for line in same_shape(documented[name], found[name], f"{place}.{name}")
        ]
    if isinstance(documented, list) and isinstance(found, list):
        return [line for item in found for line in same_shape(documented[0], item, f"{place}[]")] if found else [f"{place} is empty"]
    return [] if type(documented) is type(found) else [f"{place} is {found!r}"]


def documented_json(name: str) -> Any:
    """JSON as the documents show it, an object where they leave it out."""
    return json.loads(sample(name).replace("{...}", "{}"))


def _run(command: list[str], env: Mapping[str, str] | None = None) -> Done:
    given = {**os.environ, **(env or {})}
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return Done(done.stdout, done.stderr)


def client_of(world: World) -> dict[str, str]:
    """An app with a secret, as the documents' flow has it."""
    answer: httpx2.Response = world.hub.api("POST", "/api/oauth/apps", {"name": "A sample", "redirect_uris": [CALLBACK]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return {"PLUGHUB_CLIENT_ID": made["client_id"], "PLUGHUB_CLIENT_SECRET": made["client_secret"]}
