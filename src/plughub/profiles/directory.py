"""What is in the profile of a slug: asked on every call at its endpoint, answered from memory, kept right by the event log."""

from collections.abc import Callable, Sequence

from plughub.db.engine import Database
from plughub.db.tables import profile
from plughub.db.unit_of_work import Event
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import (
    PROFILE_CREATED,
    PROFILE_DELETED,
    PROFILE_UPDATED,
    SERVER_CREATED,
    SERVER_DELETED,
    SERVER_UPDATED,
)
from plughub.kit.caller import Caller
from plughub.kit.errors import ProfileNotFound
from plughub.profiles import store
from plughub.profiles.schemas import Profile
from plughub.profiles.service import with_members
from plughub.settings import Settings

_PROFILES = frozenset({PROFILE_CREATED, PROFILE_UPDATED, PROFILE_DELETED})
_SERVERS = frozenset({SERVER_CREATED, SERVER_UPDATED, SERVER_DELETED})
# What a profile tells of a server, and where the server is at home.
_TOLD = frozenset({"name", "profile_id"})


class ProfileDirectory:
    """From the slug of a profile to its servers and what it says of them, for callers who may see it."""

    def __init__(self, database: Database, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self._database = database
        self._profiles: FollowedCache[tuple[str, str], Profile] = FollowedCache(
            self._load, max_entries=max(64, settings.cache_entries // 100), tags=_tags, trusted=trusted
        )
        database.listeners.append(self._follow)

    def find(self, caller: Caller, slug: str) -> Profile | None:
        """The profile as the caller sees it if it is in memory; None says only that `resolve` must be asked."""
        found = self._profiles.find((caller.space_id, slug))
        return None if found is None else found.seen_by(caller)

    async def resolve(self, caller: Caller, slug: str) -> Profile:
        """The profile with the servers that the caller's grant includes, disabled ones too.

        Raises ProfileNotFound: missing, of another space, and without a server of the grant look alike.
        """
        found = await self._profiles.resolve((caller.space_id, slug))
        seen = None if found is None else found.seen_by(caller)
        if seen is None:
            raise ProfileNotFound
        return seen

    async def _load(self, key: tuple[str, str]) -> Profile | None:
        space_id, slug = key
        async with self._database.read() as connection:
            row = await store.find_profile(connection, profile.c.space_id == space_id, profile.c.slug == slug)
            return None if row is None else (await with_members(connection, [row]))[0]

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name in _PROFILES:
                self._profiles.evict((event.space_id, event.data["slug"]))
            elif event.name in _SERVERS and (event.name != SERVER_UPDATED or _TOLD.intersection(event.data.get("changed", ()))):
                self._profiles.evict_tag(event.space_id)


def _tags(found: Profile) -> tuple[str]:
    return (found.space_id,)
