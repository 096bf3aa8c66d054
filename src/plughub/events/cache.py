"""A bounded cache that follows the event log."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def always() -> bool:
    """Trust without end: one process owns the database, so it hears of every change itself."""
    return True


class FollowedCache(Generic[K, V]):
    """Values by key, loaded on demand; listeners evict what an event has changed.

    `load` reads the newest state, or None when there is nothing; that answer is kept too, in a part of its own, so that junk keys
    do not push out good ones. `tags` names what a value was made of: an event about one of them evicts it. Loads of one key are
    shared. A load that began before an eviction is given to those who waited for it and not kept: it may have read the old state.
    While `trusted()` is false nothing is answered from memory.
    """

    def __init__(
        self,
        load: Callable[[K], Awaitable[V | None]],
        *,
        max_entries: int,
        tags: Callable[[V], Iterable[str]] = lambda _value: (),
        trusted: Callable[[], bool] = always,
    ) -> None:
        self._load = load
        self._tags = tags
        self._trusted = trusted
        self._max_entries = max_entries
        self._max_absent = max(64, max_entries // 10)
        self._values: OrderedDict[K, V] = OrderedDict()
        self._absent: OrderedDict[K, None] = OrderedDict()
        self._tagged: dict[str, set[K]] = {}
        self._loads: dict[K, asyncio.Task[V | None]] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._values)

    def find(self, key: K) -> V | None:
        """The value if it is here and may be trusted; None says nothing about the database."""
        value = self._values.get(key)
        if value is None or not self._trusted():
            return None
        self._values.move_to_end(key)
        return value

    async def resolve(self, key: K) -> V | None:
        """The value, from memory or from the database; None = there is none."""
        if not self._trusted():
            return await self._load(key)
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
            return value
        if key in self._absent:
            return None
        task = self._loads.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fill(key, self._generation))
            self._loads[key] = task
        # Shielded: one waiter that goes away does not take the answer from the others.
        return await asyncio.shield(task)

    def evict(self, key: K) -> None:
        """The value of this key has changed."""
        self._begin_anew()
        self._absent.pop(key, None)
        self._remove(key)

    def evict_tag(self, tag: str) -> None:
        """Whatever was made of `tag` has changed."""
        self._begin_anew()
        for key in list(self._tagged.get(tag, ())):
            self._remove(key)

    def clear(self) -> None:
        """Anything may have changed."""
        self._begin_anew()
        self._values.clear()
        self._absent.clear()
        self._tagged.clear()

    def _begin_anew(self) -> None:
        # A running load cannot be asked what it has read, so none is kept, and whoever comes from now on starts a new one.
        self._generation += 1
        self._loads.clear()

    async def _fill(self, key: K, generation: int) -> V | None:
        try:
            value = await self._load(key)
        finally:
            if self._generation == generation:
                self._loads.pop(key, None)
        if self._generation == generation:
            self._keep(key, value)
        return value

    def _keep(self, key: K, value: V | None) -> None:
        if value is None:
            self._absent[key] = None
            if len(self._absent) > self._max_absent:
                self._absent.popitem(last=False)
            return
        self._remove(key)
        self._values[key] = value
        for tag in self._tags(value):
            self._tagged.setdefault(tag, set()).add(key)
        if len(self._values) > self._max_entries:
            self._remove(next(iter(self._values)))

    def _remove(self, key: K) -> None:
        value = self._values.pop(key, None)
        if value is None:
            return
        for tag in self._tags(value):
            keys = self._tagged.get(tag)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._tagged[tag]
