"""A server of both eras cut to one, so that the hub must translate: old servers as they refuse what they do not know, new ones likewise."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

ERAS = ("both", "legacy", "modern")
Json = dict[str, Any]
Incoming = SessionMessage | Exception


def one_era_http(app: ASGIApp, era: str) -> ASGIApp:
    """The application without the other era."""
    if era == "both":
        return app

    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            request = Request(scope, receive)
            refusal = _refused_by_old(request) if era == "legacy" else await _refused_by_new(request)
        await (refusal or app)(scope, receive, send)

    return cut


def _refused_by_old(request: Request) -> Response | None:
    # What the SDK answered before it knew of the modern era: it looks for a session first, and the id is none of the client's.
    if request.headers.get("mcp-protocol-version") in (None, *HANDSHAKE_PROTOCOL_VERSIONS):
        return None
    fault = "Unsupported protocol version" if "mcp-session-id" in request.headers else "Missing session ID"
    error = {"code": types.INVALID_REQUEST, "message": f"Bad Request: {fault}"}
    return JSONResponse({"jsonrpc": "2.0", "id": "server-error", "error": error}, 400)


async def _refused_by_new(request: Request) -> Response | None:
    version = request.headers.get("mcp-protocol-version")
    if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
        return None
    if request.method != "POST":
        return Response(status_code=405, headers={"Allow": "POST"})
    try:
        message = json.loads(await request.body())
    except ValueError:
        message = None
    message = message if isinstance(message, dict) else {}
    error = _unsupported(message.get("params"), version)
    return JSONResponse({"jsonrpc": "2.0", "id": message.get("id"), "error": error.model_dump(mode="json")}, 400)


def _unsupported(params: Any, version: str | None) -> types.ErrorData:
    requested = (params.get("protocolVersion") if isinstance(params, dict) else None) or version or ""
    data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": requested}
    return types.ErrorData(code=types.UNSUPPORTED_PROTOCOL_VERSION, message="Unsupported protocol version", data=data)


@asynccontextmanager
async def one_era_streams(read: Any, write: Any, era: str) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a connection, with requests of the other era answered before the server sees them."""
    if era == "both":
        yield read, write
        return
    passed_on: MemoryObjectSendStream[Incoming]
    passed: MemoryObjectReceiveStream[Incoming]
    passed_on, passed = anyio.create_memory_object_stream[Incoming](0)

    async def sift() -> None:
        async with passed_on:
            async for message in read:
                error = _refused_on_a_stream(message, era)
                if error is None:
                    await passed_on.send(message)
                else:
                    answer = types.JSONRPCError(jsonrpc="2.0", id=message.message.id, error=error)
                    await write.send(SessionMessage(answer))

    async with anyio.create_task_group() as group:
        group.start_soon(sift)
        yield passed, write
        group.cancel_scope.cancel()


def _refused_on_a_stream(message: Incoming, era: str) -> types.ErrorData | None:
    if isinstance(message, Exception) or not isinstance(message.message, types.JSONRPCRequest):
        return None
    request = message.message
    meta = (request.params or {}).get("_meta") or {}
    modern = types.PROTOCOL_VERSION_META_KEY in meta and request.method != "initialize"
    if modern == (era == "modern"):
        return None
    if era == "modern":
        return _unsupported(request.params, None)
    # So the SDK answered methods that it did not know.
    return types.ErrorData(code=types.INVALID_PARAMS, message="Invalid request parameters", data="")
