"""An MCP server over STDIO, newline-delimited: `python -m benchmarks.upstream_stdio`."""

import sys

import orjson

from benchmarks.answers import answer


def serve() -> None:
    """Answers each line of stdin on stdout until stdin ends."""
    for line in sys.stdin.buffer:
        if line.strip() and (reply := answer(orjson.loads(line))) is not None:
            sys.stdout.buffer.write(orjson.dumps(reply) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
