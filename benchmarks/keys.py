"""What it costs to know a key among many: `python -m benchmarks.keys`, a quarter of a minute.

The same keys are looked up while there are 1,000 and 100,000 of them, on an embedded database: from the database (a key that was not
seen lately) and from memory (the key of nearly every request). The medians may grow by half. Exit code 1 when they grow more.
"""

import asyncio
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, select

from plughub.db.tables import api_key
from plughub.keys.directory import KeyDirectory
from plughub.kit.ids import new_id
from tests.serving import Served, serving

FEW, MANY, ASKED, ROUNDS = 1_000, 100_000, 400, 5
LIMIT = 1.5
_CHUNK = 5_000


async def measure(few: int = FEW, many: int = MANY) -> dict[str, tuple[float, float]]:
    """Microseconds of one look-up among few and among many, by where the key is found."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(f"sqlite:///{folder}/plughub.db", Path(folder)) as hub:
            operator = await hub.operator()
            secrets = [await hub.key_of(operator, name=f"asked {number}") for number in range(ASKED)]
            await _grow(hub, few)
            of_few = await _look_up(hub, secrets)
            await _grow(hub, many)
            of_many = await _look_up(hub, secrets)
    return {name: (of_few[name], of_many[name]) for name in of_few}


async def _grow(hub: Served, total: int) -> None:
    """Copies of one key under digests of their own, until there are so many."""
    async with hub.database.read() as connection:
        rows = (await connection.execute(select(api_key).order_by(api_key.c.created_at, api_key.c.id))).mappings().all()
    for begin in range(len(rows), total, _CHUNK):
        numbers = range(begin, min(begin + _CHUNK, total))
        values = [{**rows[-1], "id": new_id(), "digest": hashlib.sha256(b"%d" % number).digest()} for number in numbers]
        async with hub.database.unit_of_work() as uow:
            await uow.execute(insert(api_key), values)


async def _look_up(hub: Served, secrets: list[str]) -> dict[str, float]:
    directory = KeyDirectory(hub.database, hub.app.hub.peppers, hub.app.hub.settings)
    stored, kept = [], []
    for _ in range(ROUNDS):
        directory._cache.clear()
        for secret in secrets:
            began = time.perf_counter()
            assert await directory.resolve(secret) is not None
            stored.append(time.perf_counter() - began)
        for secret in secrets:
            began = time.perf_counter()
            assert directory.find(secret) is not None
            kept.append(time.perf_counter() - began)
    return {"from the database": _median_us(stored), "from memory": _median_us(kept)}


def _median_us(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2] * 1e6


def main() -> int:
    """Print both medians of either way, and their ratio."""
    worst = 0.0
    for name, (few, many) in asyncio.run(measure()).items():
        print(f"{name}: {few:.1f} us among {FEW} keys, {many:.1f} us among {MANY} ({many / few:.2f} x, limit {LIMIT} x)")
        worst = max(worst, many / few)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
