"""The pages are true: every snippet runs against a live hub and gives what the page shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from docs.errors_page import PAGE as ERRORS
from docs.errors_page import every, render
from tests.docs.snippets import DOCS, RUN, SHOWN, Snippet, blocks, complaints, snippets
from tests.flows.packages import Packages
from tests.flows.running_hub import PLUGHUB, RunningHub

PAGES = sorted(page.name for page in DOCS.glob("*.md") if page.name != "settings.md")
MARK = "-- next snippet --"


def environment(hub: RunningHub, packages: Packages) -> dict[str, str]:
    paths = [str(Path(packages.node).parent), str(Path(PLUGHUB).parent), os.environ["PATH"]]
    return {**os.environ, "PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key, "PATH": os.pathsep.join(paths)}


def shell(code: list[str], given: dict[str, str]) -> list[str]:
    """The outputs of snippets that run one after the other in one shell."""
    script = f"\necho '{MARK}'\n".join(code)
    done = subprocess.run(["/bin/sh", "-eu", "-c", script], env=given, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(f"{MARK}\n")


def program(snippet: Snippet, given: dict[str, str], packages: Packages, tmp_path: Path) -> str:
    """The output of a program of its own."""
    # Node looks for a program's imports beside the program.
    file = tmp_path / "snippet.py" if snippet.language == "python" else packages.clients / f"snippet-{os.getpid()}.mjs"
    file.write_text(snippet.code)
    command = [sys.executable, str(file)] if snippet.language == "python" else [packages.node, str(file)]
    try:
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    finally:
        file.unlink()
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.requirement("around.docs-run")
@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_of_a_page_does_what_the_page_shows(hub: RunningHub, packages: Packages, tmp_path: Path, page: str) -> None:
    found = snippets((DOCS / page).read_text())
    given = environment(hub, packages)
    outputs = iter(shell([snippet.code for snippet in found if snippet.language == "sh"], given))
    for snippet in found:
        output = next(outputs) if snippet.language == "sh" else program(snippet, given, packages, tmp_path)
        assert complaints(snippet, output) == [], f"{snippet.code}\n{output}"


@pytest.mark.anyio
@pytest.mark.requirement("around.docs-run")
async def test_the_file_for_clients_connects(hub: RunningHub) -> None:
    text = (DOCS / "connect-a-client.md").read_text()
    [config] = [json.loads(code) for language, code, *_ in blocks(text) if language == "json" and "mcpServers" in code]
    entry = config["mcpServers"]["plughub"]
    headers = {"Authorization": entry["headers"]["Authorization"].replace("pk_live_ph_…", hub.key)}
    url = entry["url"].replace("http://localhost:12005", hub.url)
    with anyio.fail_after(30):
        async with httpx2.AsyncClient(headers=headers) as http, Client(streamable_http_client(url, http_client=http)) as client:
            assert "weather-server__get_weather" in [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.requirement("around.docs-run")
def test_every_block_is_run_or_shown_and_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text()
        assert {language for language, *_ in blocks(text)} <= {*RUN, *SHOWN, "console"}, page
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (DOCS / link).exists(), f"{page}: {link}"


@pytest.mark.requirement("around.errors-page")
def test_the_page_of_errors_is_the_generated_one() -> None:
    assert ERRORS.read_text() == render(), "run `make docs`"


@pytest.mark.requirement("around.errors-page")
def test_every_error_has_a_remedy() -> None:
    assert [error.__name__ for error in every() if not error.hint] == []


def test_a_page_without_a_block_has_nothing_to_run() -> None:
    assert snippets("# A page\n\nWith `code` in a line.\n") == []
    assert snippets("```sh\ntrue\n```\n") == [Snippet("sh", "true\n")]


def test_what_is_not_as_shown_is_found() -> None:
    shown = Snippet("sh", "", '{"a": "key_…", "b": [{"c": 1}]}', "json")
    assert complaints(shown, '{"a": "key_1", "b": [{"c": 2}, {"c": 1, "d": 1}], "e": 1}') == []
    assert len(complaints(shown, '{"a": "id_1", "b": [{"c": 2}]}')) == 2
    assert complaints(Snippet("sh", "", "a…c"), "a b\nc") == []
    assert len(complaints(Snippet("sh", "", "a…c"), "a b")) == 1
