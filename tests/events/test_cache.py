"""The followed cache: bounded, shared, and never older than the log."""

import asyncio

import anyio
import pytest

from plughub.events.cache import FollowedCache

pytestmark = pytest.mark.anyio


class Source:
    """What a cache loads from; a load may be held between its read and its return."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.loads: list[str] = []
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failing = False

    async def load(self, key: str) -> str | None:
        self.loads.append(key)
        value = self.values.get(key)
        self.reading.set()
        await self.go_on.wait()
        if self.failing:
            raise OSError("no database")
        return value

    def hold(self) -> None:
        self.reading.clear()
        self.go_on.clear()


@pytest.fixture
def source() -> Source:
    return Source()


async def test_value_is_loaded_once_and_found_from_then_on(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    source.values["a"] = "1"
    assert cache.find("a") is None
    assert (await cache.resolve("a"), await cache.resolve("a"), cache.find("a")) == ("1", "1", "1")
    assert source.loads == ["a"]


async def test_absence_is_remembered_too_until_it_is_evicted(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    assert (await cache.resolve("a"), await cache.resolve("a")) == (None, None)
    assert source.loads == ["a"]
    source.values["a"] = "1"
    cache.evict("a")
    assert await cache.resolve("a") == "1"


async def test_those_who_ask_at_once_share_one_load(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    source.values["a"] = "1"
    assert await asyncio.gather(*(cache.resolve("a") for _ in range(50))) == ["1"] * 50
    assert source.loads == ["a"]


async def test_asker_that_goes_away_does_not_take_the_answer_from_the_others(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    source.values["a"] = "1"
    source.hold()
    first, second = asyncio.create_task(cache.resolve("a")), asyncio.create_task(cache.resolve("a"))
    await source.reading.wait()
    first.cancel()
    source.go_on.set()
    assert await second == "1"
    assert source.loads == ["a"]


@pytest.mark.requirement("data.caches-never-stale")
@pytest.mark.parametrize("how", ["evict", "evict_tag", "clear", "evict another"])
async def test_load_that_began_before_an_eviction_is_not_kept_and_not_shared_with_later_askers(source: Source, how: str) -> None:
    """The load read the old state, then the change was committed and evicted, then the load returned."""
    cache = FollowedCache(source.load, max_entries=10, tags=lambda value: [value])
    source.values["a"] = "old"
    source.hold()
    early = asyncio.create_task(cache.resolve("a"))
    with anyio.fail_after(5):
        await source.reading.wait()
        source.values["a"] = "new"
        # What the load will bring is not known yet, so whatever is evicted, it may be that.
        {"evict": lambda: cache.evict("a"), "evict_tag": lambda: cache.evict_tag("t"), "clear": cache.clear}.get(
            how, lambda: cache.evict("b")
        )()
        source.reading.clear()
        late = asyncio.create_task(cache.resolve("a"))
        await source.reading.wait()
        source.go_on.set()
        assert (await early, await late) == ("old", "new")
        assert cache.find("a") == "new"
    assert source.loads == ["a", "a"]


@pytest.mark.requirement("data.caches-never-stale")
async def test_absence_that_was_read_before_an_eviction_is_not_kept(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    source.hold()
    early = asyncio.create_task(cache.resolve("a"))
    await source.reading.wait()
    source.values["a"] = "new"
    cache.evict("a")
    source.go_on.set()
    assert (await early, await cache.resolve("a")) == (None, "new")


@pytest.mark.requirement("data.caches-never-stale")
async def test_untrusted_cache_answers_from_the_database_alone_and_keeps_nothing_of_it(source: Source) -> None:
    trusted = True
    cache = FollowedCache(source.load, max_entries=10, trusted=lambda: trusted)
    source.values["a"] = "old"
    await cache.resolve("a")
    trusted = False
    source.values["a"] = "new"
    assert cache.find("a") is None
    assert await cache.resolve("a") == "new"
    trusted = True  # the follower has caught up, and would have evicted what had changed
    assert cache.find("a") == "old"


async def test_failed_load_fails_its_askers_and_is_not_remembered(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10)
    source.failing = True
    with pytest.raises(OSError):
        await cache.resolve("a")
    source.failing = False
    source.values["a"] = "1"
    assert await cache.resolve("a") == "1"


async def test_tag_evicts_all_that_was_made_of_it_and_nothing_else(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=10, tags=lambda value: value.split())
    source.values |= {"a": "x y", "b": "y", "c": "z"}
    for key in "abc":
        await cache.resolve(key)
    cache.evict_tag("y")
    assert [cache.find(key) for key in "abc"] == [None, None, "z"]
    cache.evict_tag("x")


async def test_oldest_unused_value_goes_at_the_bound_and_junk_pushes_out_none(source: Source) -> None:
    cache = FollowedCache(source.load, max_entries=3, tags=lambda value: [value])
    source.values |= {key: key for key in "abcd"}
    for key in "abc":
        await cache.resolve(key)
    cache.find("a")
    await cache.resolve("d")
    for number in range(1000):
        await cache.resolve(f"junk{number}")
    assert [cache.find(key) for key in "abcd"] == ["a", None, "c", "d"]
    assert len(cache) == 3
    assert len(cache._absent) == 64
    assert set(cache._tagged) == {"a", "c", "d"}
