"""`make bench-usage`: what counting usage costs, on the embedded database.

`share_of_a_core`: CPU time of counting 60 seconds of 500 calls a second, every 10 seconds as the job does it, of one tool and of 500
combinations of key, server and tool. `calls_per_s`: tool calls through a hub in this process, in rounds without counting and with all of
the round's calls counted within it, by turns; medians. Exits 1 when a target is missed.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from plughub.db.engine import Database
from plughub.db.migrate import migrate
from plughub.db.writer import BatchingWriter
from plughub.identity.service import create_organization, ensure_operator
from plughub.settings import Settings
from plughub.usage.rollup import roll_up
from tests.conftest import CHAIN, FakeClock
from tests.serving import Served, serving

RATE, EVERY_S, LENGTH_S = 500, 10, 60
MOST_SHARE, LEAST_RATIO = 0.05, 0.9
CALLS, AT_ONCE, ROUNDS = 2_000, 16, 5


async def share_of_a_core(url: str, settings: Settings, combinations: int, length_s: int = LENGTH_S) -> float:
    """CPU seconds a second that counting takes, the thread of the database included."""
    clock = FakeClock()
    database = Database(url, clock, CHAIN)
    await migrate(database)
    async with database.unit_of_work() as uow:
        await ensure_operator(uow)
        space = (await create_organization(uow, "Bench", "free")).live_space_id
    spent = 0.0
    for begin in range(0, length_s, EVERY_S):
        writer = BatchingWriter(database, settings)
        for number in range(RATE * EVERY_S):
            at, which = clock.now + begin + number / RATE, number % combinations
            place = (f"server-{which % 10}", f"key-{which // 10}", f"tool-{which % 5}")
            took_us = 500 + number * 7919 % 20_000
            writer.record((space, "tool.executed", at, *place, f"req_{number}", "ok", False, took_us, "mcp", '{"in":20,"out":200}'))
        await writer.aclose()
        before = time.process_time()
        await roll_up(database)
        spent += time.process_time() - before
    await database.aclose()
    return spent / length_s


async def calls_a_second(served: Served, *, counted: bool) -> float:
    """Of one round."""
    path, body = f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "hello"}}
    left = iter(range(CALLS))

    async def caller() -> None:
        for _ in left:
            answer = await served.call("POST", path, body)
            assert answer.status_code == 200, answer.text

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    await served.app.hub.writer.flush()
    if counted:
        await roll_up(served.database)
    took_s = time.perf_counter() - began
    await roll_up(served.database)
    return CALLS / took_s


async def main() -> int:
    """Measure and print; the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="bench-usage"))
    try:
        settings = Settings(data_dir=folder)
        shares = {n: await share_of_a_core(f"sqlite:///{folder}/{n}.db", settings, n) for n in (1, 500)}
        rates: dict[bool, list[float]] = {False: [], True: []}
        async with serving(f"sqlite:///{folder}/plughub.db", folder) as served:
            await served.settled()
            await calls_a_second(served, counted=True)
            for number in range(2 * ROUNDS):
                rates[number % 2 == 1].append(await calls_a_second(served, counted=number % 2 == 1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = median(rates[True]) / median(rates[False])
    figures = {
        "share_of_a_core_1_tool": round(shares[1], 4),
        "share_of_a_core_500_combinations": round(shares[500], 4),
        "calls_per_s_without": round(median(rates[False])),
        "calls_per_s_counted": round(median(rates[True])),
        "ratio": round(ratio, 3),
    }
    print(json.dumps(figures, indent=1))
    return 0 if max(shares.values()) <= MOST_SHARE and ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
