"""Kills at every turn of the loop: of a request, and of the whole hub."""

import random
from collections.abc import Awaitable, Callable

from plughub.db.engine import DATABASE_FILE
from tests.simulation import clients
from tests.simulation.storm import Storm
from tests.simulation.world import Fate, Space, World

Operation = Callable[[World, Space, Fate | None], Awaitable[object]]
MOST_TURNS = 400


class Files:
    """An observer of the loop: what a hub killed after any turn would leave, with what clients had been told by then.

    The files change by a commit alone; so one picture holds until the next commit, and all that was acknowledged meanwhile with it.
    """

    def __init__(self, world: World) -> None:
        self.pictures: list[tuple[dict[str, bytes], list[tuple[str, str, str]]]] = []
        self._world = world
        self._paths = [world.data_dir / (DATABASE_FILE + suffix) for suffix in ("", "-wal")]
        self._state: list[tuple[int, int]] = []
        self._acknowledged = 0
        self._look()
        world.loop.observers.append(self._look)

    def _look(self) -> None:
        state = [(found.st_size, found.st_mtime_ns) for found in (path.stat() for path in self._paths)]
        if state != self._state:
            self._state = state
            self.pictures.append(({path.name: path.read_bytes() for path in self._paths}, []))
        told = self._world.acknowledged
        # Told in the same turn as the commit: before or after it cannot be seen from here, and after it is what must be shown.
        self.pictures[-1][1][:] = told[:]

    def close(self) -> None:
        """Look no more."""
        self._world.loop.observers.remove(self._look)


async def strike_every_turn(world: World, space: Space, operation: Operation, kind: str) -> int:
    """The operation, cut off after 0, 1, 2 … turns until it ends untouched; how often that was."""
    for turns in range(MOST_TURNS):
        fate = Fate(kind, turns)
        began = world.loop.turn
        await operation(world, space, fate)
        if world.loop.turn - began < turns:
            return turns
        await world.loop.pass_time(0.01)
    raise AssertionError(f"no end after {MOST_TURNS} turns")


def call_at(door: str, do: str = "answer") -> Operation:
    """A call of a tool of the first server."""

    async def call(world: World, space: Space, fate: Fate | None) -> object:
        return await clients.call_tool(world, space, space.keys[0], space.servers[0], door, do, fate=fate)

    return call


def _old(world: World) -> Space:
    """A space whose server keeps the call open while it asks."""
    return next(space for space in world.spaces if space.servers[0].behind is not None and space.servers[0].behind.era == "legacy")


async def ask(world: World, space: Space, fate: Fate | None) -> None:
    """A call that asks its client, struck at first."""
    space = _old(world)
    await clients.call_asked(world, space, space.keys[0], space.servers[0], everything=False, comes_back=True, fate=fate)


async def answer(world: World, space: Space, fate: Fate | None) -> None:
    """A call that asks its client, struck when that comes back."""
    space = _old(world)
    await clients.call_asked(world, space, space.keys[0], space.servers[0], everything=True, comes_back=True, again=fate)


async def create_server(world: World, space: Space, fate: Fate | None) -> None:
    """A server."""
    await clients.create_server(world, space, random.Random(1), fate)


async def rename_server(world: World, space: Space, fate: Fate | None) -> None:
    """Another name."""
    server = space.servers[0]
    await clients.change_server(world, space, server, {"name": f"{server.name}."[-60:]}, fate)


async def create_key(world: World, space: Space, fate: Fate | None) -> None:
    """A key."""
    await clients.create_key(world, space, random.Random(1), fate)


async def revoke_key(world: World, space: Space, fate: Fate | None) -> None:
    """A key, and its end."""
    if all(key.name == "admin" or key.status == "revoked" for key in space.keys):
        await clients.create_key(world, space, random.Random(1))
    await clients.revoke_key(world, space, next(key for key in space.keys if key.name != "admin" and key.status != "revoked"), fate)


async def furnish(world: World) -> Space:
    """The first space with its admin key and one server."""
    storm = Storm(world, 0, 0)
    await storm.run()
    return world.spaces[0]


OPERATIONS: dict[str, Operation] = {
    **{door: call_at(door) for door in clients.DOORS},
    "progress": call_at("one modern stream", "progress"),
    "ask": ask,
    "answer": answer,
    "create server": create_server,
    "rename server": rename_server,
    "create key": create_key,
    "revoke key": revoke_key,
}
