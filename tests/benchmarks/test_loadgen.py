"""The load generator counts only answers that are right, so that a fast but wrong hub has no good figures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.loadgen import Job, measure, percentile_us
from benchmarks.upstream_http import Connection

pytestmark = pytest.mark.anyio
BODY = '{"jsonrpc":"2.0","id":@ID@,"method":"tools/call","params":{"name":"echo","arguments":{"text":"@TOKEN@"}}}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def serving(connection: type[Connection]) -> AsyncIterator[str]:
    made: list[Connection] = []

    def make() -> Connection:
        made.append(connection())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    for each in made:
        each.transport.close()
    await asyncio.sleep(0)


class Wrong(Connection):
    """Answers everything with somebody else's token."""

    def reply(self, status: bytes, body: bytes) -> None:
        super().reply(status, body.replace(b"tok-", b"kot-"))


class Failing(Connection):
    """Marks every answer as the tool's error."""

    def reply(self, status: bytes, body: bytes) -> None:
        super().reply(status, body.replace(b"false", b"true"))


class Leaving(Connection):
    """Closes the connection instead of answering a call."""

    def reply(self, status: bytes, body: bytes) -> None:
        self.transport.close() if b"tok-" in body else super().reply(status, body)


async def test_right_answers_are_counted() -> None:
    async with serving(Connection) as url:
        report = await measure(Job(url, BODY, concurrency=3, duration_s=0.05, warmup_s=0, handshake=True))
    assert report.errors == 0
    assert report.calls >= 3
    assert report.p50_us > 0


@pytest.mark.parametrize("server", [Wrong, Failing, Leaving])
async def test_wrong_answers_are_errors(server: type[Connection]) -> None:
    async with serving(server) as url:
        report = await measure(Job(url, BODY, concurrency=2, duration_s=0.05, warmup_s=0, handshake=True))
    assert report.calls == 0
    assert report.errors >= 2
    assert report.first_error


def test_percentiles_of_few_calls() -> None:
    assert percentile_us([], 0.5) == 0
    assert percentile_us([0.001], 0.99) == 1000
    assert percentile_us([0.001, 0.002, 0.003], 0.5) == 2000
