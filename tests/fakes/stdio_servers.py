"""A well-behaved STDIO server with unusual tools: `python stdio_servers.py ERA [FLAG…]`. Standard library only.

ERA is `legacy`, `modern` (refuses `initialize`), `dual`, `shy` (leaves when the first message is not `initialize`) or `proud` (leaves
when it is). `@FILE` reads it from a file.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Any

INFO = {"name": "fake", "version": "1"}
state: dict[str, Any] = {"held": {}, "cancelled": [], "replies": [], "seen": [], "listening": []}


def send(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
    sys.stdout.buffer.flush()


def result(id_: Any, value: Any) -> None:
    send({"id": id_, "result": {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}})


def echo(id_: Any, text: str, **_: Any) -> None:
    result(id_, text)


def environment(id_: Any, **_: Any) -> None:
    result(
        id_,
        {"env": dict(os.environ), "cwd": os.getcwd(), "sid": os.getsid(0), "pid": os.getpid(), "fds": sorted(os.listdir("/proc/self/fd"))},
    )


def hold(id_: Any, key: str, **_: Any) -> None:
    """Answers when `release` names the key."""
    state["held"][key] = id_


def release(id_: Any, key: str, **_: Any) -> None:
    result(state["held"].pop(key), f"released {key}")
    result(id_, "done")


def report(id_: Any, **_: Any) -> None:
    """What came in so far."""
    result(id_, {name: state[name] for name in ("cancelled", "replies", "seen", "listening")})


def progress(id_: Any, _meta: dict[str, Any], **_: Any) -> None:
    """Two steps under the caller's token, one under a token nobody knows, one notification without any."""
    for step in (1, 2):
        send({"method": "notifications/progress", "params": {"progressToken": _meta.get("progressToken"), "progress": step}})
    send({"method": "notifications/progress", "params": {"progressToken": 987654, "progress": 9}})
    send({"method": "notifications/message", "params": {"level": "info", "data": "hello"}})
    result(id_, "progressed")


def ask(id_: Any, **_: Any) -> None:
    """Requests of our own, then the answer."""
    send({"id": "s-1", "method": "ping"})
    send({"id": "s-2", "method": "sampling/createMessage", "params": {}})
    result(id_, "asked")


def tell(id_: Any, method: str, params: dict[str, Any], **_: Any) -> None:
    """Say something of our own accord, to those who listen if there is such a thing as listening."""
    for listen in state["listening"] or [None]:
        meta = {} if listen is None else {"_meta": {"io.modelcontextprotocol/subscriptionId": listen}}
        send({"method": method, "params": params | meta})
    result(id_, "told")


def log(id_: Any, count: int, _meta: dict[str, Any], **_: Any) -> None:
    """Messages, when the request names a level."""
    if "io.modelcontextprotocol/logLevel" in _meta:
        for number in range(count):
            send({"method": "notifications/message", "params": {"level": "info", "data": number}})
    result(id_, "logged")


def leave(id_: Any, code: int, **_: Any) -> None:
    sys.stderr.write("Error: out of luck with s3cret-value\nbye\n")
    sys.stderr.flush()
    os._exit(code)


def close_output(id_: Any, **_: Any) -> None:
    os.close(1)
    signal.pause()


def stop_reading(id_: Any, **_: Any) -> None:
    result(id_, "deaf from now on")
    signal.pause()


def nameless_error(id_: Any, **_: Any) -> None:
    send({"id": None, "error": {"code": -32700, "message": "Parse error"}})


def refuse(id_: Any, **_: Any) -> None:
    send({"id": id_, "error": {"code": -32602, "message": "no", "data": {"x": 1}}})


def malformed(id_: Any, part: dict[str, Any], **_: Any) -> None:
    send({"id": id_} | part)


def raw(id_: Any, text: str, **_: Any) -> None:
    """Writes the text with ID replaced by the id, as bytes of latin-1."""
    sys.stdout.buffer.write(text.replace("ID", json.dumps(id_)).encode("latin-1") + b"\n")
    sys.stdout.buffer.flush()


def batch(id_: Any, **_: Any) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"level": "info", "data": "b"}}
    sys.stdout.write(json.dumps([note, {"jsonrpc": "2.0", "id": id_, "result": {"content": []}}]) + "\n")
    sys.stdout.flush()


def grandchildren(id_: Any, **_: Any) -> None:
    """One in our group that ignores SIGTERM, one that left for a session of its own; both live for long."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    mine = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    gone = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    for child in (mine, gone):
        assert child.stdout is not None
        child.stdout.readline()
    result(id_, [mine.pid, gone.pid])


TOOLS = {
    tool.__name__: tool
    for tool in (
        echo,
        environment,
        hold,
        release,
        report,
        progress,
        ask,
        leave,
        close_output,
        stop_reading,
        nameless_error,
        refuse,
        malformed,
        raw,
        batch,
        grandchildren,
        tell,
        log,
    )
}


def handle(era: str, message: dict[str, Any]) -> None:
    id_, method, params = message["id"], message["method"], message.get("params", {})
    modern = "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
    state["seen"].append(message)
    capabilities: dict[str, Any] = {"tools": {}}
    if "tells" in sys.argv:
        capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
    if method == "initialize" and era != "modern":
        version = "2024-11-05" if "old" in sys.argv else "2025-11-25"
        send(
            {
                "id": id_,
                "result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": INFO, "instructions": "be kind"},
            }
        )
    elif method == "server/discover" and era in ("modern", "dual"):
        meta = {"io.modelcontextprotocol/serverInfo": INFO}
        found = {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, "resultType": "complete", "_meta": meta}
        send({"id": id_, "result": found})
    elif method == "tools/call" and (modern or era != "modern"):
        TOOLS[params["name"]](id_, **params.get("arguments", {}), _meta=params.get("_meta", {}))
    elif method == "subscriptions/listen" and "tells" in sys.argv:
        state["listening"].append(id_)
        meta = {"io.modelcontextprotocol/subscriptionId": id_}
        send({"method": "notifications/subscriptions/acknowledged", "params": {"notifications": params["notifications"], "_meta": meta}})
    elif method in ("resources/subscribe", "resources/unsubscribe") and "tells" in sys.argv:
        result(id_, "")
    else:
        send({"id": id_, "error": {"code": -32601, "message": "Method not found"}})


def main(era: str, *flags: str) -> None:
    if "stubborn" in flags:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if era.startswith("@"):
        with open(era[1:]) as file:
            era = file.read()
    sys.stderr.write("fake server speaking\n")
    sys.stderr.flush()
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if era in ("shy", "proud"):
            if (message.get("method") == "initialize") is not (era == "shy"):
                sys.exit("expected something else")
            era = "legacy" if era == "shy" else "modern"
        if "method" not in message:
            state["replies"].append(message)
        elif "id" in message:
            handle(era, message)
        elif message["method"] == "notifications/cancelled":
            state["cancelled"].append(message["params"])
            state["listening"] = [id_ for id_ in state["listening"] if id_ != message["params"].get("requestId")]
        else:
            state["seen"].append(message)
    if "stubborn" in flags:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
