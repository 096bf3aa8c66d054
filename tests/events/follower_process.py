"""Another process of a hub: follows the log of the database named on the command line and answers questions on its stdin.

`key <secret>` answers the key's status or `none`, `known <secret>` whether it is answered from memory.
"""

import asyncio
import sys
from pathlib import Path

from plughub.db.engine import Database
from plughub.events.follower import Follower
from plughub.keys.directory import KeyDirectory
from plughub.keys.service import Peppers
from plughub.kit.clock import SystemClock
from plughub.settings import Settings


async def main(url: str) -> None:
    database = Database(url, SystemClock())
    follower = Follower(database)
    keys = KeyDirectory(database, Peppers({1: b"p" * 32}), Settings(data_dir=Path("unused")), trusted=follower.trusted)
    await follower.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        question, _, secret = line.strip().partition(" ")
        entry = keys.find(secret)
        if question == "key":
            entry = entry or await keys.resolve(secret)
        sys.stdout.write(f"{entry.status if entry else 'none'}\n")
        sys.stdout.flush()
    await follower.aclose()
    await database.aclose()


asyncio.run(main(sys.argv[1]))
