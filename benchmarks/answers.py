"""What both benchmark upstreams answer: an MCP server with the tools `echo` and `add`, as cheap as can be."""

from typing import Any

JsonObject = dict[str, Any]

TOOLS = [
    {
        "name": "echo",
        "description": "Return the text",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
    {
        "name": "add",
        "description": "Add two numbers",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
    },
]
INFO = {"name": "bench-echo", "version": "1.0"}
METHOD_NOT_FOUND = -32601


def answer(message: JsonObject) -> JsonObject | None:
    """The JSON-RPC answer to one message; None to a notification. Speaks the revisions up to 2025-11-25."""
    id_, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if id_ is None:
        return None
    if method == "tools/call":
        result = call(params.get("name"), params.get("arguments") or {})
    elif method == "initialize":
        result = {"protocolVersion": params.get("protocolVersion", "2025-11-25"), "capabilities": {"tools": {}}, "serverInfo": INFO}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "ping":
        result = {}
    else:
        return {"jsonrpc": "2.0", "id": id_, "error": {"code": METHOD_NOT_FOUND, "message": f"Method not found: {method}"}}
    return {"jsonrpc": "2.0", "id": id_, "result": result}


def call(name: str | None, arguments: JsonObject) -> JsonObject:
    """The result of `echo(text)` or `add(a, b)`."""
    text = str(arguments.get("text", "")) if name == "echo" else str(arguments.get("a", 0) + arguments.get("b", 0))
    return {"content": [{"type": "text", "text": text}], "isError": False}
