"""What a caller sees: the lists of a server, and of all servers under names that cannot collide."""

import asyncio
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from plughub.gateway.exchange import Exchange
from plughub.gateway.lists import KINDS, OUTDATED_BY, TOOLS, Item, Kind, Listing, Lists
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, ToolNotFound, UpstreamError
from plughub.protocol.envelope import object_of
from plughub.settings import Settings
from plughub.upstream.target import RawJson, Target

MAX_NAME = 64
_DIGEST = 6
_ASK_AGAIN_S = 5.0
_TOGETHER = 16
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Failure:
    """A server whose list could not be had, in words that hold no secret."""

    slug: str
    server_id: str
    message: str

    def shown(self) -> dict[str, str]:
        """As the doors tell it."""
        return {"server": self.slug, "server_uuid": self.server_id, "message": self.message}


class Catalog:
    """The lists of every kind, and what is made of several of them. `count_tools` hears how many tools a server has, whoever asked."""

    def __init__(self, exchange: Exchange, settings: Settings, clock: Clock, count_tools: Callable[[Target, int], None]) -> None:
        self._clock = clock
        self._lists = {kind.member: Lists(kind, exchange, settings, clock, count_tools if kind is TOOLS else None) for kind in KINDS}
        self._tools = self._lists[TOOLS.member]

    def forget(self, server_id: str) -> None:
        """No list of this server holds any longer: it changed or reconnected."""
        for lists in self._lists.values():
            lists.forget(server_id)

    def hear(self, server_id: str, method: str) -> None:
        """A server's notification, which may say that a list has changed."""
        for kind in OUTDATED_BY.get(method, ()):
            self._lists[kind.member].forget(server_id)

    def known(self, target: Target) -> Listing | None:
        """The tools if they have been fetched for this configuration, fresh or not."""
        return self._tools.known(target)

    async def listing(self, kind: Kind, caller: Caller, target: Target) -> Listing:
        """A server's list. Raises what the exchange raises; UpstreamError when the server refuses."""
        return await self._lists[kind.member].get(caller, target)

    async def tools(self, caller: Caller, target: Target) -> Listing:
        """A server's tools."""
        return await self._tools.get(caller, target)

    async def check_tool(self, caller: Caller, target: Target, name: str) -> None:
        """Raise ToolNotFound, with the nearest name, when the server has no such tool.

        A list that lacks the name is asked for again, at most every five seconds: servers may add tools without saying so.
        """
        held = self.known(target) or await self.tools(caller, target)
        if name in held.names:
            return
        if self._clock.monotonic() - held.fetched_at > _ASK_AGAIN_S:
            self._tools.forget(target.server_id)
            held = await self.tools(caller, target)
            if name in held.names:
                return
        raise ToolNotFound(unknown("Tool", name, held.names), tool=name[:200])

    async def across(self, kind: Kind, caller: Caller, targets: Iterable[Target]) -> tuple[list[tuple[Target, Listing]], list[Failure]]:
        """The lists of all enabled `targets`, in their order; and who failed.

        Raises UpstreamError when nothing could be had because servers failed: that is no empty list.
        """
        gate = asyncio.Semaphore(_TOGETHER)

        async def one(target: Target) -> Listing | Failure:
            async with gate:
                try:
                    return await self.listing(kind, caller, target)
                except HubError as error:
                    return Failure(target.slug, target.server_id, error.text)

        wanted = [target for target in targets if target.enabled]
        listed: list[tuple[Target, Listing]] = []
        failures: list[Failure] = []
        for target, got in zip(wanted, await asyncio.gather(*(one(target) for target in wanted)), strict=True):
            if isinstance(got, Failure):
                failures.append(got)
            else:
                listed.append((target, got))
        if failures and not any(listing.items for _, listing in listed):
            first = failures[0]
            text = f"No server could be reached: {first.slug}: {first.message}"
            raise UpstreamError(text, failures=[failure.shown() for failure in failures])
        return listed, failures

    async def all_tools(self, caller: Caller, targets: Iterable[Target]) -> tuple[list[bytes], list[Failure]]:
        """The tools of all `targets` under `{slug}__{tool}`, by slug and then in each server's order; and who failed."""
        listed, failures = await self.across(TOOLS, caller, targets)
        return [_renamed(tool, aggregate_name(target.slug, tool.name)) for target, listing in listed for tool in listing.items], failures

    async def resolve(self, caller: Caller, target: Target, tail: str, whole: str) -> str:
        """The server's own name of an aggregated tool; cut names are found by their digest. Raises ToolNotFound."""
        if len(whole) < MAX_NAME:
            return tail
        for name in (await self.tools(caller, target)).names:
            if aggregate_name(target.slug, name) == whole:
                return name
        raise ToolNotFound(f"Unknown tool: {whole}", tool=whole)


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """The documents' sentence, with the nearest name where one is near."""
    near = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f"{what} '{name[:200]}' not found." + (f" Did you mean '{near[0]}'?" if near else "")


def aggregate_name(slug: str, tool: str) -> str:
    """`{slug}__{tool}`; over 64 characters it is cut and ends in a digest of the whole."""
    name = f"{slug}__{tool}"
    if len(name) <= MAX_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=_DIGEST // 2).hexdigest()
    return f"{name[: MAX_NAME - _DIGEST - 1]}_{digest}"


def _renamed(tool: Item, name: str) -> bytes:
    parts: dict[str, RawJson] = dict(_members.decode(tool.raw))
    parts["name"] = msgspec.json.encode(name)
    return object_of(parts)
