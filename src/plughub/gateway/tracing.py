"""Traces (W3C Trace Context; MCP's `_meta.traceparent`, `tracestate`).

Without an exporter the hub takes no part: what a caller's HTTP headers say of a trace goes on to the server in `_meta`, where MCP
has it, unless the message says it itself. With one each request has spans of the hub, door > exchange > upstream, and the
server hears of the last.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from plughub import __version__
from plughub.kit.errors import HubError
from plughub.upstream.target import RawJson

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

PARENT, STATE = "traceparent", "tracestate"
_PARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# RFC: vendors must take 512 characters; a longer one is dropped, not cut.
_MAX_STATE = 512
_STATE = re.compile(rb"[ -~]*")
_STOP_MS = 3_000
_text = msgspec.json.Decoder(str)
_log = structlog.get_logger("plughub.traces")
Meta = Mapping[str, RawJson]


class Trace(Protocol):
    """A request's part in a trace."""

    def exchanging(self, method: str, server_id: str) -> "Leg":
        """The exchange with a server begins."""


class Leg(Protocol):
    """One exchange: entered while it runs. `asking` is told when the server is asked, and gives the `_meta` for it."""

    def __enter__(self) -> "Leg": ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...

    def asking(self, meta: Meta | None) -> Meta: ...


class Passing:
    """A caller's trace that goes on as it is; both `Trace` and `Leg`."""

    __slots__ = ("_context",)

    def __init__(self, context: dict[str, RawJson]) -> None:
        self._context = context

    def exchanging(self, method: str, server_id: str) -> "Passing":
        """Nothing of the hub's own."""
        return self

    def __enter__(self) -> "Passing":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        pass

    def asking(self, meta: Meta | None) -> Meta:
        """With the caller's context, unless the message has one."""
        if meta is not None and PARENT in meta:
            return meta
        return {**(meta or {}), **self._context}


def passed_on(headers: Mapping[bytes, bytes]) -> Passing | None:
    """What the headers say of a trace; None for nothing, and for what is not well-formed, which is no part of a trace."""
    parent = headers.get(b"traceparent")
    if parent is None or _PARENT.fullmatch(parent) is None:
        return None
    context: dict[str, RawJson] = {PARENT: b'"%b"' % parent}
    state = headers.get(b"tracestate", b"")
    if state and len(state) <= _MAX_STATE and _STATE.fullmatch(state):
        context[STATE] = msgspec.json.encode(state.decode())
    return Passing(context)


class Traces:
    """Makes spans and sends them, in batches from a thread of its own, to the collector at `endpoint` (OTLP over HTTP). Its queue holds
    2,048 spans; what is more is dropped."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("plughub", __version__)

    def door(self, method: str, headers: Mapping[bytes, bytes]) -> "DoorSpan":
        """A request begins."""
        # Loaded with the exporter.
        from opentelemetry.trace import SpanKind

        carrier = {name: headers[name.encode()].decode("latin-1") for name in (PARENT, STATE) if name.encode() in headers}
        span = self._tracer.start_span(method, _extracted(carrier), SpanKind.SERVER, {"http.request.method": method})
        return DoorSpan(self._tracer, span)

    async def aclose(self) -> None:
        """Send what is left, within a few seconds."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._provider.force_flush(_STOP_MS)
        self._provider.shutdown()


class DoorSpan:
    """The span of one request at its door."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: "Tracer", span: "Span") -> None:
        self._tracer = tracer
        self._span = span

    def exchanging(self, method: str, server_id: str) -> "ExchangeSpan":
        """The exchange with a server begins."""
        return ExchangeSpan(self._tracer, self._span, method, server_id)

    def end(self, route: str, status: int, request_id: str, error: HubError | None) -> None:
        """The request is over. `route`: method and path of its row."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(route)
        self._span.set_attributes({"http.response.status_code": status, "plughub.request_id": request_id})
        if error is not None:
            self._span.set_attribute("error.type", error.code)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class ExchangeSpan:
    """The spans of one exchange: of the whole, and of the time that the server had."""

    __slots__ = ("_method", "_server_id", "_span", "_tracer", "_upstream")

    def __init__(self, tracer: "Tracer", door: "Span", method: str, server_id: str) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._method = method
        self._server_id = server_id
        attributes = {"mcp.method.name": method, "plughub.server_id": server_id}
        self._span = tracer.start_span(f"exchange {method}", set_span_in_context(door), attributes=attributes)
        self._upstream: Span | None = None

    def __enter__(self) -> "ExchangeSpan":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from opentelemetry.trace import StatusCode

        for span in (self._upstream, self._span):
            if span is not None:
                if error is not None:
                    span.set_attribute("error.type", error.code if isinstance(error, HubError) else type(error).__name__)
                    span.set_status(StatusCode.ERROR)
                span.end()

    def asking(self, meta: Meta | None) -> Meta:
        """`meta` with the span of the server's time as its parent. A message of another trace than its HTTP request keeps that one, and the
        spans of the hub are linked."""
        from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        kept = dict(meta or {})
        own = set_span_in_context(self._span)
        told = _extracted({name: _words(kept[name]) for name in (PARENT, STATE) if name in kept})
        other = get_current_span(told).get_span_context()
        of_message = other.is_valid and other.trace_id != self._span.get_span_context().trace_id
        parent, links = (told, [Link(self._span.get_span_context())]) if of_message else (own, [])
        attributes = {"mcp.method.name": self._method, "plughub.server_id": self._server_id}
        self._upstream = self._tracer.start_span(f"upstream {self._method}", parent, SpanKind.CLIENT, attributes, links)
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._upstream))
        kept.pop(STATE, None)
        return {**kept, **{name: msgspec.json.encode(value) for name, value in carrier.items()}}


def open_traces(endpoint: str) -> Traces | None:
    """Traces for the collector at `endpoint`, to which `/v1/traces` is added; None when there is none, or no exporter is installed."""
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("no_exporter_of_traces", endpoint=endpoint, remedy="install plughub with its extra `telemetry`")
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": "plughub", "service.version": __version__}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_STOP_MS / 1000)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)


def _extracted(carrier: dict[str, str]) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier, Context())


def _words(raw: RawJson) -> str:
    """A JSON string; what is none is no trace."""
    try:
        return _text.decode(raw)
    except msgspec.DecodeError:
        return ""


__all__ = ["DoorSpan", "ExchangeSpan", "Leg", "Passing", "Trace", "Traces", "open_traces", "passed_on"]
