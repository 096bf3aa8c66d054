"""`plughub connect`: the hub as a STDIO server, driven by the official Python client and by hand."""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import anyio
import mcp_types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.flows.running_hub import PLUGHUB, RunningHub, environment

pytestmark = pytest.mark.anyio
MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = "io.modelcontextprotocol/"
Json = dict[str, Any]


def settings(hub: RunningHub, **more: str) -> dict[str, str]:
    return environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key, **more})


def parameters(hub: RunningHub, *words: str) -> StdioServerParameters:
    return StdioServerParameters(command=PLUGHUB, args=["connect", *words], env=settings(hub))


def modern(id_: Any, method: str, **params: Any) -> Json:
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, META + "clientInfo": {"name": "t", "version": "1"}}
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": {**params, "_meta": {**meta, **params.get("_meta", {})}}}


def legacy(id_: Any, method: str, **params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def said(hub: RunningHub, *lines: Any, words: tuple[str, ...] = (), environ: Mapping[str, str] | None = None) -> list[Json]:
    """What comes out for the lines, then the end of stdin; every line of it is a JSON-RPC message."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = subprocess.run(
        [PLUGHUB, "connect", *words], input=text.encode(), capture_output=True, timeout=30, env=dict(environ or settings(hub)), check=False
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(message["jsonrpc"] == "2.0" for message in messages)
    return messages


@pytest.mark.requirement("cli.connect", "clients.python-sdk")
@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), (MODERN, MODERN), ("auto", MODERN)])
@pytest.mark.parametrize("one", [False, True])
async def test_the_python_client_lists_and_calls_over_stdio(hub: RunningHub, mode: str, version: str, one: bool) -> None:
    words, prefix = (("weather-server",), "") if one else ((), "weather-server__")
    pieces: list[str | None] = []

    async def keep(progress: float, total: float | None, message: str | None) -> None:
        pieces.append(message)

    with anyio.fail_after(30):
        async with Client(stdio_client(parameters(hub, *words)), mode=mode) as client:
            assert client.protocol_version == version
            assert f"{prefix}echo" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool(f"{prefix}generate_text", {"prompt": "the sea"}, progress_callback=keep)
            assert isinstance(block := result.content[0], mcp_types.TextContent)
            assert "".join(piece or "" for piece in pieces) == block.text
            several: list[Any] = []

            async def add(number: int) -> None:
                several.append(await client.call_tool(f"{prefix}add", {"a": number, "b": 1}))

            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(add, number)
    assert sorted(int(answer.content[0].text) for answer in several) == list(range(1, 21))


@pytest.mark.requirement("cli.connect")
def test_names_that_no_header_can_carry_pass(hub: RunningHub) -> None:
    for name in ("é", " echo", "=?base64?x?=", "a\nb"):
        [answer] = said(hub, modern("é\n", "tools/call", name=name, arguments={}), words=("weather-server",))
        assert answer["id"] == "é\n"
        assert "-32020" not in json.dumps(answer), "the header must match the body"


@pytest.mark.requirement("cli.connect")
def test_errors_of_the_hub_carry_the_id_of_their_request(hub: RunningHub) -> None:
    lines = (
        legacy(7, "tools/list"),
        legacy("x", "no/such"),
        modern(8.5, "tools/call", name="nope"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "1.0", "id": 9, "method": "tools/list"},
        "[]",
        "nonsense",
        "",
    )
    answers = {json.dumps(answer["id"]): answer for answer in said(hub, *lines)}
    assert set(answers) == {"7", '"x"', "8.5", "9", "null"}
    assert answers["7"]["result"]["tools"] and answers['"x"']["error"]["code"] == -32601
    for environ, word in (
        (settings(hub, PLUGHUB_KEY=hub.key[:-1]), "key"),
        (settings(hub, PLUGHUB_URL="http://127.0.0.1:1"), "cannot be reached"),
    ):
        first, second = said(hub, legacy(1, "initialize"), legacy("two", "tools/list"), environ=environ)
        assert (first["id"], second["id"]) == (1, "two")
        assert word in first["error"]["message"] and word in second["error"]["message"]
        assert hub.key[:-1] not in json.dumps([first, second])


@pytest.mark.requirement("cli.connect")
def test_the_end_of_stdin_waits_for_the_answers(hub: RunningHub) -> None:
    call = legacy(1, "tools/call", name="slow", arguments={"seconds": 0.3})
    [answer] = said(hub, call, words=("weather-server",))
    assert answer["id"] == 1 and "result" in answer


@pytest.mark.requirement("cli.connect")
def test_a_modern_cancellation_closes_the_request(hub: RunningHub) -> None:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    call = modern(1, "tools/call", name="slow", arguments={"seconds": 30})
    assert said(hub, call, cancel, modern(2, "tools/call", name="add", arguments={"a": 1, "b": 1}), words=("weather-server",))[0]["id"] == 2


@pytest.mark.requirement("cli.connect", "cli.ends-quietly")
def test_without_a_key_or_a_reader_it_says_so_on_stderr_alone(hub: RunningHub) -> None:
    done = subprocess.run([PLUGHUB, "connect"], input=b"", capture_output=True, env=environment({"PLUGHUB_URL": hub.url}), check=False)
    assert (done.returncode, done.stdout) == (4, b"") and b"PLUGHUB_KEY" in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    line = json.dumps(legacy(1, "tools/list")).encode() + b"\n"
    done = subprocess.run(
        [PLUGHUB, "connect"], input=line, stdout=writing, stderr=subprocess.PIPE, env=settings(hub), check=False, timeout=30
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
