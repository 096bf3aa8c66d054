"""Everybody sends everything fifty times at once with an Idempotency-Key, and the hub is killed among them."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.fakes.http_servers import HttpServer, Seen
from tests.faults.board import Board
from tests.flows.running_hub import RunningHub
from tests.serving import FakeMcp, Json, text_result

RACERS = 50
SETTINGS = {"PLUGHUB_ADDRESS_LIMIT_PER_MINUTE": "1000000", "PLUGHUB_LOG_LEVEL": "error"}
# A kill comes at some moment within so long after the first of the racers.
KILL_WITHIN_S = 0.08
TOOL_S = 0.03


@dataclass
class Lives:
    """One hub after the other on the same data."""

    hub: RunningHub
    kills: int = 0
    up: asyncio.Event = field(default_factory=asyncio.Event)
    client: httpx2.AsyncClient = field(init=False)

    async def begin(self) -> None:
        await asyncio.to_thread(self.hub.__enter__)
        self.client = httpx2.AsyncClient(base_url=self.hub.url, timeout=30, limits=httpx2.Limits(max_connections=RACERS))
        self.up.set()

    async def kill(self) -> None:
        """kill -9, and another start."""
        self.up.clear()
        self.kills += 1
        await asyncio.to_thread(self.hub.kill)
        await self.client.aclose()
        self.hub = RunningHub(self.hub.data_dir, settings=SETTINGS)
        await self.begin()

    async def end(self) -> None:
        await self.client.aclose()
        await asyncio.to_thread(self.hub.__exit__, None, None, None)

    async def insist(self, path: str, body: Json, once: str, key: str | None = None) -> httpx2.Response:
        """Send it until there is an answer that stays: a broken connection or one under way is asked again."""
        headers = {"Authorization": f"Bearer {key or self.hub.key}", "Idempotency-Key": once}
        while True:
            await self.up.wait()
            try:
                answer = await self.client.post(path, json=body, headers=headers)
            except (httpx2.TransportError, RuntimeError):  # the client was closed with its hub
                continue
            if answer.status_code == 503 or (answer.status_code == 409 and _reason(answer) == "in_progress"):
                continue
            return answer


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """Half of the keys make a server, half call a tool that counts."""
    keys, every = (1000, 25) if full else (12, 3)
    fake, chance = FakeMcp(results={"echo": text_result("done")}), random.Random(22)
    lives = Lives(RunningHub(hub.data_dir.with_name("retried"), settings=SETTINGS))
    await lives.begin()
    try:

        async def slow(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
            answer = await fake(seen, writer)
            await _after(TOOL_S if b"tools/call" in seen.body else 0)  # it has run, and the hub does not know
            return answer

        async with HttpServer(slow) as server:
            await _race(lives, board, server.url, fake, [(n, n % every == every // 2) for n in range(keys)], chance)
            await _others(lives, board)
    finally:
        await lives.end()


async def _race(lives: Lives, board: Board, url: str, fake: FakeMcp, rounds: list[tuple[int, bool]], chance: random.Random) -> None:
    made = lives.hub.api("POST", "/api/servers", _server("counts", url)).json()
    outcomes: dict[int, list[httpx2.Response]] = {}
    for number, deadly in rounds:
        path = "/api/servers" if number % 2 else f"/api/servers/{made['uuid']}/tools/echo/execute"
        body = _server(f"raced-{number}") if number % 2 else {"parameters": {"number": number}}
        racing = [asyncio.create_task(lives.insist(path, body, f"key-{number}")) for _ in range(RACERS)]
        if deadly:
            await _after(chance.uniform(0, KILL_WITHIN_S))
            await lives.kill()
        outcomes[number] = list(await asyncio.gather(*racing))
    effects = await _effects(lives, fake)
    creates = {n: answers for n, answers in outcomes.items() if n % 2}
    calls = {n: answers for n, answers in outcomes.items() if n % 2 == 0}
    board.note("keys", f"{len(rounds)}, each sent {RACERS} times at once, in {lives.kills + 1} lives of the hub")
    board.none("creates with another count of servers than one", [n for n in creates if effects[f"raced-{n}"] != 1])
    board.none("creates with another answer than 201", [a.text for answers in creates.values() for a in answers if a.status_code != 201])
    board.none("tools that ran twice", [n for n in calls if effects[n] > 1])
    board.none("answers of tools that did not run", [n for n, answers in calls.items() if _done(answers) and effects[n] != 1])
    refused = [answer for answers in calls.values() for answer in answers if answer.status_code != 200]
    board.none("refusals but 'may have run'", [a.text for a in refused if a.status_code != 409 or _reason(a) != "may_have_run"])
    board.none("keys with two answers", [n for n, answers in outcomes.items() if len({a.content for a in _done(answers)}) > 1])
    board.note("calls that may have run", str(len({n for n, answers in calls.items() if not _done(answers)})))


async def _others(lives: Lives, board: Board) -> None:
    """The same keys with other requests, and from another organisation."""
    made = lives.hub.api("POST", "/api/admin/organizations", {"name": "Tenant", "tier": "enterprise"}).json()
    mismatched = [await lives.insist("/api/servers", _server("other"), f"key-{n}") for n in (0, 1)]
    board.none("other requests that were not refused", [a.text for a in mismatched if a.status_code != 422])
    foreign = await lives.insist("/api/servers", _server("raced-1"), "key-1", made["key"])
    board.none("answers to somebody else", [foreign.text] if "idempotent-replayed" in foreign.headers or foreign.status_code != 201 else [])


async def _effects(lives: Lives, fake: FakeMcp) -> Counter[Any]:
    """How often each thing was done: servers by their name, calls by their number."""
    listed = (await lives.client.get("/api/servers", headers={"Authorization": f"Bearer {lives.hub.key}"})).json()
    names = Counter(server["name"] for server in listed["servers"])
    return Counter(seen.json["params"]["arguments"]["number"] for seen in fake.calls) + names


async def _after(seconds: float) -> None:
    turn = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, turn.set)
    await turn.wait()


def _server(name: str, url: str = "http://127.0.0.1:9/mcp") -> Json:
    return {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": url}}


def _done(answers: list[httpx2.Response]) -> list[httpx2.Response]:
    return [answer for answer in answers if answer.status_code < 300]


def _reason(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["details"].get("reason"))
