"""Which server is meant and how it is reached: asked on every call, answered from memory, kept right by the event log."""

import json
from collections.abc import Callable, Sequence

from sqlalchemy import RowMapping

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import ORGANIZATION_UPDATED, SERVER_CREATED, SERVER_DELETED, SERVER_UPDATED
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import NotPermitted, ServerNotFound
from plughub.servers import store
from plughub.servers.service import config_aad
from plughub.settings import Settings
from plughub.upstream.target import Target

_CHANGES = frozenset({SERVER_CREATED, SERVER_UPDATED, SERVER_DELETED})


class ServerDirectory:
    """From a server's id to its Target, for callers who may see it."""

    def __init__(self, database: Database, sealer: Sealer, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self._database = database
        self._sealer = sealer
        self._private_networks = settings.allow_private_addresses
        self._targets: FollowedCache[str, Target] = FollowedCache(
            self._load_target, max_entries=settings.cache_entries, tags=_tags, trusted=trusted
        )
        self._spaces: FollowedCache[str, dict[str, Target]] = FollowedCache(
            self._load_space, max_entries=max(64, settings.cache_entries // 100), trusted=trusted
        )
        database.listeners.append(self._follow)

    def find(self, caller: Caller, server_id: str) -> Target | None:
        """The target if it is in memory and the caller may use it; None says only that `visible` must be asked."""
        target = self._targets.find(server_id)
        if target is None or target.space_id != caller.space_id or not (caller.servers is None or server_id in caller.servers):
            return None
        return target

    async def visible(self, caller: Caller, server_id: str) -> Target:
        """The target. Raises NotFound (missing, or of another space: the two look alike) or NotPermitted (the grant excludes it)."""
        target = await self._targets.resolve(server_id)
        if target is None or target.space_id != caller.space_id:
            raise ServerNotFound
        if not caller.granted(server_id):
            raise NotPermitted
        return target

    async def list_visible(self, caller: Caller) -> list[Target]:
        """Every target that the caller may use, by slug; disabled ones too."""
        targets = await self._spaces.resolve(caller.space_id) or {}
        return [target for target in targets.values() if caller.granted(target.server_id)]

    async def find_slug(self, caller: Caller, slug: str) -> Target | None:
        """The target of that slug if the caller may use it; missing and not granted look alike."""
        targets = self._spaces.find(caller.space_id) or await self._spaces.resolve(caller.space_id) or {}
        target = targets.get(slug)
        return target if target is not None and caller.granted(target.server_id) else None

    async def _load_target(self, server_id: str) -> Target | None:
        async with self._database.read() as connection:
            row = await store.find_target(connection, server_id)
        return None if row is None else self._target(row)

    async def _load_space(self, space_id: str) -> dict[str, Target]:
        """By slug, in the order of the slugs."""
        async with self._database.read() as connection:
            rows = await store.list_targets(connection, space_id)
        return {row["slug"]: self._target(row) for row in rows}

    def _target(self, row: RowMapping) -> Target:
        config = json.loads(self._sealer.open(row["sealed_config"], config_aad(row["id"])))
        return Target(
            server_id=row["id"],
            space_id=row["space_id"],
            organization_id=row["organization_id"],
            slug=row["slug"],
            transport=row["transport"],
            revision=row["revision"],
            enabled=row["enabled"],
            command=config.get("command", ""),
            args=tuple(config.get("args", ())),
            secret_args=tuple(config.get("secret_args", ())),
            env=config.get("env", {}),
            url=config.get("url", ""),
            headers=config.get("headers", {}),
            private_networks=None if row["operator"] else self._private_networks,
            call_timeout_s=_seconds(config.get("call_timeout_ms")),
            start_timeout_s=_seconds(config.get("start_timeout_ms")),
            capture=row["capture"],
        )

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name in _CHANGES and event.server_id is not None:
                self._targets.evict(event.server_id)
                self._spaces.evict(event.space_id)
            elif event.name == ORGANIZATION_UPDATED:
                self._targets.evict_tag(event.data["organization_id"])
                self._spaces.evict(event.space_id)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _tags(target: Target) -> tuple[str]:
    return (target.organization_id,)
