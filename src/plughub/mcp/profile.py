"""`/mcp/{profile_slug}`: the servers of one profile, each tool under the name and with the words that the profile gives it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from plughub import __version__
from plughub.gateway.hub import Hub
from plughub.gateway.lists import TOOLS, Item, Kind
from plughub.gateway.names import aggregate_name, stands_for_itself
from plughub.kit.caller import Caller
from plughub.kit.errors import ToolNotFound
from plughub.mcp.conversation import Conversation
from plughub.mcp.everything import Everything
from plughub.profiles.overrides import Overrides, overridden
from plughub.profiles.schemas import Member, Profile
from plughub.upstream.target import Facts, Target


class OneProfile(Everything):
    """What a caller sees of a profile. Servers and tools that are switched off in it are not there."""

    grows = False

    def __init__(self, hub: Hub, profile: Profile) -> None:
        super().__init__(hub)
        self.door = f"profile:{profile.id}"
        self._profile = profile

    async def facts(self, talk: Conversation) -> Facts:
        """The hub's own, under the profile's name."""
        info = msgspec.json.encode({"name": "plughub", "title": self._profile.name, "version": __version__})
        return replace(await super().facts(talk), server_info=info)

    async def targets(self, talk: Conversation) -> Sequence[Target]:
        """The servers that are switched on in the profile."""
        return [target for target in await super().targets(talk) if self._member(target) is not None]

    async def server_ids(self, caller: Caller) -> Iterable[str]:
        """Those of the profile that are switched on."""
        mine = {server_id for server_id, member in self._profile.members.items() if member.enabled}
        return [server_id for server_id in await super().server_ids(caller) if server_id in mine]

    def _member(self, target: Target) -> Member | None:
        member = self._profile.members.get(target.server_id)
        return member if member is not None and member.enabled else None

    def _overrides(self, target: Target) -> Overrides:
        return self._profile.members[target.server_id].overrides

    async def _find(self, talk: Conversation, slug: str) -> Target | None:
        target = await super()._find(talk, slug)
        return target if target is not None and self._member(target) is not None else None

    def _shown(self, kind: Kind, target: Target, items: Sequence[Item]) -> Sequence[Item]:
        return overridden(items, self._overrides(target)) if kind is TOOLS else items

    async def _resolve(self, talk: Conversation, kind: Kind, target: Target, tail: str, whole: str) -> str:
        overrides = self._overrides(target)
        if kind is not TOOLS or not overrides:
            return await super()._resolve(talk, kind, target, tail, whole)
        # Of a server whose tools the profile speaks of, an unknown name is never passed on: it would tell what is switched off.
        catalog = self.hub.catalog
        if not stands_for_itself(whole):
            listing = catalog.known(target) or await catalog.tools(talk.caller, target)
            shown = ((item.name, overrides.shown_name(item.name)) for item in listing.items)
            name = next((own for own, given in shown if given is not None and aggregate_name(target.slug, given) == whole), None)
        else:
            name = overrides.own_name(tail)
            if name is not None and name not in (await catalog.with_tool(talk.caller, target, name)).names:
                name = None
        if name is None:
            raise ToolNotFound(f"Unknown tool: {whole[:200]}", tool=whole[:200])
        return name
