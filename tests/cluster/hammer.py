"""A process of many clients that want in at once: `python -m tests.cluster.hammer URL SUBJECT HOURLY BURST CONCURRENCY CLIENTS CLOCK`.

Says `ready`, waits for a line, then each client asks until it is refused, and keeps its places. Says how many got in, and holds them until
it is killed or its input ends. CLOCK: epoch seconds to stand still at, or `server`.
"""

import asyncio
import sys

from plughub.cluster.redis_limits import RedisLimits
from plughub.kit.caller import Tier
from plughub.kit.errors import RateLimited
from tests.cluster.oracle import admit
from tests.conftest import FakeClock


async def client(limits: RedisLimits, subject: str, tier: Tier) -> int:
    """How often it got in."""
    count = 0
    while True:
        try:
            await admit(limits, subject, tier)
        except RateLimited:
            return count
        count += 1


async def main(url: str, subject: str, hourly: str, burst: str, concurrency: str, clients: str, at: str) -> None:
    clock = FakeClock()
    if at != "server":
        clock.now = float(at)
    limits = RedisLimits(url, clock, 100, own_clock=at != "server")
    await limits.start()
    tier = Tier("hammered", int(hourly), int(burst), int(concurrency))
    lines = asyncio.get_running_loop()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await lines.run_in_executor(None, sys.stdin.readline)
    counts = await asyncio.gather(*[client(limits, subject, tier) for _ in range(int(clients))])
    assert not limits.alone
    sys.stdout.write(f"{sum(counts)}\n")
    sys.stdout.flush()
    await lines.run_in_executor(None, sys.stdin.readline)
    await limits.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
