"""The same tool call through each door, by two programs: httpx2 and curl."""

import json
import string
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

from tests.flows.running_hub import Json, RunningHub

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "flows", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
# (hub, path, body, headers) -> status, headers in lower case, text
Post = Callable[[RunningHub, str, Json, dict[str, str]], tuple[int, dict[str, str], str]]


def by_httpx2(hub: RunningHub, path: str, body: Json, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    answer = hub.api("POST", path, body, headers=headers)
    return answer.status_code, dict(answer.headers), answer.text


def by_curl(hub: RunningHub, path: str, body: Json, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    given = {"Authorization": f"Bearer {hub.key}", "Content-Type": "application/json", **headers}
    lines = [part for name, value in given.items() for part in ("-H", f"{name}: {value}")]
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--noproxy",
        "*",
        "-D",
        "-",
        *lines,
        "-d",
        json.dumps(body),
        hub.url + path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    head, _, text = done.stdout.partition("\n\n")
    status_line, *fields = head.splitlines()
    pairs = (field.split(":", 1) for field in fields)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, value in pairs}, text


def execute(post: Post, hub: RunningHub, server: Json, tool: str, arguments: Json) -> Any:
    """`POST /api/servers/{uuid}/tools/{tool}/execute`; its `result`."""
    status, _, text = post(hub, f"/api/servers/{server['uuid']}/tools/{tool}/execute", {"parameters": arguments}, {})
    assert status == 200, text
    answer = json.loads(text)
    assert answer["isError"] is False, text
    assert answer["metadata"]["server_uuid"] == server["uuid"]
    assert answer["metadata"]["tool"] == tool
    return answer["result"]


def invoke(post: Post, hub: RunningHub, server: Json, tool: str, arguments: Json) -> Any:
    """`POST /v1/mcp/invoke`; its `data.result`."""
    mcp_id = mcp_id_of(server)
    status, _, text = post(hub, "/v1/mcp/invoke", {"mcp_id": mcp_id, "tool": tool, "arguments": arguments}, {})
    assert status == 200, text
    answer = json.loads(text)
    assert answer["success"] is True
    assert answer["data"]["metadata"]["tool"] == tool
    assert answer["data"]["metadata"]["mcp_id"] == mcp_id
    return answer["data"]["result"]


def mcp_id_of(server: Json) -> str:
    """The server's id on `/v1`: `mcp_` and the uuid in 22 base62 digits."""
    number, digits = UUID(server["uuid"]).int, ""
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return f"mcp_{digits}"


def everything(post: Post, hub: RunningHub, server: Json, tool: str, arguments: Json) -> Any:
    """MCP at `/mcp`, under the name `{slug}__{tool}`, which must be listed."""
    name = f"{server['slug']}__{tool}"
    assert name in listed(post, hub, "/mcp")
    return unwrapped(rpc(post, hub, "/mcp", "tools/call", {"name": name, "arguments": arguments}))


def one_server(post: Post, hub: RunningHub, server: Json, tool: str, arguments: Json) -> Any:
    """MCP at `/servers/{uuid}/mcp`, under the server's own name, which must be listed."""
    path = f"/servers/{server['uuid']}/mcp"
    assert tool in listed(post, hub, path)
    return unwrapped(rpc(post, hub, path, "tools/call", {"name": tool, "arguments": arguments}))


DOORS = {"execute": execute, "invoke": invoke, "mcp": everything, "one-server": one_server}
POSTS: dict[str, Post] = {"httpx2": by_httpx2, "curl": by_curl}


def listed(post: Post, hub: RunningHub, path: str) -> list[str]:
    """The names of `tools/list`."""
    return [tool["name"] for tool in rpc(post, hub, path, "tools/list", {})["tools"]]


def rpc(post: Post, hub: RunningHub, path: str, method: str, params: Json) -> Json:
    """One request of MCP 2026-07-28; its result."""
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION, "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": META}}
    status, fields, text = post(hub, path, body, headers)
    assert status == 200, text
    if fields["content-type"].startswith("text/event-stream"):
        text = [line[5:] for line in text.splitlines() if line.startswith("data:")][-1]
    message = json.loads(text)
    assert message["id"] == 7
    result: Json = message["result"]
    assert result["resultType"] == "complete"
    return result


def unwrapped(result: Json) -> Any:
    """What the two REST doors call the result: structured content, else the only text as JSON, else the text, else the content."""
    assert not result.get("isError"), result
    if "structuredContent" in result:
        return result["structuredContent"]
    match result["content"]:
        case [{"type": "text", "text": text}]:
            try:
                return json.loads(text)
            except ValueError:
                return text
        case content:
            return content
