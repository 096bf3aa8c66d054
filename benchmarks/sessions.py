"""What sessions, bridged calls and lists of many tools cost, in one process: `python -m benchmarks.sessions`, about half a minute.

Prints lines of `name: figure`. Sessions are opened and abandoned by a client that never says good-bye.
"""

import asyncio
import gc
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import processes
from tests.serving import META, FakeMcp, Json, Served, serving, upstream

IDLE, ABANDONED, CALLS, LISTS, TOOLS = 1000, 10_000, 400, 200, 150


def rss_mb() -> float:
    """Resident memory after a collection."""
    gc.collect()
    return processes.rss_mb(os.getpid())


async def open_session(hub: Served, path: str, key: str, capabilities: Json) -> None:
    """`initialize`, and never again."""
    params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "bench", "version": "1"}}
    answer = await hub.rpc("initialize", params, path=path, key=key)
    assert answer.status_code == 200, answer.text


async def sessions(hub: Served, path: str) -> None:
    """Memory of idle sessions, and what abandoned ones leave."""
    organization = await hub.operator()
    keys = [await hub.key_of(organization) for _ in range(1 + ABANDONED // hub.app.hub.settings.max_sessions_per_key)]
    capabilities: Json = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}
    for number in range(200):  # warm
        await open_session(hub, path, keys[number % len(keys)], capabilities)
    before, tasks = rss_mb(), len(asyncio.all_tasks())
    for wave in range(3):
        for number in range(ABANDONED):
            await open_session(hub, path, keys[number % len(keys)], capabilities)
            if not wave and number == IDLE - 1:
                print(f"{IDLE} idle sessions: {rss_mb() - before:.1f} MB")
        await hub.app.hub.writer.flush()
        full, there = rss_mb(), len(hub.app.sessions)
        hub.clock.advance(hub.app.hub.settings.session_idle_s + 1)
        hub.app.sessions.sweep()
        print(f"{ABANDONED} opened and abandoned ({there} there): {full - before:.1f} MB, after the idle time {rss_mb() - before:.1f} MB")
    print(f"left of them: {len(hub.app.sessions)} sessions, {len(asyncio.all_tasks()) - tasks} tasks")


async def best_us(work: Callable[[], Awaitable[object]], times: int) -> float:
    """The median of single runs."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return sorted(took)[times // 2] * 1e6


async def calls(hub: Served) -> None:
    """One call in each pairing, without and with capabilities of the client."""
    declared: tuple[Json, ...] = ({}, {"elicitation": {}})
    for era in ("legacy", "modern"):
        async with upstream(hub, FakeMcp(era=era), f"calls-{era}") as made:
            path = f"/servers/{made['uuid']}/mcp"
            for modern in (False, True):
                for capabilities in declared:
                    meta = {"_meta": {META + "clientCapabilities": capabilities}} if modern else {}
                    headers: dict[str, str] = {}
                    if not modern and capabilities:
                        given = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "b", "version": "1"}}
                        headers["mcp-session-id"] = (await hub.rpc("initialize", given, path=path)).headers["mcp-session-id"]

                    async def call(meta: Json = meta, modern: bool = modern, path: str = path, headers: dict[str, str] = headers) -> None:
                        await hub.rpc("tools/call", {"name": "echo", "arguments": {}, **meta}, path=path, modern=modern, headers=headers)

                    await best_us(call, 50)
                    us = await best_us(call, CALLS)
                    what = f"{'modern' if modern else 'legacy'} client, {era} server, {'with' if capabilities else 'without'} capabilities"
                    print(f"call, {what}: {us:.0f} us")


async def lists(hub: Served) -> None:
    """The list of all tools, from the cache."""
    schema = {"type": "object", "properties": {f"p{number}": {"type": "string", "description": "d" * 60} for number in range(8)}}
    tools = [{"name": f"tool{number}", "description": "what it does " * 8, "inputSchema": schema} for number in range(TOOLS // 3)]
    for era in ("legacy", "modern"):
        fakes = [FakeMcp(era=era, tools=tools, list_more={"ttlMs": 3_600_000} if era == "modern" else {}) for _ in range(3)]
        async with upstream(hub, fakes[0], "a"), upstream(hub, fakes[1], "b"), upstream(hub, fakes[2], "c"):
            for modern in (False, True):

                async def ask(modern: bool = modern) -> None:
                    found = (await hub.rpc("tools/list", modern=modern)).content
                    assert found.count(b'"inputSchema"') >= TOOLS

                async def less(modern: bool = modern) -> None:
                    await hub.rpc("ping" if not modern else "server/discover", modern=modern)

                await ask()
                us = await best_us(ask, LISTS) - await best_us(less, LISTS)
                print(f"tools/list of {TOOLS}, {'modern' if modern else 'legacy'} client, {era} servers: {us / 1000:.2f} ms of it")


async def main() -> None:
    """Everything."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(f"sqlite:///{folder}/bench.db", Path(folder) / "data") as hub:
            await hub.settled()
            await calls(hub)
            await lists(hub)
            await sessions(hub, f"/servers/{hub.demo_id}/mcp")


if __name__ == "__main__":
    asyncio.run(main())
    print(json.dumps({"done": True}))
