"""The client's side of one demo server, line by line."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

SERVER = Path(__file__).resolve().parents[2] / "src" / "plughub" / "demo_server.py"
COMMAND = [sys.executable, "-I", str(SERVER)]
HANDSHAKE_VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TOOLS = ["get_weather", "get_forecast", "generate_report", "generate_text", "echo", "add", "slow", "fail"]
PATIENCE_S = 10
Message = dict[str, Any]


class Conversation:
    """The client's side of one server process; every wait is bounded."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._number = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        assert self.process.stdout and self.process.stderr
        self._reader.join(PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()

    def close(self) -> int:
        """End of input; the exit code of the server."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        return json.loads(self._lines.get(timeout=PATIENCE_S))

    def ask(self, method: str, params: Message | None = None) -> int:
        """Send a request without waiting; its id."""
        self._number += 1
        self.send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}})
        return self._number

    def answer(self, method: str, params: Message | None = None) -> Message:
        """Send a request; the next message, which must be its answer."""
        number = self.ask(method, params)
        message: Message = self.receive()
        assert message["id"] == number, message
        return message

    def call(self, tool: str, **arguments: Any) -> Message:
        """The result of a tool."""
        result: Message = self.answer("tools/call", {"name": tool, "arguments": arguments})["result"]
        return result

    def initialize(self, version: str = "2025-11-25") -> Message:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        result: Message = self.answer("initialize", params)["result"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result


def text_of(result: Message) -> str:
    [block] = result["content"]
    assert block["type"] == "text"
    text: str = block["text"]
    return text


def modern(**params: Any) -> Message:
    return {**params, "_meta": MODERN}
