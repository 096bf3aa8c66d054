"""What holds when everything has come to rest, and in every file that a killed hub leaves behind."""

import asyncio
import sqlite3
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from plughub.events.audit_check import verify
from plughub.gateway.parked import KEPT_S
from plughub.kit.ids import parse_public_id
from tests.simulation.clients import require
from tests.simulation.upstreams import ASKS
from tests.simulation.world import Call, World

# What a hub runs while nobody asks it anything.
OWN_TASKS = Counter(
    (
        "JobLoop._run",
        "Wiring._write_news",
        "RefusalTrail._run",
        "UsageAlarms._run",
        "Rounds._run",
        "Notifier._run",
        "Deliverer._run",
        "Keeper._run",
        "Lifespan._run",
    ),
)
_REST_S = 30.0


async def check_rest(world: World) -> None:
    """After the last answer: nothing is held, every call is recorded, the log has no gap."""
    hub = world.app.hub
    await world.loop.pass_time(_REST_S)  # lingering streams, idle connections, back-off
    await hub.writer.flush()
    while hub.rounds._looks:
        await world.loop.pass_time(1.0)
    check_leases(world)
    if len(hub.parking):  # their clients have not come back
        await world.loop.pass_time(KEPT_S * 1.5)
        await hub.writer.flush()
    check_input(world)
    held = hub.pool.snapshot().in_flight
    require(held == 0, f"{held} calls are still waiting for a server")
    require(not hub.streams._feeds, "a stream is still open")
    require(not any(lists._running for lists in hub.catalog._lists.values()), "a list is still being fetched")
    require(not hub.database.write_lock.locked(), "the write lock is held")
    require(hub.writer.waiting == 0 and hub.writer.refused == 0 and hub.writer.failures == 0, "rows were refused, or wait")
    check_tasks()
    await check_audit(world)
    with sqlite3.connect(hub.database.path) as connection:
        check_log(connection)
        check_states(connection)
        check_acknowledged(connection, world.acknowledged)
        check_calls(connection, world.calls)
    connection.close()


async def check_audit(world: World) -> None:
    """Every row fits, and none is missing."""
    database = world.app.hub.database
    require(database.chain is not None, "the hub has no chain")
    async for verdict in verify(database, database.chain):  # type: ignore[arg-type]
        require(verdict.broken_at is None, f"the audit is broken at row {verdict.broken_at}: {verdict.reason}")


def check_leases(world: World) -> None:
    """Every place that a request took was given back, once."""
    for subject, meter in world.app.hub.limits._meters.items():  # type: ignore[attr-defined]
        require(meter.in_flight == 0, f"{subject} holds {meter.in_flight} leases")


def check_input(world: World) -> None:
    """Nobody is asked anything, and nothing waits for an answer."""
    hub = world.app.hub
    require(len(hub.parking) == 0 and not hub.parking._tasks and not hub.parking._per_key, f"{len(hub.parking)} requests are parked")
    for supervisor in hub.pool._supervisors.values():
        require(supervisor.lending.in_flight == 0, f"{supervisor.lending.in_flight} connections are lent")
        for connection in supervisor.lending.connections():
            require(len(connection._questions) == 0, "a question is under way")  # type: ignore[attr-defined]


def check_tasks() -> None:
    """No task but the hub's own, the test's, and those of upstreams that still have a connection."""
    names = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task())  # type: ignore[union-attr]
    del names["HttpServer._serve"]
    require(names == OWN_TASKS, f"tasks were left: {names - OWN_TASKS}, or ended: {OWN_TASKS - names}")


def check_log(connection: sqlite3.Connection) -> None:
    """Numbered without gap in each space and over the hub; every change has its event, every event its change."""
    for space_id, seq in connection.execute("SELECT id, seq FROM space"):
        numbers = [row[0] for row in connection.execute("SELECT seq FROM event WHERE space_id = ? ORDER BY seq", (space_id,))]
        require(
            numbers == list(range(1, seq + 1)), f"the events of a space are numbered {numbers[:5]}…{numbers[-5:]}, its counter is {seq}"
        )
    last = connection.execute("SELECT change_no FROM hub").fetchone()[0]
    changes = [row[0] for row in connection.execute("SELECT change_no FROM event WHERE change_no IS NOT NULL ORDER BY change_no")]
    require(changes == list(range(1, last + 1)), f"the changes are numbered {changes[:5]}…, the counter is {last}")
    made, gone = (_told(connection, f"server.{what}", "server_id") for what in ("created", "deleted"))
    there = {(row[0], row[1]) for row in connection.execute("SELECT space_id, id FROM server")}
    require(there == made - gone, "the servers are not those of which the log tells")
    keys = {(row[0], row[1]): row[2] for row in connection.execute("SELECT space_id, id, status FROM api_key")}
    require(keys.keys() == _told(connection, "key.created", "key_id"), "the keys are not those of which the log tells")
    revoked = {key for key, status in keys.items() if status == "revoked"}
    require(revoked == _told(connection, "key.revoked", "key_id"), "the revoked keys are not those of which the log tells")


