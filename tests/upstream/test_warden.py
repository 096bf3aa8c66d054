"""Children never outlive the hub, and get nothing they were not given."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from plughub.kit.errors import UpstreamUnreachable
from plughub.upstream.pool import Pool
from plughub.upstream.processes import Process, Processes
from tests.upstream.support import FAKES, Recorder, call, stdio

pytestmark = pytest.mark.anyio


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    opened = Processes()
    yield opened
    await opened.aclose(3)


def close_pipes(child: Process) -> None:
    for fd in (child.stdin, child.stdout, child.stderr):
        os.close(fd)


def wait_gone(*pids: int, timeout_s: float = 10) -> None:
    """Wait until the processes have ended, by their descriptors: no polling."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([fd], [], [], timeout_s)[0], f"process {pid} is still there"
        finally:
            os.close(fd)


def python(code: str) -> tuple[str, tuple[str, ...]]:
    return sys.executable, ("-S", "-E", "-c", code)


async def test_a_child_gets_its_config_and_path_home_lang_and_nothing_else(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGHUB_CANARY", "inherited")
    monkeypatch.setenv("LANG", "xx_XX")
    upstream = await pool.get(stdio("legacy", env={"OWN": "ä=1\n2", "EMPTY": ""}))
    found = json.loads(await call(upstream, "environment"))
    env = {name: value for name, value in found["env"].items() if name != "LC_CTYPE"}  # Python sets this one itself
    assert env == {"OWN": "ä=1\n2", "EMPTY": "", "LANG": "xx_XX", "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    assert len(found["fds"]) == 4  # the three pipes and the listing itself
    assert found["sid"] == found["pid"] != os.getsid(0)


async def test_the_config_may_set_path_and_lang(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy", env={"PATH": "/nowhere", "LANG": "C"}))
    env = json.loads(await call(upstream, "environment"))["env"]
    assert (env["PATH"], env["LANG"]) == ("/nowhere", "C")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-command", "command not found: no-such-command"),
        ("/etc/passwd", "permission denied: /etc/passwd"),
        ("", "the command or the name of an environment variable is empty"),
        ("a\0b", "holds a NUL"),
    ],
)
async def test_a_command_that_cannot_run_is_told_in_words(processes: Processes, command: str, words: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    processes.start()
    with pytest.raises(UpstreamUnreachable, match=words) as failed:
        await processes.spawn(command, (), {})
    assert failed.value.executed == "no"
    await processes.aclose(1)
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_how_a_child_ended_is_told(processes: Processes) -> None:
    with anyio.fail_after(10):
        child = await processes.spawn(*python("raise SystemExit(7)"), {})
        assert await child.exited == "the server process exited with code 7"
        close_pipes(child)
        child = await processes.spawn(*python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {})
        assert await child.exited == "the server process was ended by signal SIGKILL"
        close_pipes(child)
    assert processes.pids == []


async def test_a_child_that_ends_with_its_input_is_not_signalled(processes: Processes) -> None:
    child = await processes.spawn(*python("import sys; sys.stdin.read(); raise SystemExit(5)"), {})
    close_pipes(child)
    child.stop(10)
    with anyio.fail_after(5):
        assert await child.exited == "the server process exited with code 5"


@pytest.mark.requirement("upstream.whole-group-ended")
async def test_a_child_that_ignores_everything_is_killed(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy", "stubborn"))
    pid = json.loads(await call(upstream, "environment"))["pid"]
    with anyio.fail_after(5):
        await pool.forget("fake")
        await anyio.to_thread.run_sync(wait_gone, pid)
    assert hooks.last() == ("disconnected", None)


@pytest.mark.requirement("upstream.whole-group-ended")
async def test_grandchildren_end_with_their_server_whatever_they_ignore_and_wherever_they_went(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    pids = json.loads(await call(upstream, "grandchildren"))
    await pool.forget("fake")
    with anyio.fail_after(8):
        await anyio.to_thread.run_sync(wait_gone, *pids)


async def test_grandchildren_end_when_their_server_crashes(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    mine, gone = json.loads(await call(upstream, "grandchildren"))
    with pytest.raises(UpstreamUnreachable, match="exited with code 9"):
        await call(upstream, "leave", code=9)
    with anyio.fail_after(8):
        await anyio.to_thread.run_sync(wait_gone, mine, gone)


async def test_the_death_of_the_warden_ends_its_children_and_a_new_one_takes_over(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    mine, gone = json.loads(await call(upstream, "grandchildren"))
    [child], first = pool.snapshot().children, pool.snapshot().warden_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with anyio.fail_after(8):
        await hooks.until(lambda: hooks.last()[0] == "error")
        await anyio.to_thread.run_sync(wait_gone, child, mine)
        os.kill(gone, signal.SIGKILL)  # nobody can know of it any more
        assert await call(await pool.get(stdio("legacy")), "echo", text="again") == "again"
    assert pool.snapshot().warden_pid != first


async def test_the_warden_is_small(processes: Processes) -> None:
    child = await processes.spawn(*python("import sys; sys.stdin.read()"), {})
    status = Path(f"/proc/{processes.warden_pid}/status").read_text()
    resident_kb = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident_kb < 11 * 1024
    close_pipes(child)


async def test_closing_twice_and_without_children_is_fine(processes: Processes) -> None:
    await processes.aclose(1)
    processes.start()
    pid = processes.warden_pid
    assert pid is not None
    await processes.aclose(1)
    await processes.aclose(1)
    wait_gone(pid)


HUB = """
import asyncio, sys
from plughub.kit.clock import SystemClock
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from tests.upstream.support import Recorder, call, stdio

async def main():
    pool = Pool(Settings(), Recorder(), clock=SystemClock())
    await pool.start()
    upstream = await pool.get(stdio("legacy", "stubborn"))
    pids = await call(upstream, "grandchildren")
    print(pids.strip("[]"), ",", pool.snapshot().children[0], ",", pool.snapshot().warden_pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.requirement("upstream.no-orphans-after-kill")
def test_kill_9_of_the_hub_leaves_no_process() -> None:
    root = FAKES.parents[1]
    hub = subprocess.Popen([sys.executable, "-c", HUB], stdout=subprocess.PIPE, cwd=root, env=os.environ | {"PYTHONPATH": "src:."})
    assert hub.stdout is not None
    with hub.stdout:
        pids = [int(part) for part in hub.stdout.readline().split(b",")]
    assert len(pids) == 4
    hub.kill()
    hub.wait()
    wait_gone(*pids)
