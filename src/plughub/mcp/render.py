"""Errors as JSON-RPC over HTTP.

Before a message is understood, and for what concerns the credential, HTTP carries the status. What concerns the call itself is a
JSON-RPC error in a 200, as MCP clients expect; on 2026-07-28 the numbers that have a status of their own there carry it, whoever
gave them, the hub or the server. Numbers: the protocol's own where it has one, else the HTTP status that the same
error has on `/api` (JSON-RPC leaves all numbers outside -32768..-32000 to the application).
"""

import re

import msgspec

from plughub.cluster.limits import Header
from plughub.door.dispatch import Rendered, Renderer
from plughub.door.request import JSON, Request
from plughub.gateway.lists import code_of
from plughub.kit.errors import (
    Conflict,
    Forbidden,
    HubError,
    InvalidParams,
    MethodNotFound,
    ToolNotFound,
    Unauthorized,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)

_IN_THE_CALL = (UpstreamError, UpstreamTimeout, Unavailable, Conflict, ToolNotFound)
# MCP 2026-07-28 "Transports", "Versioning", and what its reference server makes of the rest.
_STATUS = {-32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404}
MCP_SCOPE = "execute:tools"
_PARAMETER = re.compile(r"{\w+}")
_PLAIN = re.compile(r"[/0-9A-Za-z-]+")


def error_object(error: HubError, request_id: str) -> bytes:
    """The JSON-RPC error object; `data` holds the details, our code, the remedy and the request id."""
    data = {"code": error.code, "hint": error.hint, **error.details, "request_id": request_id}
    code = error.jsonrpc if error.jsonrpc is not None else error.status
    return msgspec.json.encode({"code": code, "message": error.text, "data": data})


def http_status(error: HubError, *, modern: bool) -> int:
    """The HTTP status of an error of a message that was understood."""
    if modern and error.jsonrpc in _STATUS:
        return _STATUS[error.jsonrpc]
    if isinstance(error, MethodNotFound | InvalidParams):
        return 200
    return 200 if isinstance(error, _IN_THE_CALL) else error.status


def status_of(error: bytes) -> int:
    """The HTTP status of a server's own raw error, to a client of 2026-07-28."""
    return _STATUS.get(code_of(error), 200)


def renderer(public_url: str) -> Renderer:
    """Renders an error outside any message: the id is null."""

    def render(error: HubError, request: Request) -> Rendered:
        body = b'{"jsonrpc":"2.0","id":null,"error":%b}' % error_object(error, request.id)
        return Rendered(error.status, body, [JSON, *error_headers(error, request, public_url)])

    return render


def error_headers(error: HubError, request: Request, public_url: str) -> list[Header]:
    """The error's own headers, and the challenge where a better credential would help."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if isinstance(error, Unauthorized) or (isinstance(error, Forbidden) and "required_scope" in error.details):
        headers.append((b"www-authenticate", challenge(error, request, public_url)))
    return headers


def challenge(error: HubError, request: Request, public_url: str) -> bytes:
    """`WWW-Authenticate` with the resource's metadata and the scope that the door needs (RFC 9728, MCP authorization)."""
    base = request.base_url(public_url)
    # Only a path that a header can hold; a segment is decoded by now, and may be anything.
    path = _PARAMETER.sub("".join(request.values), request.route.path) if request.route is not None else "/mcp"
    path = path.removesuffix("/messages")
    metadata = f"{base}/.well-known/oauth-protected-resource{path if _PLAIN.fullmatch(path) else '/mcp'}"
    parts = [f'resource_metadata="{metadata}"', f'scope="{error.details.get("required_scope", MCP_SCOPE)}"']
    if isinstance(error, Forbidden):
        parts.insert(0, 'error="insufficient_scope"')
    elif b"authorization" in request.headers:
        parts.insert(0, 'error="invalid_token"')
    return ("Bearer " + ", ".join(parts)).encode("latin-1")
