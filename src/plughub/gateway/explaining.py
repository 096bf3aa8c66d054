"""Why a key may call a tool, or may not: every check that a real call passes, asked in the same order and of the same functions."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from plughub.cluster.limits import Left
from plughub.gateway.admission import require_scope
from plughub.gateway.exchange import require_enabled
from plughub.gateway.hub import Hub
from plughub.keys.directory import KeyEntry
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, NotPermitted, RateLimited, ServerNotFound, UpstreamTimeout
from plughub.upstream.target import Target

SCOPE = "execute:tools"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `passed` is None when it could not be asked, because of one before it; `status` and `code` are those of the answer
    that a call gets when it does not pass.
    """

    name: str
    passed: bool | None
    reason: str
    status: int | None = None
    code: str | None = None


@dataclass(slots=True)
class Explained:
    """All checks in the order of a call; `decides` is the first that does not pass, None when the call is allowed."""

    checks: list[Check] = field(default_factory=list)

    @property
    def decides(self) -> Check | None:
        """The check whose answer the call gets."""
        return next((check for check in self.checks if check.passed is False), None)


async def explain(hub: Hub, entry: KeyEntry, server_id: str | None, tool: str | None) -> Explained:
    """A call of `tool` (None: of any) of the server with this key; `server_id` None is an id that nothing has.

    Nothing is counted or run. The server's list of tools is fetched as the call would do, when all else passes.
    """
    caller = entry.caller
    found = Explained(list(_of_key(hub, entry)))
    found.checks.append(_asked("scope", f"The key has the scope {SCOPE}", partial(require_scope, caller, SCOPE)))
    found.checks += _of_limits(await hub.admission.left(caller), caller)
    target, checks = await _of_server(hub, caller, server_id)
    found.checks += checks
    if tool is not None:
        if target is None or found.decides is not None:
            found.checks.append(Check("tool", None, "Not asked: another check fails before it"))
        else:
            found.checks.append(await _of_tool(hub, caller, target, tool))
    return found


_KEY_REASONS = {
    "key_revoked": "The key is not revoked",
    "key_expiry": "The key has not expired",
    "key_status": "The key is not suspended",
    "environment": "Keys of this environment are accepted",
    "address": "The key may be used from anywhere",
    "browser": "Not from a browser (a secret key is refused with an Origin header, and in a URL)",
}


def _of_key(hub: Hub, entry: KeyEntry) -> Iterator[Check]:
    for name, rule in hub.admission.rules:
        if name == "address" and entry.addresses is not None:
            yield Check(name, None, "It depends: the key may be used from some addresses alone")
        else:
            yield _asked(name, _KEY_REASONS[name], partial(rule, entry, None, ""))


def _of_limits(left: Left, caller: Caller) -> Iterator[Check]:
    tier = caller.tier
    for policy, rest, limit in (
        ("concurrency", left.concurrency, tier.concurrency),
        ("burst", left.burst, tier.burst),
        ("hourly", left.hourly, tier.hourly),
    ):
        name, reason = f"limit_{policy}", f"{rest} of {limit} left"
        yield Check(name, True, reason) if rest > 0 else Check(name, False, reason, RateLimited.status, RateLimited.code)


async def _of_server(hub: Hub, caller: Caller, server_id: str | None) -> tuple[Target | None, list[Check]]:
    exists, granted = "The server exists in the key's environment", "The key's server grant includes the server"
    try:
        if server_id is None:
            raise ServerNotFound
        target = await hub.exchange.target(caller, server_id)
    except ServerNotFound as error:
        return None, [_failed("server", error), *_unasked("grant", "server_enabled")]
    except NotPermitted as error:
        return None, [Check("server", True, exists), _failed("grant", error), *_unasked("server_enabled")]
    enabled = _asked("server_enabled", "The server is switched on", partial(require_enabled, target))
    return target, [Check("server", True, exists), Check("grant", True, granted), enabled]


async def _of_tool(hub: Hub, caller: Caller, target: Target, tool: str) -> Check:
    timeout_s = hub.call_timeout_s(target)
    try:
        async with asyncio.timeout(timeout_s):
            await hub.catalog.check_tool(caller, target, tool)
    except TimeoutError:
        return _failed("tool", UpstreamTimeout(f"The MCP server did not start within {timeout_s:g} s", executed="no"))
    except HubError as error:
        return _failed("tool", error)
    return Check("tool", True, "The server has the tool")


def _asked(name: str, passed: str, rule: Callable[[], None]) -> Check:
    try:
        rule()
    except HubError as error:
        return _failed(name, error)
    return Check(name, True, passed)


def _failed(name: str, error: HubError) -> Check:
    return Check(name, False, error.text, error.status, error.code)


def _unasked(*names: str) -> list[Check]:
    return [Check(name, None, "Not asked: there is no such server for this key") for name in names]
