"""One row for every request of a known caller: the log that `GET /api/logs` reads.

A tool call that reached the exchange has its row already (`gateway.exchange`), and nothing is added to it here. Rows go to the
batching writer; they never hold a query string, a body or a header, and of a path only its route.
"""

import time

import msgspec

from plughub.db.writer import BatchingWriter
from plughub.door.refusals import FORBIDDEN, RefusalTrail
from plughub.door.request import Request
from plughub.door.routes import Route
from plughub.events.catalogue import REQUEST_COMPLETED, RequestDone
from plughub.gateway.exchange import storable_tool
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import HubError, NotPermitted, RateLimited, ServerDisabled, ToolNotFound, UpstreamError, UpstreamTimeout
from plughub.kit.ids import RequestIds, parse_public_id

# Errors of requests whose server was found: only then its id is the caller's to see.
_OF_A_SERVER = (NotPermitted, ServerDisabled, ToolNotFound, UpstreamError, UpstreamTimeout)
_GONE = "CLIENT_GONE"
_MAX_RPC = 100


class RequestLog:
    """Keeps the rows. When the writer is full a row is lost and counted, the request is not refused for it."""

    def __init__(self, writer: BatchingWriter, clock: Clock, refusals: RefusalTrail) -> None:
        self._writer = writer
        self._clock = clock
        self._refusals = refusals
        self.ids = RequestIds(clock)

    def keep(self, request: Request, began: float) -> None:
        """The row of a request that has ended. `began`: `time.perf_counter()` at its first byte."""
        caller, route = request.caller, request.route
        if caller is None or route is None:
            return
        if request.error is not None and request.error.status == FORBIDDEN and not route.hot:
            self._refusals.note(request, request.error)
        if self._writer.full:
            self._writer.left_out += 1
            return
        error = request.error
        outcome = "ok" if error is None and request.status < 400 else error.code if error is not None else _GONE
        self._writer.record(
            (
                caller.space_id,
                REQUEST_COMPLETED,
                self._clock.time(),
                _server_of(request, route, error),
                caller.key_id,
                _tool_of(request, route),
                request.id,
                outcome,
                outcome != "ok",
                int((time.perf_counter() - began) * 1e6),
                request.door,
                _data(request, route, caller),
            )
        )


def _server_of(request: Request, route: Route, error: HubError | None) -> str | None:
    if request.server_id is not None:
        return request.server_id
    if (error is None and request.status >= 400) or (error is not None and not isinstance(error, _OF_A_SERVER)):
        return None
    named = _parameter(request, route, "uuid") or _parameter(request, route, "mcp_id")
    return parse_public_id("mcp", named) if named is not None else None


def _tool_of(request: Request, route: Route) -> str | None:
    tool = request.tool or _parameter(request, route, "tool")
    return storable_tool(tool) if tool is not None else None


def _parameter(request: Request, route: Route, name: str) -> str | None:
    names = [segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")]
    return request.values[names.index(name)] if name in names else None


def _data(request: Request, route: Route, caller: Caller) -> str:
    data: RequestDone = {
        "method": request.scope["method"],
        "path": route.path,
        "status": request.status,
        "scope": request.needed or route.scope,
    }
    if request.rpc is not None:
        data["rpc"] = request.rpc[:_MAX_RPC]
    if isinstance(request.error, RateLimited):
        data["policy"] = request.error.details["policy"]
    return msgspec.json.encode(data).decode()
