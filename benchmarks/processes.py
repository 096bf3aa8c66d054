"""Processes seen through /proc: their trees, CPU times, memory, and the CPU they may run on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name: state, ppid, …; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(int(entry))):
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def command_line(pid: int) -> str:
    """The arguments, separated by spaces; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def cpu_s(pids: list[int]) -> float:
    """User and system time of the processes so far, in seconds."""
    return sum((int(fields[11]) + int(fields[12])) * TICK_S for pid in pids if (fields := stat(pid)))


def machine_busy_s() -> float:
    """Seconds that all CPUs have been busy since boot."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) * TICK_S


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pin(pid: int, cpu: int) -> None:
    """Every thread of the process onto one CPU; 0 is this process."""
    for thread in os.listdir(f"/proc/{pid or os.getpid()}/task"):
        os.sched_setaffinity(int(thread), {cpu})


def unpin(pid: int) -> None:
    """Every thread of the process, and what it starts from now on, wherever there is room."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), range(os.cpu_count() or 1))


def start(cpu: int, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A Python process (the interpreter's arguments; options of Popen) that runs on one CPU from its first instruction."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return subprocess.Popen[str]([sys.executable, *arguments], text=True, **options)
    finally:
        os.sched_setaffinity(0, own)


def stop(process: subprocess.Popen[str], grace_s: float = 15) -> None:
    """SIGTERM, and SIGKILL after the grace."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
