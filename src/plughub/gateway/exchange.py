"""The only place where a server is asked anything.

REST, `/v1` and MCP all end here; what differs is only how they render. A tool call touches no database: the caller's grant and the
target come from caches that follow the event log, and the record of the call goes to the batching writer.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from plughub.bridge.rounds import without_answers
from plughub.db.writer import BatchingWriter
from plughub.events.catalogue import TOOL_EXECUTED, TOOL_FAILED
from plughub.gateway.asking import answer_of
from plughub.gateway.call_record import MAX_TEXT, Facts, Redactors, captured, sized, text_of_error, text_of_result, with_facts
from plughub.gateway.call_stats import CallStats
from plughub.gateway.tracing import Leg, Trace
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, ServerDisabled, Unavailable
from plughub.protocol import versions
from plughub.servers.directory import ServerDirectory
from plughub.upstream.pool import Pool
from plughub.upstream.target import Answer, Ask, Peer, RawJson, Target, Upstream
from plughub.upstream.target import Facts as ServerFacts

MAX_TOOL_NAME = 256
# With so many rows waiting for the disk nothing is captured: what is captured makes a row large.
_MAX_WAITING = 10_000
# What a call waited for besides its server (a start, mostly) is told when it is more than this.
_WORTH_TELLING_S = 0.001
_IS_ERROR = b'"isError"'


_HEADER_MISMATCH = -32020


class _Outcome(msgspec.Struct):
    isError: bool = False  # noqa: N815  the wire's name


class _Refusal(msgspec.Struct):
    code: int = 0


_outcome = msgspec.json.Decoder(_Outcome)
_refusal = msgspec.json.Decoder(_Refusal)


@dataclass(slots=True)
class Exchanged:
    """An answer, and the facts of the server that gave it: its era decides how the answer is bridged."""

    answer: Answer
    facts: ServerFacts
    duration_us: int


@dataclass(slots=True)
class Call:
    """One request of a caller, as a door has read it. `params` and `meta` are raw JSON values by key.

    `context` is the caller's own note, kept with the record of the call and never sent on; `told` is what the door has to say there,
    as the text of a JSON object; `trace` is the request's part in one. The exchange sets the rest: when the server was asked
    (`time.perf_counter()`), and that the row of the call is kept.
    """

    method: str
    params: Mapping[str, RawJson]
    request_id: str
    door: str
    timeout_s: float
    name: str | None = None
    meta: Mapping[str, RawJson] | None = None
    peer: Peer | None = None
    context: RawJson | None = None
    told: str = "{}"
    trace: Trace | None = None
    asked_at: float = 0.0
    recorded: bool = False


def require_enabled(target: Target) -> None:
    """Raise ServerDisabled."""
    if not target.enabled:
        raise ServerDisabled


class HeaderLines(Protocol):
    """The lines that repeat a tool call's arguments as headers, as its server's list says; from a list fetched `anew` if it must be."""

    async def __call__(self, caller: Caller, target: Target, call: Call, *, anew: bool = False) -> bytes:
        """Raises ToolNotFound for a tool that must not be called, UpstreamTimeout (nothing was run)."""


class Exchange:
    """Asks servers on behalf of callers, and keeps one row of every tool call."""

    def __init__(self, servers: ServerDirectory, pool: Pool, writer: BatchingWriter, clock: Clock, stats: CallStats) -> None:
        self._servers = servers
        self._pool = pool
        self._writer = writer
        self._clock = clock
        self.stats = stats
        self._redactors = Redactors()
        # The lists are had through the exchange, so whoever keeps them comes after it.
        self.header_lines: HeaderLines | None = None

    async def target(self, caller: Caller, server_id: str) -> Target:
        """The server if the caller may use it. Raises NotFound, NotPermitted."""
        return self._servers.find(caller, server_id) or await self._servers.visible(caller, server_id)

    async def connect(self, target: Target, timeout_s: float | None = None) -> Upstream:
        """The live connection, made when there is none. Raises ServerDisabled, UpstreamUnreachable, UpstreamTimeout, Unavailable."""
        require_enabled(target)
        return self._pool.ready(target) or await self._pool.get(target, timeout_s)

    async def exchange(self, caller: Caller, target: Target, call: Call) -> Exchanged:
        """Ask `target` for `caller`. A JSON-RPC error of the server is an answer, not an exception.

        Raises ServerDisabled, UpstreamUnreachable, UpstreamTimeout, Unavailable; InvalidParams for the state of a server that has none.
        """
        return await (self._exchange(caller, target, call) if call.trace is None else self._traced(caller, target, call, call.trace))

    async def _traced(self, caller: Caller, target: Target, call: Call, trace: Trace) -> Exchanged:
        with trace.exchanging(call.method, target.server_id) as leg:
            return await self._exchange(caller, target, call, leg)

    async def _exchange(self, caller: Caller, target: Target, call: Call, leg: Leg | None = None) -> Exchanged:
        upstream = await self.connect(target, call.timeout_s)
        meta, peer, progress = call.meta if leg is None else leg.asking(call.meta), call.peer, False
        if meta:
            meta, peer, progress = _own_meta(meta, peer)
        params = call.params if upstream.facts.era == "modern" else without_answers(call.params)
        ask = Ask(call.method, params, call.timeout_s, call.name, meta, peer, progress)
        call.asked_at = time.perf_counter()
        if call.method == "tools/call" and upstream.facts.era == "modern" and target.transport != "STDIO":
            answer, facts = await self._ask_with_headers(caller, target, call, upstream, ask)
        elif peer is None or not peer.particular:
            answer, facts = await upstream.request(ask), upstream.facts
        else:
            answer, facts = await self._ask(target, upstream, ask)
        return Exchanged(answer, facts, int((time.perf_counter() - call.asked_at) * 1e6))

    async def _ask(self, target: Target, upstream: Upstream, ask: Ask) -> tuple[Answer, ServerFacts]:
        peer = ask.peer
        if peer is None or not peer.particular:
            return await upstream.request(ask), upstream.facts
        if upstream.facts.era == "modern":
            return await answer_of(upstream, ask, peer), upstream.facts
        # A handshake server learns of its client when it is connected, so this client gets a connection for itself meanwhile.
        async with self._pool.lent(target, peer, ask.timeout_s) as own:
            return await own.request(ask), own.facts

    async def _ask_with_headers(
        self, caller: Caller, target: Target, call: Call, upstream: Upstream, ask: Ask
    ) -> tuple[Answer, ServerFacts]:
        """A tool call over HTTP at 2026-07-28; when the server finds the headers wrong, its list may have changed unsaid: once more."""
        if self.header_lines is None:
            return await self._ask(target, upstream, ask)
        ask.headers = await self.header_lines(caller, target, call)
        call.asked_at = time.perf_counter()
        answer, facts = await self._ask(target, upstream, ask)
        if answer.error is not None and _code_of(answer.error) == _HEADER_MISMATCH:
            lines = await self.header_lines(caller, target, call, anew=True)
            if lines != ask.headers:
                return await self._ask(target, upstream, replace(ask, headers=lines))
        return answer, facts

    async def call_tool(self, caller: Caller, target: Target, call: Call) -> Exchanged:
        """`exchange` for `tools/call`, recorded: every call that was admitted leaves one row, whatever came of it."""
        if self._writer.full:
            raise Unavailable("Usage records are waiting for the disk")
        began = time.perf_counter()
        try:
            done = await (self._exchange(caller, target, call) if call.trace is None else self._traced(caller, target, call, call.trace))
        except HubError as error:
            self._keep(caller, target, call, error.code, began, facts={"error": error.text[:MAX_TEXT]})
            raise
        except BaseException:  # cancelled by the client or by a stop: what ran is recorded all the same
            self._keep(caller, target, call, "CANCELLED", began)
            raise
        answer = done.answer
        if answer.result is None:
            text = text_of_error(answer.error, self._redactors.of(target))
            self._keep(caller, target, call, "UPSTREAM_ERROR", began, facts={"rpc_code": _code_of(answer.error), "text": text})
        else:
            waited = call.asked_at - began > _WORTH_TELLING_S
            facts: Facts | None = {"upstream_us": done.duration_us} if waited else None
            self._keep(caller, target, call, "ok", began, result=answer.result, facts=facts)
        return done

    def _keep(
        self,
        caller: Caller,
        target: Target,
        call: Call,
        outcome: str,
        began: float,
        *,
        result: RawJson | None = None,
        facts: Facts | None = None,
    ) -> None:
        """One row: the usage record and the event `tool.executed` (a result came) or `tool.failed` (none came)."""
        tool = call.name
        if tool is not None and (len(tool) > MAX_TOOL_NAME or "\0" in tool):
            tool = storable_tool(tool)
        is_error = result is None or _says_error(result)
        arguments = call.params.get("arguments", b"")
        told = sized(call.told, len(arguments), 0 if result is None else len(result))
        if is_error and result is not None:
            facts = {**(facts or {}), "text": text_of_result(result, self._redactors.of(target))}
        if target.capture and self._writer.waiting < _MAX_WAITING:
            facts = {**(facts or {}), **self._captured(target, arguments, result)}
        call.recorded = True
        seconds = time.perf_counter() - began
        self.stats.record(call.door, target.server_id, outcome, seconds, is_error=is_error)
        self._writer.record(
            (
                caller.space_id,
                TOOL_EXECUTED if outcome == "ok" else TOOL_FAILED,
                self._clock.time(),
                target.server_id,
                caller.key_id,
                tool,
                call.request_id,
                outcome,
                is_error,
                int(seconds * 1e6),
                call.door,
                told if facts is None and call.context is None else with_facts(told, facts or {}, call.context),
            )
        )

    def _captured(self, target: Target, arguments: RawJson, result: RawJson | None) -> Facts:
        redact = self._redactors.of(target)
        kept: Facts = {"arguments": captured(arguments, redact)} if arguments else {}
        return kept if result is None else {**kept, "result": captured(result, redact)}


def _code_of(error: RawJson | None) -> int:
    """The number of a server's JSON-RPC error; 0 when it has none."""
    try:
        return _refusal.decode(error or b"{}").code
    except msgspec.DecodeError:
        return 0


