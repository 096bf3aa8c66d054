"""The random program: a seed draws what four spaces' clients do, all at once, and how they are cut off."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine
from pathlib import Path
from typing import Any

from tests.simulation import clients
from tests.simulation.clients import DOORS, require
from tests.simulation.invariants import check_rest
from tests.simulation.loop import VirtualLoop, simulate
from tests.simulation.upstreams import BAD, GOOD, TOOLS
from tests.simulation.world import Fate, Key, Space, World, world

AT_ONCE = 12
_PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.001, 0.01, 0.1, 1.2, 5.0, 20.0)
_FATES = ("leave", "cut")
Drawn = Coroutine[Any, Any, None] | None


class Storm:
    """Steps of one seed. Each step draws from a generator of its own, so that leaving one out leaves the others as they are."""

    def __init__(self, world: World, seed: int, steps: int, skipped: Collection[int] = ()) -> None:
        self.world = world
        self.seed = seed
        self.steps = [step for step in range(steps) if step not in skipped]
        self.running: set[asyncio.Task[None]] = set()
        self.renamed = 0

    async def run(self) -> None:
        """Every step, then calm."""
        for space in self.world.spaces:
            admin = (await self.world.ask(space, "GET", clients.KEYS)).json["keys"][0]
            space.keys.append(Key(admin["id"], secret=space.admin, name="admin"))
            await clients.create_server(self.world, space, random.Random(f"{self.seed}/{space.number}"))
        for step in self.steps:
            rng = random.Random(f"{self.seed}/{step}")
            while len(self.running) >= AT_ONCE:
                await self._wait(asyncio.FIRST_COMPLETED)
            drawn = self.draw(rng)
            if drawn is not None:
                self.running.add(asyncio.create_task(drawn))
            await self.world.loop.pass_time(rng.choice(_PAUSES_S))
            await self._wait(asyncio.FIRST_COMPLETED, timeout=0)
        while self.running:
            await self._wait(asyncio.ALL_COMPLETED)

    async def _wait(self, when: str, timeout: float | None = None) -> None:
        if self.running:
            done, self.running = await asyncio.wait(self.running, return_when=when, timeout=timeout)
            for task in done:
                task.result()

    def draw(self, rng: random.Random) -> Drawn:
        """The next thing that somebody does; None when there is nothing to do it to."""
        space = rng.choice(self.world.spaces)
        fate = Fate(rng.choice(_FATES), rng.choice((0, 1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 120))) if rng.random() < 0.2 else None
        kinds: tuple[tuple[int, Callable[[Space, random.Random, Fate | None], Drawn]], ...] = (
            (40, self._call),
            (12, self._call_asked),
            (4, self._create_server),
            (5, self._change_server),
            (2, self._delete_server),
            (5, self._create_key),
            (5, self._change_key),
            (2, self._revoke_key),
            (10, self._look),
            (8, self._trespass),
            (4, self._weather),
        )
        [kind] = rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        return kind(space, rng, fate)

    def _call(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        server = rng.choice(space.servers)
        key = rng.choice(space.keys)
        do = rng.choice(GOOD if rng.random() < 0.7 else BAD)
        tool, timeout_s = rng.choice(TOOLS), rng.choice((0.5, 3.0, 30.0))
        return _void(clients.call_tool(self.world, space, key, server, rng.choice(DOORS), do, tool=tool, timeout_s=timeout_s, fate=fate))

    def _call_asked(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        key, server, again = rng.choice(space.keys), rng.choice(space.servers), None
        everything, comes_back = rng.random() < 0.5, rng.random() < 0.7
        if rng.random() < 0.3:
            again, fate = fate, None
        return clients.call_asked(self.world, space, key, server, everything=everything, comes_back=comes_back, fate=fate, again=again)

    def _create_server(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        return clients.create_server(self.world, space, rng, fate)

    def _change_server(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        server = rng.choice(space.servers)
        if server.changing or server.deleted or server.behind is None:
            return None
        self.renamed += 1
        wanted = {"name": f"{server.behind.mark} {self.renamed}"} if rng.random() < 0.5 else {"enabled": not server.enabled}
        return clients.change_server(self.world, space, server, wanted, fate)

    def _delete_server(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        server = rng.choice(space.servers)
        return None if server.changing or server.deleted else clients.delete_server(self.world, space, server, fate)

    def _create_key(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        return clients.create_key(self.world, space, rng, fate)

    def _change_key(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        key = rng.choice(space.keys)
        if key.changing or key.name == "admin" or key.status == "revoked":
            return None
        return clients.change_key(self.world, space, key, {"status": "suspended" if key.status == "active" else "active"}, fate)

    def _revoke_key(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        key = rng.choice(space.keys)
        return None if key.changing or key.name == "admin" else clients.revoke_key(self.world, space, key, fate)

    def _look(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        key, server = rng.choice(space.keys), rng.choice(space.servers)
        return rng.choice(
            (
                lambda: clients.list_servers(self.world, space, key, fate),
                lambda: clients.list_keys(self.world, space, fate),
                lambda: clients.list_tools(self.world, space, key, server, fate),
                lambda: clients.list_tools(self.world, space, key, None, fate),
            )
        )()

    def _trespass(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        other = rng.choice([held for held in self.world.spaces if held is not space])
        return clients.trespass(self.world, space, rng.choice(space.keys), other, rng)

    def _weather(self, space: Space, rng: random.Random, fate: Fate | None) -> Drawn:
        return self._outage(space, rng) if rng.random() < 0.5 else self._wait_long(rng)

    async def _wait_long(self, rng: random.Random) -> None:
        await self.world.loop.pass_time(rng.choice((2.0, 16.0, 70.0, 700.0)))

    async def _outage(self, space: Space, rng: random.Random) -> None:
        """A server's process dies, and is back after a while."""
        behind = rng.choice(space.servers).behind
        if behind is not None and not behind.down:
            behind.down = True
            await behind.server.close()
            await self.world.loop.pass_time(rng.choice((0.001, 0.5, 8.0, 40.0)))
            behind.session += 1
            await behind.server.open()
            behind.down = False

    async def calm(self) -> None:
        """Nothing has broken for good: every server that is there answers at every door."""
        await self.world.loop.pass_time(90.0)  # back-off and burst are over
        for space in self.world.spaces:
            for server in space.live_servers:
                if not server.enabled:
                    await clients.change_server(self.world, space, server, {"enabled": True})
                for door in DOORS:
                    call = await clients.call_tool(self.world, space, space.keys[0], server, door, "answer", timeout_s=30.0)
                    require(call.result is not None, f"{server.name} does not answer at the door {door}", call.reply)
                    await self.world.loop.pass_time(2.0)


async def _void(work: Awaitable[object]) -> None:
    await work


async def weather(loop: VirtualLoop, folder: Path, template: Path, seed: int, steps: int, skipped: Collection[int] = ()) -> World:
    """One storm from the start of a hub to its stop; every invariant held."""
    async with world(loop, folder, template) as made:
        storm = Storm(made, seed, steps, skipped)
        await storm.run()
        await storm.calm()
        await check_rest(made)
    await loop.pass_time(30.0)
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task()]  # type: ignore[union-attr]
    require(not names, f"the hub has stopped, and there run {names}")
    require(not loop.timers, f"the hub has stopped, and timers are left: {loop.timers}")
    require(not loop.complaints, f"nobody caught: {loop.complaints[:3]}")
    return made


def run_storm(folder: Path, template: Path, seed: int, steps: int, skipped: Collection[int] = ()) -> World:
    """The storm of a seed. Raises Violation."""
    made: World = simulate(seed, lambda loop: weather(loop, folder, template, seed, steps, skipped))
    return made
