"""Whether a login tells by its time who has an account: `python -m benchmarks.login`.

300 pairs of wrong passwords, one for an address with an account and one for an address without, in turn, each the whole way through
the hub on an embedded database. The medians may differ by less than 1 ms. Exit code 1 when they do not.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.serving import PASSWORD, Served, serving

PAIRS = 300
LIMIT_MS = 1.0
KNOWN, UNKNOWN = "known@example.com", "unknown@example.com"


async def measure(pairs: int = PAIRS) -> dict[str, list[float]]:
    """Milliseconds of each refused login, by address."""
    took: dict[str, list[float]] = {KNOWN: [], UNKNOWN: []}
    with tempfile.TemporaryDirectory() as folder:
        async with serving(f"sqlite:///{folder}/plughub.db", Path(folder)) as hub:
            body = {"name": "Known", "email": KNOWN, "password": PASSWORD}
            await hub.call("POST", "/api/auth/register", body, key="")
            for number in range(pairs + 10):
                for email in (KNOWN, UNKNOWN) if number % 2 else (UNKNOWN, KNOWN):
                    ms = await _refused(hub, email)
                    if number >= 10:  # the first ones load argon2 and fill caches
                        took[email].append(ms)
    return took


async def _refused(hub: Served, email: str) -> float:
    hub.clock.advance(400)  # longer than the longest pause of an account
    began = time.perf_counter()
    answer = await hub.call("POST", "/api/auth/login", {"email": email, "password": "wrong horse battery"}, key="")
    ms = (time.perf_counter() - began) * 1000
    if answer.status_code != 401:
        raise RuntimeError(f"{answer.status_code}: {answer.text}")
    return ms


def main() -> int:
    """Print both medians and their difference."""
    took = asyncio.run(measure())
    known, unknown = statistics.median(took[KNOWN]), statistics.median(took[UNKNOWN])
    difference = abs(known - unknown)
    print(f"{PAIRS} pairs: known {known:.2f} ms, unknown {unknown:.2f} ms, difference {difference:.3f} ms (limit {LIMIT_MS} ms)")
    return 0 if difference < LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
