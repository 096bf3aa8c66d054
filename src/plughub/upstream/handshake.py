"""Which era a server speaks, and what it says about itself (MCP 2026-07-28 "Versioning", 2025-11-25 "Lifecycle")."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.protocol import versions
from plughub.upstream import messages
from plughub.upstream.calls import Call
from plughub.upstream.messages import RpcError, Unreadable
from plughub.upstream.redact import Redactor
from plughub.upstream.stdio import StdioUpstream
from plughub.upstream.target import Answer, Ask, Era, Facts, Peer

# A legacy server may ignore what it does not know; so long it is given to answer `server/discover`.
PROBE_S = 5.0
# Of a server's own words in an error.
MOST_SHOWN = 500
MODERN_ERRORS = frozenset((-32020, -32021, -32022))
UNSUPPORTED_VERSION = -32022
INITIALIZED = messages.write_notification("notifications/initialized")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class OtherTransport(UpstreamUnreachable):
    """The server refused as one does that speaks the other HTTP transport (MCP 2025-11-25 "Backwards Compatibility"). Nothing was run."""


class _Initialized(msgspec.Struct, gc=False):
    version: str = msgspec.field(name="protocolVersion")
    capabilities: msgspec.Raw = msgspec.Raw(b"{}")
    info: msgspec.Raw = msgspec.field(name="serverInfo", default=msgspec.Raw(b"{}"))
    instructions: msgspec.Raw = msgspec.Raw()


class _DiscoveredMeta(msgspec.Struct, gc=False):
    info: msgspec.Raw = msgspec.field(name="io.modelcontextprotocol/serverInfo", default=msgspec.Raw())


class _Discovered(msgspec.Struct, gc=False):
    supported: list[str] = msgspec.field(name="supportedVersions")
    capabilities: msgspec.Raw = msgspec.Raw(b"{}")
    info: msgspec.Raw = msgspec.field(name="serverInfo", default=msgspec.Raw(b"{}"))
    instructions: msgspec.Raw = msgspec.Raw()
    meta: _DiscoveredMeta = msgspec.field(name="_meta", default_factory=_DiscoveredMeta)


class _Refusal(msgspec.Struct, gc=False):
    supported: list[str] = msgspec.field(default_factory=list)


def discover_ask(timeout_s: float) -> Ask:
    """`server/discover`; the metadata of the era goes with every modern request anyway."""
    return Ask("server/discover", {}, timeout_s)


def initialize_ask(timeout_s: float, peer: Peer | None = None) -> Ask:
    """`initialize` of the newest legacy revision; for the hub itself without capabilities, else with those of `peer`."""
    version = b'"' + versions.LATEST_LEGACY.encode() + b'"'
    capabilities, info = (b"", None) if peer is None else (peer.capabilities, peer.info)
    params = {"protocolVersion": version, "capabilities": capabilities or b"{}", "clientInfo": info or messages.CLIENT_INFO}
    return Ask("initialize", params, timeout_s)


def modern_facts(answer: Answer) -> Facts | None:
    """What `server/discover` told; None when that is no modern answer, or of no revision that we speak."""
    if answer.result is None:
        return None
    try:
        found = msgspec.json.decode(answer.result, type=_Discovered)
    except (msgspec.DecodeError, RecursionError):
        return None
    shared = [version for version in versions.MODERN if version in found.supported]
    if not shared:
        return None
    info = found.meta.info or found.info
    return Facts("modern", shared[0], _object(found.capabilities), _object(info), _text(found.instructions), answer.result)


def legacy_facts(answer: Answer, redact: Redactor) -> Facts:
    """What `initialize` told. Raises UpstreamUnreachable (nothing was run), the server's own words without secrets."""
    if answer.result is None:
        error = error_of(answer)
        message = redact(error.message, MOST_SHOWN)
        raise UpstreamUnreachable(f"the server refused to initialize: {message} ({error.code})", executed="no")
    try:
        found = msgspec.json.decode(answer.result, type=_Initialized)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamUnreachable(f"the answer to initialize cannot be read: {error}", executed="no") from error
    if not _DATE.fullmatch(found.version) or found.version >= versions.LATEST:
        raise UpstreamUnreachable(f"the server speaks MCP revision {redact(found.version, 40)!r}, which is not supported", executed="no")
    return Facts("legacy", found.version, _object(found.capabilities), _object(found.info), _text(found.instructions), answer.result)


