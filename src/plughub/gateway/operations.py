"""What is done to a server as a whole: tried out, and started anew."""

import time
from dataclasses import dataclass

from plughub.gateway.hub import Hub
from plughub.gateway.lists import RESOURCES
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, ServerDisabled, UpstreamError, UpstreamTimeout
from plughub.upstream.target import Facts, Target

RESTARTED = "the server was restarted"


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
    count = len((await hub.catalog.tools(caller, target)).items)
    latency_us = int((time.perf_counter() - there) * 1e6)
    return Tried(upstream.facts, 0 if connected else int((there - began) * 1e6), latency_us, count)


async def count_resources(hub: Hub, caller: Caller, target: Target) -> int | None:
    """How many resources a server lists; None when the list cannot be had."""
    try:
        return len((await hub.catalog.listing(RESOURCES, caller, target)).items)
    except HubError:
        return None


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
