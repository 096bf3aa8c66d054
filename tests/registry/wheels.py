"""Wheels of a server that speaks just enough MCP, made by hand: pip takes them from a folder."""

import zipfile
from pathlib import Path

SERVER = """
import json, os, sys

def main():
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        if asked["method"] == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "tickets", "version": "1"}}
        elif asked["method"] == "tools/list":
            result = {"tools": [{"name": "args", "inputSchema": {"type": "object"}}]}
        elif asked["method"] == "tools/call":
            told = json.dumps({"args": sys.argv[1:], "token": os.environ.get("TOKEN")})
            result = {"content": [{"type": "text", "text": told}]}
        else:
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
            continue
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def make_wheel(folder: Path, name: str = "tickets-mcp", version: str = "1.0.0", *, command: str | None = None) -> Path:
    """A wheel whose console script is called as the package, or `command`; an empty one: it has none."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    script = name if command is None else command
    entries = f"[console_scripts]\n{script} = {module}:main\n" if script else ""
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{module}.py", SERVER)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", entries)
        archive.writestr(f"{info}/RECORD", "")
    return wheel