def storable_tool(name: str) -> str:
    """A tool's name as a row may hold it: what no server has is cut, and PostgreSQL cannot hold NUL."""
    return name[:MAX_TOOL_NAME].replace("\0", "\ufffd")


def _says_error(result: RawJson) -> bool:
    """Whether a tool's result is its own error; decoded only when the word occurs at all."""
    if _IS_ERROR not in bytes(result):
        return False
    try:
        return _outcome.decode(result).isError
    except msgspec.DecodeError:
        return False


def _own_meta(meta: Mapping[str, RawJson], peer: Peer | None) -> tuple[dict[str, RawJson] | None, Peer | None, bool]:
    """The caller's `_meta` for the server: without what belongs to the hop, and with progress under a token of the hub's own.

    Progress tokens of different callers may be equal, and they share one connection: the upstream uses its own, and what comes
    back gets the caller's again.
    """
    token = meta.get("progressToken")
    kept = {name: value for name, value in meta.items() if name != "progressToken" and not name.startswith(versions.META)}
    if token is None or peer is None:
        return kept or None, peer, False
    hear = peer.notify

    def renamed(method: str, params: dict[str, RawJson]) -> None:
        if method == "notifications/progress":
            params["progressToken"] = token
        hear(method, params)

    return kept or None, replace(peer, notify=renamed), True
