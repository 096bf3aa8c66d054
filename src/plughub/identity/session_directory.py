"""Who a browser is: asked on every request with a cookie, answered from memory, kept right by the event log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from plughub.db.engine import Database
from plughub.db.tables import membership, organization, person_session, space
from plughub.db.unit_of_work import Event
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import MEMBER_REMOVED, MEMBER_UPDATED, ORGANIZATION_UPDATED, SESSION_ENDED, SESSION_SWITCHED
from plughub.identity.roles import PERMISSIONS
from plughub.kit.caller import Caller, Environment, tier_with
from plughub.kit.crypto import token_digest
from plughub.settings import Settings

# How exactly it is known when a session was used last: at most so often that costs a write.
SEEN_EVERY_S = 60.0


@dataclass(slots=True)
class SessionEntry:
    """A session as admission needs it, with its caller in each environment. `seen_at` moves; all else is replaced when it changes."""

    session_id: str
    person_id: str
    organization_id: str
    expires_at: float
    seen_at: float
    callers: Mapping[Environment, Caller]


class SessionDirectory:
    """From a token to its SessionEntry. Remembers digests, never tokens."""

    def __init__(self, database: Database, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self._database = database
        self._clock = database.clock
        self._idle_s = settings.login_idle_s
        self._seen_every_s = min(SEEN_EVERY_S, settings.login_idle_s / 2)
        self._stdio_organizations = frozenset(settings.allow_stdio_organizations)
        self._cache: FollowedCache[bytes, SessionEntry] = FollowedCache(
            self._load, max_entries=settings.cache_entries, tags=_tags, trusted=trusted
        )
        database.listeners.append(self._follow)

    async def find(self, token: str) -> SessionEntry | None:
        """The session of a token, when it is good now."""
        return await self.find_by_digest(token_digest(token))

    async def find_by_digest(self, digest: bytes) -> SessionEntry | None:
        """The same by the token's `kit.crypto.token_digest`."""
        now = self._clock.time()
        entry = await self._cache.resolve(digest)
        if entry is None or entry.expires_at <= now:
            return None
        if now - entry.seen_at >= self._seen_every_s and not await self._seen(digest, entry, now):
            return None
        return entry

    async def _seen(self, digest: bytes, entry: SessionEntry, now: float) -> bool:
        """Note the use; false when the session was unused for too long. The database knows of its use in other processes too."""
        before, entry.seen_at = entry.seen_at, now  # whoever comes meanwhile need not write as well
        alive = (person_session.c.id == entry.session_id, person_session.c.seen_at > now - self._idle_s)
        noted = False
        try:
            async with self._database.unit_of_work() as uow:
                statement = update(person_session).where(*alive).values(seen_at=now).returning(person_session.c.id)
                noted = (await uow.execute(statement)).first() is not None
        finally:
            if not noted:
                entry.seen_at = before
                self._cache.evict(digest)
        return noted

    async def _load(self, digest: bytes) -> SessionEntry | None:
        query = (
            select(
                person_session.c.id,
                person_session.c.person_id,
                person_session.c.organization_id,
                person_session.c.expires_at,
                person_session.c.seen_at,
                membership.c.role,
                organization.c.tier,
                organization.c.hourly_limit,
                organization.c.burst_limit,
                organization.c.concurrency_limit,
                organization.c.operator,
                organization.c.stdio_allowed,
                space.c.id.label("space_id"),
                space.c.environment,
            )
            .join(
                membership,
                (membership.c.person_id == person_session.c.person_id) & (membership.c.organization_id == person_session.c.organization_id),
            )
            .join(organization, organization.c.id == person_session.c.organization_id)
            .join(space, space.c.organization_id == organization.c.id)
            .where(person_session.c.digest == digest)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            return None
        callers: dict[Environment, Caller] = {
            row.environment: Caller(
                organization_id=row.organization_id,
                space_id=row.space_id,
                environment=row.environment,
                key_id=row.id,
                kind="public",
                scopes=PERMISSIONS[row.role],
                servers=None,
                # What keys made by the person may use; what the session itself may is one limit of all of the person's.
                tier=tier_with(row.tier, row.hourly_limit, row.burst_limit, row.concurrency_limit),
                operator=row.operator,
                stdio_allowed=row.operator or row.stdio_allowed or row.organization_id in self._stdio_organizations,
                credential="session",
                user_id=row.person_id,
            )
            for row in rows
        }
        row = rows[0]
        return SessionEntry(row.id, row.person_id, row.organization_id, row.expires_at, row.seen_at, callers)

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name in (SESSION_ENDED, SESSION_SWITCHED):
                self._cache.evict_tag(event.data["session_id"])
            elif event.name in (MEMBER_UPDATED, MEMBER_REMOVED):
                self._cache.evict_tag(event.data["user_id"])
            elif event.name == ORGANIZATION_UPDATED:
                self._cache.evict_tag(event.data["organization_id"])


def _tags(entry: SessionEntry) -> tuple[str, str, str]:
    return entry.session_id, entry.person_id, entry.organization_id
