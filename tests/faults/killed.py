"""A STDIO server is killed again and again while calls run through it."""

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from plughub import demo_server
from tests.faults.board import Board
from tests.faults.load import Call, Caller, Done
from tests.flows.processes import descendants
from tests.flows.running_hub import RunningHub
from tests.flows.waiting import until

RATE, EVERY_S, TOOL_S = 50.0, 2.0, 0.2
RETRYABLE = (502, 503)


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """kill -9 every two seconds under 50 calls a second that take 0.2 s each."""
    kills = 100 if full else 6
    script = hub.data_dir / "mortal_server.py"
    shutil.copy(demo_server.__file__, script)
    server = hub.register("mortal", sys.executable, ["-I", "-S", str(script)])["uuid"]
    call = Call(server, "slow", {"seconds": TOOL_S})
    async with Caller(hub) as caller:
        assert (await caller.once(call)).status == 200
        calling = asyncio.create_task(caller.steadily(RATE, EVERY_S * (kills + 1), lambda _: call))
        killed = [await _kill(hub, script) for _ in range(kills)]
        done = await calling
    failed = [one for one in done if one.status != 200]
    board.note("calls", f"{len(done)}, of which {len(failed)} failed in {kills} kills")
    board.none("failures without a code to retry on", [one for one in failed if not _retryable(one)])
    in_flight = [(one.ended - at) for at in killed for one in failed if one.sent <= at < one.ended]
    board.at_most("in-flight calls failed after", max(in_flight, default=0.0), 1.0, " s")
    back = [min((one.ended for one in done if one.status == 200 and one.sent >= at), default=at + 60) - at for at in killed]
    board.at_most("served again after", max(back) - TOOL_S, 2.0, " s")
    hub.api("DELETE", f"/api/servers/{server}")
    until(lambda: not _of(script), "the end of the server", 10)
    board.none("zombies", _zombies(hub))
    board.none("orphans", _of(script))


async def _kill(hub: RunningHub, script: Path) -> float:
    """Kill the child two seconds from now; when that was."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_later(EVERY_S, turn.set)
    await turn.wait()
    pids = [pid for pid, command in descendants(hub.process.pid).items() if str(script) in command and "-I" in command]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert pids, "there was nothing to kill"
    return time.monotonic()


def _retryable(done: Done) -> bool:
    return done.status in RETRYABLE and done.body["error"]["details"].get("executed", "no") in ("no", "unknown")


def _of(script: Path) -> list[int]:
    """Processes of anybody that run the script."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and str(script).encode() in _command(entry)]


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def _zombies(hub: RunningHub) -> list[int]:
    """Ended children that nobody has waited for, below the hub."""
    return [pid for pid in descendants(hub.process.pid) if _state(pid) == "Z"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
