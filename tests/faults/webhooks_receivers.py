"""Ten webhooks whose receivers do every wrong thing, beside ten good ones, at 100 events a second."""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.processes import rss_mb
from tests.fakes.certificates import certificate
from tests.faults.board import Board, percentile
from tests.faults.webhook_sinks import SECRET, Got, Sinks
from tests.faults.webhooks_killed import KEYS, Writers, pause
from tests.flows.running_hub import Json, RunningHub

BAD = ("error", "hang", "drip", "flood", "redirect", "gone", "reset", "tls", "error", "redirect")
GOOD, RATE = 10, 100.0
RETRY_S = 60.0


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """For 90 s, so that first retries are seen; in CI for 12."""
    seconds = 90.0 if full else 12.0
    key_ids = [hub.api("POST", "/api/auth/keys", {"name": "k"}).json()["id"] for _ in range(KEYS)]
    with tempfile.TemporaryDirectory() as folder:
        _, context = certificate(Path(folder))
    async with Sinks(context) as sinks:
        hooks = {}
        for number, behaviour in enumerate([*["good"] * GOOD, *BAD]):
            body = {"url": sinks.url(behaviour, number), "events": ["key.updated"], "secret": SECRET}
            hooks[f"/{behaviour}/{number}"] = (await asyncio.to_thread(hub.api, "POST", "/api/webhooks", body)).json()["id"]
        before_mb = rss_mb(hub.process.pid)
        writers = Writers(hub.url, hub.key, key_ids)
        writing = asyncio.create_task(writers.run(RATE))
        await pause(seconds)
        writers.stop()
        await writing
        await pause(2.0)
        good, wanted = sinks.of("good"), len(writers.acked)
        board.note("events", f"{wanted}, {len(good)} deliveries to the good ones, {len(sinks.got) - len(good)} attempts at the others")
        board.none("good receivers without all of them", [path for path in _paths(good) if _count(good, path) < wanted])
        board.at_most("good receivers' p99", percentile([got.late_s for got in good], 0.99), 1.0, " s")
        board.at_most("redirects followed", sinks.redirected, 0)
        board.at_most("attempts at one that answered 410", len(sinks.of("gone")), 40)
        shown = {path: (await asyncio.to_thread(hub.api, "GET", f"/api/webhooks/{id_}")).json() for path, id_ in hooks.items()}
        board.none("switched off, but those that are gone", _wrongly_off(shown))
        board.none(
            "gone, and not switched off", [path for path, row in shown.items() if "gone" in path and row["disabled_reason"] != "gone"]
        )
        board.none("TLS without a good certificate", sinks.of("tls"))
        board.none("bad signatures", [got for got in sinks.got if not got.good])
        if full:
            waits = _first_retries(sinks.of("error"))
            board.at_most("first retries off the schedule", max((abs(wait - RETRY_S) / RETRY_S for wait in waits), default=1.0), 0.2)
        board.at_most("memory", rss_mb(hub.process.pid) - before_mb, 40, " MB more")


def _paths(got: list[Got]) -> set[str]:
    return {one.path for one in got}


def _count(got: list[Got], path: str) -> int:
    return len({one.id for one in got if one.path == path})


def _wrongly_off(shown: dict[str, Json]) -> list[str]:
    return [path for path, row in shown.items() if not row["active"] and "gone" not in path]


def _first_retries(got: list[Got]) -> list[float]:
    """Seconds between the first and the second attempt of each that has both."""
    first = {(one.path, one.id): one.at for one in got if one.attempt == 0}
    return [one.at - first[one.path, one.id] for one in got if one.attempt == 1 and (one.path, one.id) in first]