def check_states(connection: sqlite3.Connection) -> None:
    """No state of a server is told twice in a row, unless it was changed in between."""
    names = ("server.connected", "server.disconnected", "server.error", "server.updated")
    query = f"SELECT server_id, name FROM event WHERE name IN ({', '.join('?' * len(names))}) ORDER BY change_no"
    last: dict[str, str] = {}
    for server_id, name in connection.execute(query, names):
        require(name == "server.updated" or last.get(server_id) != name, f"{name} of {server_id} was told twice")
        last[server_id] = name


def _told(connection: sqlite3.Connection, name: str, column: str) -> set[tuple[str, str]]:
    rows = connection.execute(f"SELECT space_id, {column} FROM event WHERE name = ?", (name,)).fetchall()
    require(len(rows) == len(set(rows)), f"{name} was told twice")
    return set(rows)


def check_acknowledged(connection: sqlite3.Connection, acknowledged: Iterable[tuple[str, str, str]]) -> None:
    """Whatever a client was told is done is in the log, in the right space."""
    for space_id, what, id_ in acknowledged:
        column, value = ("key_id", parse_public_id("key", id_)) if id_.startswith("key_") else ("server_id", str(uuid.UUID(id_)))
        found = connection.execute(f"SELECT 1 FROM event WHERE space_id = ? AND name = ? AND {column} = ?", (space_id, what, value))
        require(found.fetchone(), f"{what} {id_} was acknowledged and is lost")


def check_calls(connection: sqlite3.Connection, calls: Iterable[Call]) -> None:
    """Every call that was admitted left one row; none ran twice."""
    columns = "request_id, outcome, is_error, space_id, server_id, key_id, tool, door"
    query = f"SELECT {columns} FROM event WHERE name LIKE 'tool.%' AND outcome IS NOT NULL AND tool != '{ASKS}'"
    rows = {row[0]: row[1:] for row in connection.execute(query)}
    require(
        len(rows) == connection.execute(query.replace(columns, "count(*)")).fetchone()[0],
        "one request, two rows",
    )
    silent: dict[tuple[str, ...], list[Call]] = defaultdict(list)
    for call in calls:
        reply, behind = call.reply, call.server.behind
        assert reply is not None and behind is not None
        ran = behind.ran[call.token]
        require(ran <= 1, f"{call.token} ran {ran} times")
        if reply.status is None:
            silent[_group(call)].append(call)
            continue
        row = rows.pop(reply.headers["x-request-id"], None)
        require(row is not None or not ran, f"{call.token} ran and left no row ({call.do} at {call.door}: {reply.status})")
        if call.result is not None:
            require(ran == 1, f"{call.token} was answered and never ran")
            # The client of an old revision may leave, or a stop come, while the result is on its way.
            require(row is not None and row[0] == "ok", f"{call.token} was answered, and recorded as {row}")
        if row is not None:
            require(tuple(row[2:]) == _group(call), f"the row {row} is not of {_group(call)}")
            require(ran or row[0] != "ok", f"{call.token} never ran, and is recorded as {row}")
    left = Counter(tuple(row[2:]) for row in rows.values())
    for group, unanswered in silent.items():
        ran = sum(call.server.behind.ran[call.token] for call in unanswered if call.server.behind is not None)
        require(
            ran <= left[group] <= len(unanswered), f"{ran} of {len(unanswered)} calls of clients that left ran, {left[group]} have a row"
        )
    require(not left.keys() - silent.keys(), f"rows of nobody's calls: {left.keys() - silent.keys()}")


def _group(call: Call) -> tuple[str, ...]:
    door = "mcp" if call.door.startswith(("mcp", "one")) else "v1" if call.door.startswith("invoke") else "api"
    key_id = parse_public_id("key", call.key_id)
    assert key_id is not None
    return (call.space.id, call.server.id, key_id, call.tool, door)


def check_files(files: dict[str, bytes], acknowledged: Iterable[tuple[str, str, str]], folder: Path) -> None:
    """What a hub that was killed just now has left: nothing acknowledged lost, nothing half done."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with sqlite3.connect(folder / "plughub.db") as connection:
        require(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the file is damaged")
        check_log(connection)
        check_states(connection)
        check_acknowledged(connection, acknowledged)
    connection.close()
