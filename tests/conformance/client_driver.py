"""What the suite starts as the client under test: the official SDK, through the hub when CONFORMANCE_HUB names one, else straight.

The suite gives the address of its own server last and the scenario in the environment. Through the hub, that server is registered first
and deleted afterwards, so that the one whose behaviour is judged is the hub, asked by the SDK.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

HANDSHAKE = "2025-11-25"
TIMEOUT_S = 10
Json = dict[str, Any]
Scenario = Callable[[Client, Json], Awaitable[None]]


async def list_tools(client: Client, context: Json) -> None:
    await client.list_tools()


async def add_numbers(client: Client, context: Json) -> None:
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def call_all(client: Client, context: Json) -> None:
    """Every tool that is listed, with a text for each parameter."""
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, dict.fromkeys(tool.input_schema.get("properties", {}), "us-west1"))


async def call_named(client: Client, context: Json) -> None:
    """The calls that the suite names."""
    await client.list_tools()
    for call in context["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def every_method(client: Client, context: Json) -> None:
    await call_all(client, context)
    for resource in (await client.list_resources()).resources:
        await client.read_resource(resource.uri)
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def echo_schema(client: Client, context: Json) -> None:
    [rich] = [tool for tool in (await client.list_tools()).tools if tool.name == "json_schema_2020_12_tool"]
    await client.call_tool("json_schema_echo", {"schema": rich.input_schema})


SCENARIOS: dict[str, Scenario] = {
    "initialize": list_tools,
    "tools_call": add_numbers,
    "elicitation-sep1034-client-defaults": call_all,
    "sse-retry": call_all,
    "request-metadata": list_tools,
    "sep-2322-client-request-state": call_all,
    "http-standard-headers": every_method,
    "http-custom-headers": call_named,
    "http-invalid-tool-headers": call_all,
    "json-schema-ref-no-deref": list_tools,
    "json-schema-2020-12-preservation": echo_schema,
}


async def accept_defaults(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """A person who agrees to what is proposed."""
    schema = params.requested_schema if isinstance(params, types.ElicitRequestFormParams) else {}
    properties: Json = schema.get("properties", {})
    return types.ElicitResult(action="accept", content={name: given["default"] for name, given in properties.items() if "default" in given})


@asynccontextmanager
async def reached(url: str) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The address to connect to, and the headers."""
    hub = os.environ.get("CONFORMANCE_HUB")
    if not hub:
        yield url, {}
        return
    headers = {"Authorization": f"Bearer {os.environ['CONFORMANCE_KEY']}"}
    async with httpx2.AsyncClient(base_url=hub, headers=headers, timeout=TIMEOUT_S) as api:
        body = {"name": "conformance client suite", "type": "STREAMABLE_HTTP", "config": {"url": url}}
        made = await api.post("/api/servers", json=body)
        assert made.status_code == 201, made.text
        uuid = made.json()["uuid"]
        try:
            yield f"{hub}/servers/{uuid}/mcp", headers
        finally:
            await api.delete(f"/api/servers/{uuid}")


async def drive(url: str, scenario: str, revision: str, context: Json) -> None:
    """Connect in the era of the revision, and do what the scenario is about."""
    async with reached(url) as (address, headers), httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http:
        transport = streamable_http_client(address, http_client=http)
        mode = "legacy" if revision <= HANDSHAKE else "auto"
        async with Client(transport, mode=mode, elicitation_callback=accept_defaults) as client:
            await SCENARIOS[scenario](client, context)


def main() -> None:
    """The suite's contract with a client: see its `--command`."""
    given = os.environ
    context = json.loads(given.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    anyio.run(drive, sys.argv[1], given["MCP_CONFORMANCE_SCENARIO"], given["MCP_CONFORMANCE_PROTOCOL_VERSION"], context)


if __name__ == "__main__":
    main()
