"""What an operation of a batch costs, and what an Idempotency-Key adds: `python -m benchmarks.batch`.

Against a hub of its own on an embedded database, over HTTP: creates one by one, then batches of 50 creates in each mode, in turn; then
creates and tool calls with and without a key. An operation may take three times as long as one create. Exit code 1 when it takes longer.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import httpx2

from benchmarks.hub import Hub, Target, running_hub

OPERATION = Target("an operation of a batch of 50 creates, as a multiple of one create", 3, "")
ROUNDS, SIZE = 8, 50
MODES = ("sequential", "parallel", "atomic")


def server(name: str) -> Mapping[str, object]:
    """A server that nobody runs."""
    return {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}


def took_ms(work: Callable[[], object]) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


class Client:
    """One connection; every answer must be good."""

    def __init__(self, hub: Hub) -> None:
        self._http = httpx2.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.key}"}, timeout=60)
        self._keys = 0

    def get(self, path: str) -> httpx2.Response:
        """One GET."""
        return self._http.get(path).raise_for_status()

    def post(self, path: str, body: object, *, once: bool = False) -> httpx2.Response:
        """One POST; with `once` under a key of its own."""
        self._keys += 1
        headers = {"Idempotency-Key": f"bench-{self._keys}"} if once else {}
        return self._http.post(path, json=body, headers=headers).raise_for_status()

    def batch(self, mode: str) -> None:
        """50 creates."""
        operations = [{"method": "POST", "path": "/servers", "body": server(f"B{n}")} for n in range(SIZE)]
        answer = self.post("/api/batch", {"operations": operations, "mode": mode})
        if answer.json()["succeeded"] != SIZE:
            raise RuntimeError(answer.text)


def measure(hub: Hub) -> dict[str, float]:
    """Medians in milliseconds; of batches, of one operation."""
    client = Client(hub)
    [demo] = [found["uuid"] for found in client.get("/api/servers").json()["servers"]]
    echo = f"/api/servers/{demo}/tools/echo/execute"
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for _ in range(10):
            found.setdefault("create", []).append(took_ms(lambda: client.post("/api/servers", server("One"))))
            found.setdefault("create with a key", []).append(took_ms(lambda: client.post("/api/servers", server("One"), once=True)))
            found.setdefault("call", []).append(took_ms(lambda: client.post(echo, {"parameters": {"text": "x"}})))
            found.setdefault("call with a key", []).append(took_ms(lambda: client.post(echo, {"parameters": {"text": "x"}}, once=True)))
        for mode in MODES:
            found.setdefault(mode, []).append(took_ms(lambda mode=mode: client.batch(mode)) / SIZE)  # type: ignore[misc]
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> int:
    """Measure and judge."""
    with running_hub() as hub:
        found = measure(hub)
    for name, value in found.items():
        print(f"{name}: {value:.2f} ms")
    worst = max(found[mode] for mode in MODES) / found["create"]
    print(f"{OPERATION.name}: {worst:.2f} (at most {OPERATION.value:g})")
    return 0 if OPERATION.met(worst) else 1


if __name__ == "__main__":
    sys.exit(main())
