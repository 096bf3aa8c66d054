"""What a caller sees: the lists of a server, and of all servers under names that cannot collide."""

import asyncio
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from plughub.gateway.exchange import Call, Exchange
from plughub.gateway.lists import KINDS, OUTDATED_BY, PROMPTS, RESOURCES, TEMPLATES, TOOLS, Item, Kind, Listing, Lists, Reports
from plughub.gateway.names import aggregate_name, aggregate_uri, stands_for_itself
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, ToolNotFound, UpstreamError, UpstreamTimeout
from plughub.protocol.envelope import object_of
from plughub.protocol.param_headers import Param, check_headers, header_lines
from plughub.settings import Settings
from plughub.upstream.target import RawJson, Target

_ASK_AGAIN_S = 5.0
_TOGETHER = 16
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What a door makes of the items of one server before they are put together.
Shown = Callable[[Kind, Target, Sequence[Item]], Sequence[Item]]


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
    """The lists of every kind, and what is made of several of them."""

    def __init__(self, exchange: Exchange, settings: Settings, clock: Clock, reports: Reports) -> None:
        self._clock = clock
        self._lists = {kind.member: Lists(kind, exchange, settings, clock, reports) for kind in KINDS}
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

    def latest_tools(self, server_id: str) -> frozenset[str]:
        """The names of the tools that the server had when they were listed last, none when they are not in memory."""
        held = self._tools.latest(server_id)
        return frozenset() if held is None else held.names

    async def listing(self, kind: Kind, caller: Caller, target: Target) -> Listing:
        """A server's list. Raises what the exchange raises; UpstreamError when the server refuses."""
        return await self._lists[kind.member].get(caller, target)

    async def tools(self, caller: Caller, target: Target) -> Listing:
        """A server's tools."""
        return await self._tools.get(caller, target)

    async def check_tool(self, caller: Caller, target: Target, name: str) -> None:
        """Raise ToolNotFound, with the nearest name, when the server has no such tool.

        Looked for as `with_tool` does.
        """
        held = await self.with_tool(caller, target, name)
        if name not in held.names:
            raise ToolNotFound(unknown("Tool", name, held.names), tool=name[:200])

    async def with_tool(self, caller: Caller, target: Target, name: str) -> Listing:
        """The server's tools, with that name among them if it has it.

        A list that lacks the name is asked for again, at most every five seconds: servers may add tools without saying so.
        """
        held = self.known(target) or await self.tools(caller, target)
        if name not in held.names and self._clock.monotonic() - held.fetched_at > _ASK_AGAIN_S:
            self._tools.forget(target.server_id)
            held = await self.tools(caller, target)
        return held

    async def marks(self, caller: Caller, target: Target, tool: str, timeout_s: float, *, anew: bool = False) -> tuple[Param, ...]:
        """The arguments of a tool that go into headers, by the list as it is known; it is fetched when it is not, or `anew`.

        A server that does not tell its list may still be called. Raises ToolNotFound for a tool that was left out, UpstreamTimeout
        (nothing was run).
        """
        if anew:
            self._tools.forget(target.server_id)
        held = self._tools.known(target)
        if held is None:
            if self._tools.refused(target):
                return ()
            try:
                async with asyncio.timeout(timeout_s):
                    held = await self.tools(caller, target)
            except TimeoutError as error:
                raise UpstreamTimeout(f"The MCP server did not list its tools within {timeout_s:g} s", executed="no") from error
            except HubError:
                return ()
        if tool in held.unusable:
            raise ToolNotFound(f"Tool '{tool[:200]}' cannot be called: {held.unusable[tool]}", tool=tool[:200])
        return held.marked.get(tool, ())

    async def header_lines(self, caller: Caller, target: Target, call: Call, *, anew: bool = False) -> bytes:
        """See `exchange.HeaderLines`."""
        marks = await self.marks(caller, target, call.name or "", call.timeout_s, anew=anew)
        return header_lines(marks, call.params.get("arguments", b"{}")) if marks else b""

    async def check_headers(self, caller: Caller, target: Target, call: Call, headers: Mapping[bytes, bytes]) -> tuple[Param, ...]:
        """Compare the `Mcp-Param-*` headers that a client of 2026-07-28 sent with the arguments; gives what was compared.

        Raises HeaderMismatch, and what `marks` raises.
        """
        marks = await self.marks(caller, target, call.name or "", call.timeout_s)
        if marks:
            check_headers(marks, call.params.get("arguments", b"{}"), headers)
        return marks

    async def across(self, kind: Kind, caller: Caller, targets: Iterable[Target]) -> tuple[list[tuple[Target, Listing]], list[Failure]]:
        """The lists of all enabled `targets`, in their order; and who failed.

        Raises UpstreamError when nothing could be had because servers failed: that is no empty list.
        """
        listed, failures = await self._across(kind, caller, targets)
        if failures and not any(listing.items for _, listing in listed):
            first = failures[0]
            text = f"No server could be reached: {first.slug}: {first.message}"
            raise UpstreamError(text, failures=[failure.shown() for failure in failures])
        return listed, failures

    async def _across(self, kind: Kind, caller: Caller, targets: Iterable[Target]) -> tuple[list[tuple[Target, Listing]], list[Failure]]:
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
        return listed, failures

    async def aggregated(
        self, kind: Kind, caller: Caller, targets: Iterable[Target], shown: Shown | None = None
    ) -> tuple[list[bytes], list[Failure]]:
        """The items of all `targets` under their names here, by slug and then in each server's order; who failed, and what was left
        out because another of the same server has its name."""
        listed, failures = await self.across(kind, caller, targets)
        found: list[bytes] = []
        for target, listing in listed:
            items = listing.items if shown is None else shown(kind, target, listing.items)
            renamed, hidden = _renamed(kind, target.slug, items)
            found += renamed
            failures += [
                Failure(target.slug, target.server_id, f"'{name[:100]}' is left out: another has its name here") for name in hidden
            ]
        return found, failures

    async def resolve(self, kind: Kind, caller: Caller, target: Target, tail: str, whole: str) -> str:
        """The server's own name of an aggregated tool or prompt; changed names are found by their digest. Raises ToolNotFound."""
        if stands_for_itself(whole):
            return tail
        for item in (await self.listing(kind, caller, target)).items:
            if aggregate_name(target.slug, item.name) == whole:
                return item.name
        raise ToolNotFound(f"Unknown {_WORDS[kind]}: {whole[:200]}", tool=whole[:200])

    async def find_owner(self, caller: Caller, targets: Iterable[Target], uri: str) -> list[Target]:
        """The servers that list this URI as their own, else those with a template that begins like it."""
        wanted = list(targets)
        listed, _ = await self._across(RESOURCES, caller, wanted)
        owners = [target for target, listing in listed if uri in listing.names]
        if owners:
            return owners
        templates, _ = await self._across(TEMPLATES, caller, wanted)
        return [target for target, listing in templates if any(_begins(uri, name) for name in listing.names)]


_WORDS = {TOOLS: "tool", PROMPTS: "prompt"}


def _begins(uri: str, template: str) -> bool:
    literal = template.partition("{")[0]
    return bool(literal) and uri.startswith(literal)


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """The documents' sentence, with the nearest name where one is near."""
    near = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f"{what} '{name[:200]}' not found." + (f" Did you mean '{near[0]}'?" if near else "")


def _renamed(kind: Kind, slug: str, items: Iterable[Item]) -> tuple[list[bytes], list[str]]:
    """The items under their names here, and the own names of those that have no name of their own. Of two the first keeps it, and is
    who is called by it."""
    found: dict[str, bytes] = {}
    hidden: list[str] = []
    rename = aggregate_name if kind.key == "name" else aggregate_uri
    for item in items:
        name = rename(slug, item.name)
        if name in found:
            hidden.append(item.name)
            continue
        parts: dict[str, RawJson] = dict(_members.decode(item.raw))
        parts[kind.key] = msgspec.json.encode(name)
        found[name] = object_of(parts)
    return list(found.values()), hidden
