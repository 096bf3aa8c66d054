"""Two processes on one database go round without meeting at a server."""

import asyncio
from pathlib import Path

import anyio
import pytest

from plughub.gateway.rounds import AT_ONCE
from tests.fakes.http_servers import HttpServer
from tests.gateway.test_rounds import EVERY_S, Watched, rounds_of
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("servers.health-rounds")
async def test_of_two_processes_one_looks_and_no_more_at_once_than_there_are_places(
    postgres_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with serving(postgres_url, tmp_path) as one:
        elsewhere = tmp_path_factory.mktemp("two")
        async with serving(postgres_url, elsewhere, clock=one.clock, secrets=one.secrets) as two:
            fakes = [Watched() for _ in range(2 * AT_ONCE)]
            async with anyio.create_task_group() as servers:
                urls: list[str] = []
                stop = anyio.Event()
                for fake in fakes:
                    servers.start_soon(_serve, fake, urls, stop)
                with anyio.fail_after(10):
                    while len(urls) < len(fakes):
                        await anyio.lowlevel.checkpoint()
                for number, url in enumerate(urls):
                    await one.register(f"s{number}", url)
                both = [rounds_of(one), rounds_of(two)]
                for rounds in both:
                    await rounds.go_round()
                one.clock.advance(EVERY_S)
                while any(taken := await asyncio.gather(*(rounds.go_round() for rounds in both))):
                    assert max(taken) <= AT_ONCE
                    for rounds in both:
                        await rounds.looked()
                assert [fake.looks for fake in fakes] == [1] * len(fakes)
                stop.set()


async def _serve(fake: Watched, urls: list[str], stop: anyio.Event) -> None:
    async with HttpServer(fake) as server:
        urls.append(server.url)
        await stop.wait()
