"""Servers over HTTP that are good but for one tool."""

import asyncio
import json

from tests.fakes.http_servers import Answerer, Mcp, Seen, reply


def with_tools(mcp: Mcp) -> Answerer:
    """The server, which lists the tools that it has."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        if seen.method == "POST" and seen.json.get("method") == "tools/list":
            found = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in mcp.tools]}
            return reply(200, json.dumps({"jsonrpc": "2.0", "id": seen.json["id"], "result": found}).encode())
        return await mcp(seen, writer)

    return answer