@contextmanager
def initializing(timeout_s: float, seen: Callable[[], str] = str) -> Iterator[None]:
    """Around `initialize`: its failures say so, with what was `seen` meanwhile, and that nothing was run."""
    try:
        yield
    except UpstreamTimeout as error:
        if error.executed == "no":
            raise
        raise UpstreamTimeout(f"the server did not answer initialize within {timeout_s:.3g} s{seen()}", executed="no") from error
    except UpstreamUnreachable as error:
        if error.executed == "no":
            raise
        raise UpstreamUnreachable(error.reason, executed="no") from error


def error_of(answer: Answer) -> RpcError:
    """The error of an answer; an empty one when it cannot be read."""
    try:
        return messages.read_error(answer.error or b"")
    except Unreadable:
        return RpcError(0, "unreadable error")


def supported_of(error: RpcError) -> list[str]:
    """`data.supported` of an UnsupportedProtocolVersion error."""
    try:
        return msgspec.json.decode(error.data, type=_Refusal).supported if error.data else []
    except (msgspec.DecodeError, RecursionError):
        return []


def names_ours(error: RpcError) -> bool:
    """Whether a refusal names a modern revision that we speak: asked once more at it, even if that is the one it was asked at."""
    return error.code == UNSUPPORTED_VERSION and any(version in versions.MODERN for version in supported_of(error))


def refused_facts(error: RpcError, redact: Redactor) -> None:
    """A modern server that refused `server/discover`: raise, unless it names a legacy revision to go on with."""
    if error.code in MODERN_ERRORS:
        supported = supported_of(error)
        if not any(version in versions.LEGACY for version in supported):
            names = f" (it speaks {redact(', '.join(supported), 100)})" if supported else ""
            raise UpstreamUnreachable(f"the server refused server/discover: {redact(error.message, MOST_SHOWN)}{names}", executed="no")


def _object(raw: msgspec.Raw) -> bytes:
    value = bytes(raw)
    return value if value[:1] == b"{" else b"{}"


def _text(raw: msgspec.Raw) -> bytes | None:
    value = bytes(raw)
    return value if value[:1] == b'"' else None


async def shake_stdio(upstream: StdioUpstream, timeout_s: float, known: Era | None, probe_s: float = PROBE_S) -> Facts:
    """Find the era on a fresh child and shake hands.

    `server/discover` first, unless the era is known to be legacy; a refusal or `probe_s` of silence lead to `initialize` on the
    same pipe. A server that was legacy and refuses `initialize` is asked what it has become. Raises UpstreamUnreachable or
    UpstreamTimeout (nothing was run).
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    calls: list[Call] = []

    async def probe() -> Facts | None:
        calls.append(upstream.begin(discover_ask(timeout_s), messages.MODERN_META, max(0.001, until - loop.time())))
        await asyncio.wait((calls[-1].future,), timeout=min(probe_s, timeout_s / 3))
        return _probed(calls[-1])

    try:
        if known != "legacy" and (facts := await probe()) is not None:
            return _modern(upstream, facts)
        calls.append(upstream.begin(initialize_ask(timeout_s, upstream.peer), messages.LEGACY_META, max(0.001, until - loop.time())))
        try:
            with initializing(timeout_s, lambda: f"; it printed: {upstream.calls.garbage}" if upstream.calls.garbage else ""):
                facts = legacy_facts(await calls[-1].future, upstream.redact)
        except UpstreamUnreachable:
            # A modern-only server that was slow to start refuses `initialize` after it has answered the probe.
            late = _probed(calls[0]) if len(calls) > 1 else None
            if late is None and known == "legacy" and upstream.ended is None:
                late = await probe()
            if late is None:
                raise
            return _modern(upstream, late)
        upstream.tell(INITIALIZED)
        return facts
    finally:
        for call in calls:
            upstream.calls.abandon(call.id, "the handshake is over")
            if not call.future.cancel() and not call.future.cancelled():
                call.future.exception()  # nobody else looks at it


def _modern(upstream: StdioUpstream, facts: Facts) -> Facts:
    upstream.meta = messages.MODERN_META
    return facts


def _probed(probe: Call) -> Facts | None:
    """What the probe has told so far; None: go on with `initialize`."""
    if not probe.future.done() or probe.future.exception() is not None:
        return None
    return modern_facts(probe.future.result())
