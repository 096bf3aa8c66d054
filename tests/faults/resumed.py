"""Clients of the event stream are dropped at random and the hub is killed; each has every event once, in order."""

import asyncio
import random
import time

from tests.faults.board import Board
from tests.faults.streams import Place, Publisher, StreamClient, pause, until
from tests.flows.running_hub import RunningHub

SETTINGS = {"PLUGHUB_ADDRESS_LIMIT_PER_MINUTE": "1000000", "PLUGHUB_LOG_LEVEL": "warning"}
_STARTS_S = 2.0


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """200 clients, 50 drops each and 5 kills under 500 events a second for 20 s; a part of that without `full`."""
    clients, drops, kills, rate, seconds = (200, 50, 5, 500.0, 20.0) if full else (30, 5, 2, 100.0, 8.0)
    place = Place(hub)
    made = hub.api("POST", "/api/auth/keys", {"name": "listener"}).json()
    server = hub.api("GET", "/api/servers").json()["servers"][0]["uuid"]
    following = [StreamClient(place, made["key"], "type=tool.executed") for _ in range(clients)]
    running = [asyncio.create_task(client.run()) for client in following]
    try:
        await until(lambda: all(client.opened for client in following))
        publisher = Publisher(place, server)
        breaking = [asyncio.create_task(_drop(client, drops, seconds)) for client in following]
        await asyncio.gather(publisher.run(rate, seconds), _kill(place, kills, seconds), *breaking)
        wanted = await asyncio.to_thread(_log, place.hub)
        await until(lambda: all(_named(client)[-1:] == wanted[-1:] for client in following))
        board.note("events", f"{len(wanted)} to {clients} clients, {sum(client.opened - 1 for client in following)} times resumed")
        board.none("clients with a gap, a duplicate or another order", [c for c in following if _named(c) != wanted])
        board.none("clients whose unnamed frames differ", [c for c in following if _mirrored(c) != wanted])
        board.none("clients that were told of a gap", [c for c in following if c.gaps])
        began = time.monotonic()
        await asyncio.to_thread(place.hub.api, "DELETE", f"/api/auth/keys/{made['id']}")
        await until(lambda: all(client.refused for client in following))
        board.at_most("streams of a revoked key ended after", time.monotonic() - began, 5.0, " s")
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        if place.hub is not hub:
            await asyncio.to_thread(place.hub.stop)


async def _drop(client: StreamClient, times: int, seconds: float) -> None:
    for _ in range(times):
        await pause(random.uniform(0, 2 * seconds / times))
        client.drop()


async def _kill(place: Place, times: int, seconds: float) -> None:
    """kill -9, and another hub on the same data."""
    for _ in range(times):
        await pause(max(0.5, seconds / (times + 1) - _STARTS_S / 2))
        await asyncio.to_thread(place.hub.kill)
        after = RunningHub(place.hub.data_dir, settings=SETTINGS)
        place.hub = await asyncio.to_thread(after.__enter__)


def _log(hub: RunningHub) -> list[str]:
    """The ids of all calls, as the stream has them, in order."""
    found: list[str] = []
    path, cursor = "/api/event-log?type=tool.executed&order=oldest&limit=100", ""
    while True:
        page = hub.api("GET", path + cursor).json()
        found += [event["id"].removeprefix("evt_").replace("_", "-") for event in page["events"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def _named(client: StreamClient) -> list[str]:
    return [id_ for id_, event in client.frames if event == "tool.executed"]


def _mirrored(client: StreamClient) -> list[str]:
    return [id_.removesuffix(".m") for id_, event in client.frames if event != "tool.executed"]
