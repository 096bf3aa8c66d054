"""What is done to a server as a whole: tried out, and started anew."""

import time
from dataclasses import dataclass

import msgspec

from plughub.gateway.exchange import Call
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, ServerDisabled, UpstreamError, UpstreamTimeout
from plughub.upstream.target import Facts, RawJson, Target

RESTARTED = "the server was restarted"
# A list that goes on for longer is counted as far as here.
_MAX_PAGES = 50
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Page(msgspec.Struct):
    """A page of `resources/list`."""

    resources: list[msgspec.Raw] = msgspec.field(default_factory=list)
    cursor: msgspec.Raw = msgspec.field(name="nextCursor", default=msgspec.Raw())


_page = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class Tried:
    """A server that works. `connect_us` is 0 when it was connected already; `latency_us` is the time of its list of tools."""

    facts: Facts
    connect_us: int
    latency_us: int
    tools_count: int


async def try_server(hub: Hub, caller: Caller, target: Target) -> Tried:
    """Connect, at once even when a start has failed just now, and list the tools anew.

    Raises what the exchange raises: ServerDisabled, UpstreamUnreachable, UpstreamTimeout, UpstreamError, Unavailable.
    """
    hub.pool.forgive(target.server_id)
    began = time.perf_counter()
    connected = hub.pool.ready(target) is not None
    upstream = await hub.exchange.connect(target)
    there = time.perf_counter()
    hub.catalog.forget(target.server_id)
    count = len((await hub.catalog.tools(caller, target)).tools)
    latency_us = int((time.perf_counter() - there) * 1e6)
    hub.board.count_tools(target.server_id, count)
    return Tried(upstream.facts, 0 if connected else int((there - began) * 1e6), latency_us, count)


async def count_resources(hub: Hub, caller: Caller, target: Target, facts: Facts) -> int | None:
    """How many resources a server lists; 0 when it announces none, None when the list cannot be had."""
    if "resources" not in _members.decode(facts.capabilities):
        return 0
    count, cursor = 0, None
    try:
        for _ in range(_MAX_PAGES):
            params: dict[str, RawJson] = {"cursor": cursor} if cursor is not None else {}
            call = Call("resources/list", params, "", "test", hub.settings.start_timeout_s)
            done = await hub.exchange.exchange(caller, target, call)
            page = _page.decode(done.answer.result or b"null")
            count += len(page.resources)
            cursor = bytes(page.cursor)
            if cursor in (b"", b"null"):
                break
    except (HubError, msgspec.DecodeError):
        return None
    return count


async def restart_server(hub: Hub, caller: Caller, target: Target) -> None:
    """End the process or the connections, forget the failures, and start anew; how that went is the server's state.

    Calls under way to this server fail; others notice nothing. Raises ServerDisabled.
    """
    if not target.enabled:
        raise ServerDisabled
    await hub.pool.forget(target.server_id, RESTARTED)
    hub.catalog.forget(target.server_id)
    try:
        await try_server(hub, caller, target)
    except (UpstreamError, UpstreamTimeout):
        pass  # the board has it: the server's state is what the caller asked for
