"""A STDIO server of very many tools, told in pages: `python many_tools.py LABEL ERA COUNT PAGE`. Standard library only.

ERA is `legacy` or `modern`; PAGE is how many tools a page has. A tool answers with the label and its own name.
"""

import json
import sys
from typing import Any

SHORT = ("get_item_{:03}", "listItems{:03}", "items.archive-{:03}", "deep__nested__{:03}")
LONG = "summarise_the_quarterly_reports_of_every_region_and_of_all_that_depends_on_it_"
Json = dict[str, Any]


def names(count: int) -> list[str]:
    """Names as the protocol allows them, 48 to 77 characters long every fifth; those are alike but for their ends."""
    return [_name(number) for number in range(count)]


def _name(number: int) -> str:
    form = number % 5
    if form < len(SHORT):
        return SHORT[form].format(number)
    return LONG[: 45 + number // 5 % 30] + f"{number:03}"


def answer(label: str, era: str, count: int, page: int, message: Json) -> Json:
    """The result or the error of one request."""
    method, params = message["method"], message.get("params", {})
    told = {"resultType": "complete"} if era == "modern" else {}
    info = {"name": label, "version": "1"}
    if method == "initialize" and era == "legacy":
        return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "server/discover" and era == "modern":
        meta = {"io.modelcontextprotocol/serverInfo": info}
        return {"result": told | {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "_meta": meta}}
    if method == "tools/list":
        kept = {"ttlMs": 60_000, "cacheScope": "public"} if era == "modern" else {}
        return {"result": told | kept | listed(label, count, page, params.get("cursor"))}
    if method == "tools/call" and params["name"] in names(count):
        text = json.dumps({"label": label, "tool": params["name"], "arguments": params.get("arguments")})
        return {"result": told | {"content": [{"type": "text", "text": text}]}}
    code = -32602 if method == "tools/call" else -32601
    return {"error": {"code": code, "message": "Unknown tool" if code == -32602 else "Method not found"}}


def listed(label: str, count: int, page: int, cursor: str | None) -> Json:
    """One page of tools; a cursor is `after:` and the last tool's name."""
    every = names(count)
    begin = 0 if cursor is None else every.index(cursor.removeprefix("after:")) + 1
    schema = {"type": "object", "properties": {"number": {"type": "integer"}}}
    part = every[begin : begin + page]
    tools = [{"name": name, "description": f"{label}: {name}", "inputSchema": schema} for name in part]
    return {"tools": tools} | ({"nextCursor": f"after:{part[-1]}"} if begin + page < count else {})


def main(label: str, era: str, count: str, page: str) -> None:
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and "method" in message:
            said = {"jsonrpc": "2.0", "id": message["id"]} | answer(label, era, int(count), int(page), message)
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
