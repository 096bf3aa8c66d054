"""Waiting for something real, never for time alone."""

import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

Found = TypeVar("Found")
_NEVER = threading.Event()


def until(look: Callable[[], Found | None], what: str, deadline_s: float = 10) -> Found:
    """Look again and again until something is found; fails with `what` (and the last sight of it) after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}; last seen: {found!r}")
        _NEVER.wait(0.02)


def until_ended(pidfds: Iterable[int], deadline_s: float = 10) -> int:
    """Wait on the kernel for processes of any parent to end; how many of them still run at the deadline."""
    waiting = select.poll()
    open_fds = set(pidfds)
    for fd in open_fds:
        waiting.register(fd, select.POLLIN)
    end = time.monotonic() + deadline_s
    while open_fds and (left := end - time.monotonic()) > 0:
        for fd, _ in waiting.poll(left * 1000):
            waiting.unregister(fd)
            open_fds.discard(fd)
    return len(open_fds)
