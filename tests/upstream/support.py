"""What the tests of `upstream` share: hooks that remember, targets, calls."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plughub.upstream.target import Answer, Ask, Notify, RawJson, Target, Upstream

FAKES = Path(__file__).resolve().parents[1] / "fakes"


class Recorder:
    """Hooks that remember and can be waited for."""

    def __init__(self) -> None:
        self.statuses: list[tuple[str, str, str | None]] = []
        self.lines: list[str] = []
        self.notifications: list[tuple[str, dict[str, RawJson]]] = []
        self._changed = asyncio.Event()

    def status(self, target: Target, status: str, error: str | None) -> None:
        self.statuses.append((target.slug, status, error))
        self._changed.set()

    def log(self, target: Target, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    def notification(self, target: Target, method: str, params: dict[str, RawJson]) -> None:
        self.notifications.append((method, params))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def last(self) -> tuple[str, str | None]:
        return self.statuses[-1][1:]

    def logged(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.lines)


def stdio(*args: str, slug: str = "fake", script: str = "stdio_servers.py", revision: int = 1, env: dict[str, str] | None = None) -> Target:
    return Target(
        slug, "space", "org", slug, "STDIO", revision, command=sys.executable, args=("-S", "-E", str(FAKES / script), *args), env=env or {}
    )


def http(url: str, slug: str = "fake", **more: Any) -> Target:
    defaults = {"transport": "STREAMABLE_HTTP", "revision": 1, "url": url, "private_networks": None}
    return Target(slug, "space", "org", slug, **(defaults | more))


def tool(name: str, timeout_s: float = 10, notify: Notify | None = None, **arguments: Any) -> Ask:
    params = {"name": json.dumps(name).encode(), "arguments": json.dumps(arguments).encode()}
    return Ask("tools/call", params, timeout_s, name=name, notify=notify)


def text(answer: Answer) -> str:
    assert answer.result is not None, answer
    found = json.loads(answer.result)["content"][0]["text"]
    assert isinstance(found, str)
    return found


async def call(upstream: Upstream, name: str, **arguments: Any) -> str:
    return text(await upstream.request(tool(name, **arguments)))
