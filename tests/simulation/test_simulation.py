"""The hub under random clients, bad servers and kills, on a loop where every await can be struck; see DESIGN section 6.

`make simulate SEEDS=0:500` runs other storms. The seed is in the name of each test: it replays the failure, `make simulate SEEDS=7`.
"""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.simulation.clients import call_tool
from tests.simulation.invariants import check_calls, check_files, check_leases, check_log, check_rest, check_tasks
from tests.simulation.kills import OPERATIONS, Files, furnish, strike_every_turn
from tests.simulation.loop import VirtualLoop, simulate
from tests.simulation.storm import Storm, run_storm
from tests.simulation.world import Violation, World, world

STEPS = 80
# Always the same ones in a check, which should fail for what was changed alone; `make simulate` is for looking further.
first, _, last = os.environ.get("SEEDS", "1:6").partition(":")
SEEDS = range(int(first), int(last or int(first) + 1))
# Where a client that leaves cancels something; a change of the hub's own records is never cancelled by that.
LEFT = ("execute", "execute stream", "mcp", "one modern stream", "progress", "ask", "answer", "create key")


@pytest.mark.requirement("house.simulation")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_mixed_up_or_left_in_a_storm(seed: int, tmp_path: Path, sqlite_template: Path) -> None:
    run_storm(tmp_path / "data", sqlite_template, seed, STEPS)


def test_a_seed_has_one_history(tmp_path: Path, sqlite_template: Path) -> None:
    one, two = (run_storm(tmp_path / name, sqlite_template, 5, 40) for name in ("one", "two"))
    assert one.journal == two.journal


@pytest.mark.requirement("house.simulation")
@pytest.mark.parametrize(("name", "kind"), [*((name, "cut") for name in OPERATIONS), *((name, "leave") for name in LEFT)])
def test_a_request_may_be_cut_off_between_any_two_awaits(name: str, kind: str, tmp_path: Path, sqlite_template: Path) -> None:
    async def main(loop: VirtualLoop) -> int:
        async with world(loop, tmp_path / "data", sqlite_template) as made:
            struck = await strike_every_turn(made, await furnish(made), OPERATIONS[name], kind)
            await check_rest(made)
        assert loop.complaints == []
        return struck

    assert simulate(1, main) > 5


@pytest.mark.requirement("house.simulation")
def test_a_hub_that_is_killed_after_any_turn_keeps_what_it_acknowledged(tmp_path: Path, sqlite_template: Path) -> None:
    async def main(loop: VirtualLoop) -> Files:
        async with world(loop, tmp_path / "data", sqlite_template) as made:
            files = Files(made)
            await Storm(made, 3, 60).run()
            files.close()
        return files

    pictures = simulate(3, main).pictures
    assert len(pictures) > 30
    for number, (content, acknowledged) in enumerate(pictures):
        check_files(content, acknowledged, tmp_path / str(number))
    with pytest.raises(Violation, match="is lost"):  # and a loss would be seen
        check_files(pictures[0][0], pictures[-1][1], tmp_path / "loss")


# ---- each invariant can fail


def broken(tmp_path: Path, template: Path, fault: str, expected: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with world(loop, tmp_path / "data", template) as made:
            space = await furnish(made)
            with pytest.raises(Violation, match=expected):
                await FAULTS[fault](made, space)

    simulate(1, main)


async def foreign_mark(made: World, space: object) -> None:
    made.spaces[0].servers[0].behind.mark = "mark3x1x"  # type: ignore[union-attr]
    await call_tool(made, made.spaces[0], made.spaces[0].keys[0], made.spaces[0].servers[0], "execute", "answer")


async def foreign_token(made: World, space: object) -> None:
    behind = made.spaces[0].servers[0].behind
    assert behind is not None
    right = behind.result
    behind.result = lambda token, **more: right("TOKEN-0", **more)  # type: ignore[method-assign]
    await call_tool(made, made.spaces[0], made.spaces[0].keys[0], made.spaces[0].servers[0], "mcp", "answer")


async def kept_lease(made: World, space: object) -> None:
    next(iter(made.app.hub.limits._meters.values())).in_flight += 1  # type: ignore[attr-defined]
    check_leases(made)


async def left_task(made: World, space: object) -> None:
    task = made.loop.create_task(Storm(made, 0, 0)._wait_long(random.Random(1)))
    try:
        check_tasks()
    finally:
        task.cancel()


async def lost_row(made: World, space: object) -> None:
    call = await call_tool(made, made.spaces[0], made.spaces[0].keys[0], made.spaces[0].servers[0], "execute", "answer")
    with closing(sqlite3.connect(made.app.hub.database.path)) as connection:  # not flushed yet
        check_calls(connection, [call])


async def gap(made: World, space: object) -> None:
    with closing(sqlite3.connect(made.app.hub.database.path)) as connection:
        connection.execute("UPDATE space SET seq = seq + 1")
        check_log(connection)


async def revoked_key_answers(made: World, space: object) -> None:
    made.spaces[0].keys[0].status = "revoked"
    await call_tool(made, made.spaces[0], made.spaces[0].keys[0], made.spaces[0].servers[0], "execute", "answer")


FAULTS = {
    "foreign mark": foreign_mark,
    "foreign token": foreign_token,
    "kept lease": kept_lease,
    "left task": left_task,
    "lost row": lost_row,
    "gap": gap,
    "revoked key": revoked_key_answers,
}
SEEN = ["was sent", "was sent", "holds 1 leases", "tasks were left", "left no row", "are numbered", "revoked key was answered"]


@pytest.mark.parametrize(("fault", "expected"), [*zip(FAULTS, SEEN, strict=True)])
def test_a_fault_is_seen(fault: str, expected: str, tmp_path: Path, sqlite_template: Path) -> None:
    broken(tmp_path, sqlite_template, fault, expected)
