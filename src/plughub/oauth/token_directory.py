"""Who an access token is: asked on every request that carries one, answered from memory, kept right by the event log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from plughub.db.engine import Database
from plughub.db.tables import membership, oauth_grant, oauth_token, organization, space
from plughub.db.unit_of_work import Event
from plughub.events.cache import FollowedCache, always
from plughub.events.catalogue import GRANT_REVOKED, MEMBER_REMOVED, MEMBER_UPDATED, ORGANIZATION_UPDATED
from plughub.identity.roles import PERMISSIONS
from plughub.keys.service import Peppers
from plughub.kit.caller import TIERS, Caller, Environment, expand_scopes
from plughub.oauth.grants import list_servers
from plughub.oauth.secret import ACCESS, Digests, has_form
from plughub.settings import Settings


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """An access token as admission needs it, with its caller in each environment. `audience`: the one path that it is good at."""

    grant_id: str
    person_id: str
    organization_id: str
    expires_at: float
    audience: str | None
    callers: Mapping[Environment, Caller]


class TokenDirectory:
    """From a token to its TokenEntry. Remembers digests, never tokens."""

    def __init__(self, database: Database, peppers: Peppers, settings: Settings, *, trusted: Callable[[], bool] = always) -> None:
        self._database = database
        self._clock = database.clock
        self._digests = Digests(peppers)
        self._stdio_organizations = frozenset(settings.allow_stdio_organizations)
        self._cache: FollowedCache[tuple[bytes, ...], TokenEntry] = FollowedCache(
            self._load, max_entries=settings.cache_entries, tags=_tags, trusted=trusted
        )
        database.listeners.append(self._follow)

    async def find(self, token: str) -> TokenEntry | None:
        """The token's entry, when it is good now. What has another form never reaches the database."""
        if not has_form(token, ACCESS):
            return None
        return await self.find_by_digests(self.digests(token))

    def digests(self, token: str) -> tuple[bytes, ...]:
        """What a token is looked up by."""
        return tuple(self._digests.all(token))

    async def find_by_digests(self, digests: tuple[bytes, ...]) -> TokenEntry | None:
        """The entry of what `digests` gave for a token, when that is good now."""
        entry = await self._cache.resolve(digests)
        return None if entry is None or entry.expires_at <= self._clock.time() else entry

    async def _load(self, digests: tuple[bytes, ...]) -> TokenEntry | None:
        member = (membership.c.person_id == oauth_grant.c.person_id) & (membership.c.organization_id == oauth_grant.c.organization_id)
        query = (
            select(
                oauth_token.c.grant_id,
                oauth_token.c.scopes,
                oauth_token.c.audience,
                oauth_token.c.expires_at,
                oauth_grant.c.person_id,
                oauth_grant.c.organization_id,
                oauth_grant.c.all_servers,
                membership.c.role,
                organization.c.tier,
                organization.c.operator,
                organization.c.stdio_allowed,
                space.c.id.label("space_id"),
                space.c.environment,
            )
            .join(oauth_grant, oauth_grant.c.id == oauth_token.c.grant_id)
            .join(membership, member)
            .join(organization, organization.c.id == oauth_grant.c.organization_id)
            .join(space, space.c.organization_id == organization.c.id)
            .where(oauth_token.c.digest.in_(digests), oauth_token.c.kind == "access")
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            if not rows:
                return None
            row = rows[0]
            servers = None if row.all_servers else frozenset((await list_servers(connection, [row.grant_id]))[row.grant_id])
        # Never wider than the person is now, whatever they were when they said yes.
        scopes = expand_scopes(frozenset(row.scopes)) & PERMISSIONS[row.role]
        callers: dict[Environment, Caller] = {
            found.environment: Caller(
                organization_id=row.organization_id,
                space_id=found.space_id,
                environment=found.environment,
                key_id=row.grant_id,
                kind="public",
                scopes=scopes,
                servers=servers,
                tier=TIERS[row.tier],
                operator=row.operator,
                stdio_allowed=row.operator or row.stdio_allowed or row.organization_id in self._stdio_organizations,
                credential="token",
                user_id=row.person_id,
                until=row.expires_at,
            )
            for found in rows
        }
        return TokenEntry(row.grant_id, row.person_id, row.organization_id, row.expires_at, row.audience, callers)

    async def _follow(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name == GRANT_REVOKED and event.key_id is not None:
                self._cache.evict_tag(event.key_id)
            elif event.name in (MEMBER_UPDATED, MEMBER_REMOVED):
                self._cache.evict_tag(event.data["user_id"])
            elif event.name == ORGANIZATION_UPDATED:
                self._cache.evict_tag(event.data["organization_id"])


def _tags(entry: TokenEntry) -> tuple[str, str, str]:
    return entry.grant_id, entry.person_id, entry.organization_id
