"""A keyed request, and an atomic batch, cut off between any two awaits and then sent again: one effect, whatever came between."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.serving import Json
from tests.simulation.clients import SERVERS, require
from tests.simulation.invariants import check_leases, check_log, check_tasks
from tests.simulation.kills import Operation, furnish, strike_every_turn
from tests.simulation.loop import VirtualLoop, simulate
from tests.simulation.upstreams import TOOLS
from tests.simulation.world import Fate, Reply, Space, World, world


def server(name: str) -> Json:
    return {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}


def names(made: World) -> Counter[str]:
    with closing(sqlite3.connect(made.app.hub.database.path)) as connection:
        return Counter(name for (name,) in connection.execute("SELECT name FROM server"))


async def twice(made: World, space: Space, path: str, body: Json, once: str, fate: Fate | None) -> tuple[Reply, Reply]:
    """The struck request, and the very same again."""
    headers = {"idempotency-key": once}
    token = body.get("parameters", {}).get("token")
    first = await made.ask(space, "POST", path, body, headers=headers, fate=fate, token=token)
    return first, await made.ask(space, "POST", path, body, headers=headers, token=token)


async def create(made: World, space: Space, fate: Fate | None) -> None:
    """Exactly one server, and its answer at the latest the second time."""
    once = made.new_token().lower()
    first, again = await twice(made, space, SERVERS, server(once), once, fate)
    require(again.status == 201, "a keyed create was not answered", again)
    require(names(made)[once] == 1, f"{once} is there another number of times than once")
    if first.complete and first.status == 201:
        require((again.body, again.headers.get("idempotent-replayed")) == (first.body, "true"), "another answer", again)


async def execute(made: World, space: Space, fate: Fate | None) -> None:
    """At most one run; whoever is given a result is given that of it."""
    called, token = space.servers[0], made.new_token()
    path = f"{SERVERS}/{called.id}/tools/{TOOLS[0]}/execute"
    first, again = await twice(made, space, path, {"parameters": {"do": "answer", "token": token}}, token, fate)
    ran = called.behind.ran[token] if called.behind is not None else 0
    if again.status == 200:
        require(ran == 1, f"{token} ran {ran} times")
    else:
        require(again.status == 409 and again.json["error"]["details"]["reason"] == "may_have_run", "neither an answer nor why", again)
        require(ran <= 1 and first.status != 200, f"{token} ran {ran} times, or its answer was lost")


async def batch(made: World, space: Space, fate: Fate | None) -> None:
    """Both or none, and both when somebody was told so."""
    one, other = made.new_token().lower(), made.new_token().lower()
    operations = [{"method": "POST", "path": "/servers", "body": server(name)} for name in (one, other)]
    told = await made.ask(space, "POST", "/api/batch", {"mode": "atomic", "operations": operations}, fate=fate)
    there = names(made)
    require(there[one] == there[other] <= 1, "half a batch was done")
    if told.complete and told.status == 200:
        require(there[one] == (told.json["succeeded"] == 2), "a batch was acknowledged and is lost", told)


OPERATIONS: dict[str, Operation] = {"create": create, "execute": execute, "batch": batch}


@pytest.mark.requirement("house.simulation", "http.idempotency-in-one-commit", "http.idempotency-recorded-before", "events.batch-atomic")
@pytest.mark.parametrize(("name", "kind"), [*((name, "cut") for name in OPERATIONS), ("execute", "leave"), ("batch", "leave")])
def test_whatever_is_cut_off_has_one_effect(name: str, kind: str, tmp_path: Path, sqlite_template: Path) -> None:
    async def main(loop: VirtualLoop) -> int:
        async with world(loop, tmp_path / "data", sqlite_template) as made:
            struck = await strike_every_turn(made, await furnish(made), OPERATIONS[name], kind)
            await loop.pass_time(30)
            check_leases(made)
            check_tasks()
            require(not made.app.asgi._once._running, "a key is held as if its request ran")
            with closing(sqlite3.connect(made.app.hub.database.path)) as connection:
                check_log(connection)
        assert loop.complaints == []
        return struck

    assert simulate(1, main) > 5
