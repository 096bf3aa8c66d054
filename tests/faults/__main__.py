"""What the hub does when others misbehave, in figures: `python -m tests.faults [--full] [hanging garbage killed hostile …]`.

Each experiment runs against a `plughub serve` of its own. The exit code is 1 when a figure does not hold.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from tests.faults import (
    garbage,
    hanging,
    hostile,
    killed,
    resumed,
    retried,
    slow_readers,
    webhooks_killed,
    webhooks_outage,
    webhooks_receivers,
)
from tests.faults.board import Board
from tests.flows.running_hub import RunningHub

EXPERIMENTS: dict[str, ModuleType] = {"hanging": hanging, "garbage": garbage, "killed": killed, "hostile": hostile, "retried": retried}
EXPERIMENTS |= {"resumed": resumed, "slow-readers": slow_readers}
EXPERIMENTS |= {"webhooks_killed": webhooks_killed, "webhooks_receivers": webhooks_receivers, "webhooks_outage": webhooks_outage}
SETTINGS = {"PLUGHUB_START_TIMEOUT_S": "3", "PLUGHUB_ADDRESS_LIMIT_PER_MINUTE": "1000000", "PLUGHUB_LOG_LEVEL": "warning"}
SETTINGS |= {"PLUGHUB_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/8"}


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the counts of the scoreboard instead of those of CI")
    parser.add_argument("names", nargs="*", choices=[[], *EXPERIMENTS], help="which; all when none is given")
    given = parser.parse_args()
    failed: list[str] = []
    for name in given.names or EXPERIMENTS:
        board, began = Board(f"{name}: {(EXPERIMENTS[name].__doc__ or '').splitlines()[0]}"), time.monotonic()
        with tempfile.TemporaryDirectory() as folder, RunningHub(Path(folder) / "data", settings=SETTINGS) as hub:
            asyncio.run(EXPERIMENTS[name].run(hub, board, full=given.full))
        board.note("took", f"{time.monotonic() - began:.0f} s")
        failed += board.failed
    sys.stdout.write("\nEvery figure holds.\n" if not failed else "\nNot as it must be:\n" + "\n".join(failed) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
