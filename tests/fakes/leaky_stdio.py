"""A STDIO server that tells everything it knows, in the place that MODE names. Standard library only."""

import json
import os
import sys
from typing import Any

# What the hub shows of a line of garbage, and of a line of stderr: the cut must not go through a secret.
SHOWN, LONG = 300, 4096


def everything() -> list[str]:
    """The values of the environment and the arguments after the mode, and what JSON makes of them."""
    known = [os.environ[name] for name in sorted(os.environ) if name not in ("PATH", "HOME", "LANG", "LC_CTYPE")] + sys.argv[2:]
    return known + [json.dumps(value)[1:-1] for value in known]


def print_out(text: str) -> None:
    sys.stdout.write(text.replace("\n", " ") + "\n")
    sys.stdout.flush()


def garbage(cut: int, write: Any) -> None:
    """Each secret in a line of its own at the start, in the middle, and across the cut at several places."""
    for secret in everything():
        write(secret)
        write(f"key={secret};")
        for before in (1, 5, len(secret) - 1, len(secret) + 2):
            write("x" * (cut - before) + secret + "tail" * 10)
            # Hidden secrets make a line shorter; what was cut must not slip in for them.
            write(secret * 3 + "y" * max(0, cut - 3 * len(secret) - before) + secret)


def print_err(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def answer(mode: str, message: dict[str, Any]) -> dict[str, Any]:
    text = " ".join(everything())
    if mode == "stranger":
        for secret in everything():
            print_out(json.dumps({"jsonrpc": "2.0", "id": secret, "result": {}}))
            print_out(json.dumps({"jsonrpc": "2.0", "id": "i" * 30 + secret, "result": {}}))
    if mode == "doubled-key":
        print_out(f'{{"jsonrpc":"2.0","id":{message["id"]},"{everything()[0]}":1,"{everything()[0]}":2}}')
    if mode == "init-error" or (mode == "long-init-error" and message["method"] == "initialize"):
        return {"error": {"code": -32000, "message": text if mode == "init-error" else "x" * 490 + text}}
    if message["method"] != "initialize":
        return {"error": {"code": -32601, "message": text}}
    version = everything()[0] if mode == "version" else "2025-11-25"
    return {"result": {"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "leaky", "version": "1"}}}


def main(mode: str, *_: str) -> None:
    if mode == "garbage":
        garbage(SHOWN, print_out)
    if mode == "stderr":
        garbage(LONG, print_err)
    if mode == "exit":
        print_err("error: cannot log in with " + " ".join(everything()))
        sys.exit(1)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and mode != "garbage":
            print_out(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer(mode, message)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
