"""The fixture as a server of one era: what it refuses, and that it refuses it as such servers do."""

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.conformance.run import FIXTURE, FIXTURE_START_S, fixture
from tests.flows.packages import ROOT
from tests.flows.running_hub import environment

Json = dict[str, Any]
META = "io.modelcontextprotocol/"
INITIALIZE: Json = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
ENVELOPE: Json = {"_meta": {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}}
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "server/discover"}
UNSUPPORTED = {"supported": ["2026-07-28"], "requested": "2025-11-25"}


def request(method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def post(url: str, message: Json, **headers: str) -> httpx2.Response:
    given = {"Accept": "application/json, text/event-stream", **headers}
    return httpx2.post(url, json=message, headers=given, timeout=20)


@pytest.mark.requirement("conformance.fixture-of-one-era")
def test_an_old_server_over_http_takes_the_handshake_and_looks_for_a_session_in_a_modern_request() -> None:
    with fixture("legacy") as url:
        refused = post(url, request("server/discover", ENVELOPE), **MODERN_HEADERS)
        opened = post(url, request("initialize", INITIALIZE))
    assert (refused.status_code, refused.json()["id"], refused.json()["error"]["code"]) == (400, "server-error", -32600)
    assert opened.status_code == 200
    assert "mcp-session-id" in opened.headers


@pytest.mark.requirement("conformance.fixture-of-one-era")
def test_a_new_server_over_http_names_its_versions_to_a_handshake_and_has_no_sessions() -> None:
    with fixture("modern") as url:
        refused = post(url, request("initialize", INITIALIZE))
        found = post(url, request("server/discover", ENVELOPE), **MODERN_HEADERS)
        listening = httpx2.get(url, headers={"Accept": "text/event-stream"}, timeout=20)
    assert refused.status_code == 400
    assert (refused.json()["id"], refused.json()["error"]["code"], refused.json()["error"]["data"]) == (7, -32022, UNSUPPORTED)
    assert found.json()["result"]["supportedVersions"] == ["2026-07-28"]
    assert (listening.status_code, listening.headers["allow"]) == (405, "POST")


@contextmanager
def over_stdio(era: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*FIXTURE, "--stdio", "--era", era], cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def exchanged(running: subprocess.Popen[bytes], message: Json) -> Json:
    assert running.stdin and running.stdout
    running.stdin.write(json.dumps(message).encode() + b"\n")
    running.stdin.flush()
    assert select.select([running.stdout], [], [], FIXTURE_START_S)[0], "no answer"
    answer: Json = json.loads(running.stdout.readline())
    assert answer["id"] == 7
    return answer


@pytest.mark.requirement("conformance.fixture-of-one-era")
def test_an_old_server_over_stdio_does_not_know_discover_and_then_takes_the_handshake() -> None:
    with over_stdio("legacy") as running:
        assert exchanged(running, request("server/discover", ENVELOPE))["error"]["code"] == -32602
        assert exchanged(running, request("initialize", INITIALIZE))["result"]["protocolVersion"] == "2025-11-25"


@pytest.mark.requirement("conformance.fixture-of-one-era")
def test_a_new_server_over_stdio_refuses_the_handshake_and_answers_discover() -> None:
    with over_stdio("modern") as running:
        error = exchanged(running, request("initialize", INITIALIZE))["error"]
        assert (error["code"], error["data"]) == (-32022, UNSUPPORTED)
        assert exchanged(running, request("server/discover", ENVELOPE))["result"]["supportedVersions"] == ["2026-07-28"]
