"""A STDIO server that misbehaves in one way: `python bad_stdio.py MODE [FILE]`. Standard library only.

The modes of `AT_START` never become a server. In all others `echo` works, and the tool `bad` does what the mode says.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

TEN_MB = 10 * 1000 * 1000


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def answer(request_id: Any, text: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {"content": [{"type": "text", "text": text}]}}).encode() + b"\n"


# --- at the start ---


def exits() -> None:
    """Says why on stderr and ends with code 3."""
    sys.stderr.write("cannot open the database\n")
    sys.exit(3)


def silent() -> None:
    """Reads everything, answers nothing."""
    for _ in sys.stdin.buffer:
        pass


def garbage_only() -> None:
    """Answers every line with something that is no message."""
    for _ in sys.stdin.buffer:
        write(b"Welcome to my server!\n\xff\xfe\n{]\n[1, 2]\n42\n")


AT_START: dict[str, Callable[[], None]] = {"exits": exits, "silent": silent, "garbage-only": garbage_only}


# --- the tool `bad` ---


def wrong_id(request_id: Any) -> None:
    """Another id than the one asked with, and never the right one."""
    write(answer(1_000_000, "for nobody"))


def doubled_id(request_id: Any) -> None:
    """The same id twice, with different texts."""
    write(answer(request_id, "first") + answer(request_id, "second"))


def huge_line(request_id: Any) -> None:
    """A line of 10 MB."""
    write(answer(request_id, "x" * TEN_MB))


def invalid_utf8(request_id: Any) -> None:
    """An answer that is not UTF-8."""
    write(answer(request_id, "MARK").replace(b"MARK", b"\xff\xfe\xc3\x28"))


def broken_json(request_id: Any) -> None:
    """An answer cut in the middle."""
    write(answer(request_id, "cut")[:-9] + b"\n")


def dies(request_id: Any) -> None:
    """Ends while the call runs."""
    sys.stderr.write("out of luck\n")
    sys.stderr.flush()
    os._exit(7)


def never_answers(request_id: Any) -> None:
    """Takes the call and forgets it."""


def plain(request_id: Any) -> None:
    """Nothing bad at all: the modes that misbehave beside the calls use it."""
    write(answer(request_id, "fine"))


BAD: dict[str, Callable[[Any], None]] = {
    "wrong-id": wrong_id,
    "doubled-id": doubled_id,
    "huge-line": huge_line,
    "invalid-utf8": invalid_utf8,
    "broken-json": broken_json,
    "dies": dies,
    "never-answers": never_answers,
    "garbage": plain,
    "endless-stderr": plain,
    "slow": plain,
    "grandchild": plain,
}


# --- a small server of 2025-11-25 around it ---


def endless_stderr() -> None:
    line = b"nothing but noise " * 50 + b"\n"
    while True:
        os.write(2, line)


def grandchild(path: str) -> None:
    """A process of the server's own that ignores the end of its input; its id goes into the file."""
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(
        [sys.executable, "-c", "import threading; threading.Event().wait(600)"], stdin=quiet, stdout=quiet, stderr=quiet
    )
    with open(path, "w") as file:
        file.write(str(child.pid))


def respond(mode: str, message: dict[str, Any]) -> None:
    method, request_id = message["method"], message["id"]
    if mode == "garbage":
        write(b"debug: got " + method.encode() + b"\n{\n\n\xff\n")
    if method == "initialize":
        if mode == "slow":
            threading.Event().wait(0.5)
        info = {"name": "bad", "version": "1"}
        result: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "bad")]}
    elif method == "tools/call" and message["params"]["name"] == "bad":
        return BAD[mode](request_id)
    elif method == "tools/call":
        return write(answer(request_id, str(message["params"]["arguments"].get("text"))))
    else:
        error = {"code": -32601, "message": "Method not found"}
        return write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")
    write(json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode() + b"\n")


def main(mode: str, *more: str) -> None:
    if mode in AT_START:
        return AT_START[mode]()
    if mode == "endless-stderr":
        threading.Thread(target=endless_stderr, daemon=True).start()
    if mode == "grandchild":
        grandchild(*more)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message:
            respond(mode, message)


if __name__ == "__main__":
    main(*sys.argv[1:])
