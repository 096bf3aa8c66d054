"""Connections lent to one client at a time: bounds, order, ends."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from plughub.kit.errors import Unavailable, UpstreamUnreachable
from plughub.upstream.lending import Lendable, Lending
from plughub.upstream.target import Answer, Ask, Facts, Peer
from plughub.upstream.watching import Heard, NoStream, Wanted, Watching

pytestmark = pytest.mark.anyio


class Fake:
    """A connection that remembers the levels that it was told."""

    def __init__(self, peer: Peer) -> None:
        self.facts = Facts("legacy", "2025-11-25", b'{"logging":{}}', b"{}")
        self.ended: str | None = None
        self.peer: Peer | None = peer
        self.levels: list[bytes] = []
        self.open = False
        self.watching = Watching(self)

    @property
    def streams(self) -> bool:
        return False

    async def listen(self, wanted: Wanted, begun: Callable[[], None]) -> Heard:
        raise NoStream

    async def request(self, ask: Ask) -> Answer:
        self.levels.append(ask.params["level"])
        return Answer(result=b"{}")

    async def rest(self) -> bool:
        return not self.open


class Maker:
    """Makes and ends connections; `gate` holds the making up."""

    def __init__(self, most: int = 2) -> None:
        self.made: list[Fake] = []
        self.ended: list[tuple[Lendable, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lending = Lending(self.connect, self.end, most=most)

    async def connect(self, peer: Peer) -> Fake:
        await self.gate.wait()
        self.made.append(Fake(peer))
        return self.made[-1]

    async def end(self, connection: Lendable, reason: str) -> None:
        connection.ended = reason
        self.ended.append((connection, reason))

    def lent(self, *names: str, holder: str = "", level: bytes | None = None, wait_s: float = 5) -> AbstractAsyncContextManager[Lendable]:
        capabilities = b"{" + b",".join(b'"%b":{}' % name.encode() for name in names) + b"}"
        return self.lending.lent(Peer(lambda method, params: None, None, capabilities, log_level=level, holder=holder), wait_s)


@pytest.fixture
async def maker() -> Maker:
    return Maker()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await checkpoint()


async def test_a_connection_is_lent_again_to_who_declared_the_same(maker: Maker) -> None:
    for names in (("sampling",), ("sampling",), ("elicitation",)):
        async with maker.lent(*names) as connection:
            assert connection.peer is not None
        assert connection.peer is None
    assert len(maker.made) == 2
    assert maker.lending.loans == 3


@pytest.mark.requirement("upstream.lent-connections")
async def test_roots_make_a_connection_its_clients_own_however_they_are_spelt(maker: Maker) -> None:
    for holder in ("a", "b", "a"):
        async with maker.lent("roots", holder=holder):
            pass
    assert len(maker.made) == 2
    for holder in ("a", "b"):
        async with maker.lent("r\\u006fots", "sampling", holder=holder):
            pass
    assert len(maker.made) == 4
    for holder in ("a", "b"):
        async with maker.lent("sampling", holder=holder):
            pass
    assert len(maker.made) == 5


@pytest.mark.requirement("upstream.lent-connections")
async def test_a_level_is_set_once_and_never_heard_by_who_set_none(maker: Maker) -> None:
    async with maker.lent("sampling", level=b'"debug"') as loud:
        pass
    async with maker.lent("sampling") as quiet:
        assert quiet is not loud
    async with maker.lent("sampling", level=b'"debug"') as again:
        assert again is loud
    async with maker.lent("sampling", level=b'"error"') as other:
        assert other in (loud, quiet)
    async with maker.lent("sampling", level=b'"error"') as same:
        assert same is other
    assert sorted(level for each in maker.made for level in each.levels) == [b'"debug"', b'"error"']


@pytest.mark.requirement("upstream.lent-connections")
async def test_there_are_never_more_than_so_many_and_the_longest_idle_makes_room(maker: Maker) -> None:
    for name in "abc":
        async with maker.lent(name):
            pass
    assert len(list(maker.lending.connections())) == 2
    await until(lambda: [connection for connection, _ in maker.ended] == [maker.made[0]])
    maker.gate.clear()

    async def use(name: str) -> None:
        async with maker.lent(name):
            assert len(list(maker.lending.connections())) <= 2
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        for name in "defghi":
            tasks.start_soon(use, name)
        await checkpoint()
        maker.gate.set()
    assert len(list(maker.lending.connections())) == 2
    await until(lambda: len(maker.ended) == 7)


@pytest.mark.requirement("upstream.lent-connections")
async def test_who_waits_is_served_in_the_order_of_coming_and_not_for_ever(maker: Maker) -> None:
    order: list[int] = []
    leave = asyncio.Event()

    async def use(number: int) -> None:
        async with maker.lent("sampling"):
            order.append(number)
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(use, number)
            await checkpoint()
        with pytest.raises(Unavailable, match="All 2 connections"):
            async with maker.lent("sampling", wait_s=0.01):
                pass
        leave.set()
    assert order == [0, 1, 2, 3, 4, 5]
    assert len(maker.made) == 2


@pytest.mark.requirement("upstream.lent-connections")
async def test_a_call_that_came_to_no_answer_ends_its_connection(maker: Maker) -> None:
    with pytest.raises(ZeroDivisionError):
        async with maker.lent("sampling"):
            raise ZeroDivisionError
    async with maker.lent("sampling"):
        maker.made[-1].open = True
    async with maker.lent("sampling"):
        pass
    await until(lambda: len(maker.ended) == 2)
    assert len(maker.made) == 3
    assert maker.lending.in_flight == 0


async def test_a_connection_that_ended_by_itself_is_not_lent(maker: Maker) -> None:
    async with maker.lent("sampling") as first:
        pass
    first.ended = "gone"
    async with maker.lent("sampling") as second:
        assert second is not first
        second.ended = "gone too"
    maker.lending.rest(100)
    await until(lambda: len(maker.ended) == 2)
    assert list(maker.lending.connections()) == []


async def test_what_is_idle_for_long_is_ended(maker: Maker) -> None:
    async with maker.lent("a"):
        async with maker.lent("b"):
            pass
        maker.lending.rest(0)
        await until(lambda: len(maker.ended) == 1)
    maker.lending.rest(100)
    assert len(list(maker.lending.connections())) == 1
    assert len(maker.lending._idle) == 1


@pytest.mark.requirement("upstream.lent-connections")
async def test_an_end_while_connections_are_made_lent_and_waited_for_leaves_none(maker: Maker) -> None:
    errors: list[str] = []
    leave = asyncio.Event()

    async def use(name: str) -> None:
        try:
            async with maker.lent(name):
                await leave.wait()
        except UpstreamUnreachable as error:
            errors.append(error.reason)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, "a")
        await until(lambda: maker.lending.in_flight == 1)
        maker.gate.clear()
        for name in "bc":
            tasks.start_soon(use, name)
        await checkpoint()
        await maker.lending.aclose("removed")
        maker.gate.set()
        leave.set()
    assert errors == ["removed", "removed"]
    await until(lambda: len(maker.ended) >= 2)
    assert list(maker.lending.connections()) == []
    assert all(each.ended for each in maker.made)


async def test_a_borrower_that_goes_away_gives_its_place_back(maker: Maker) -> None:
    maker.gate.clear()
    for _ in range(5):
        with anyio.move_on_after(0.001):
            async with maker.lent("a"):
                pass
    maker.gate.set()
    async with maker.lent("a"), maker.lent("b"):
        assert maker.lending.in_flight == 2
