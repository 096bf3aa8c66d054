"""Errors in the two REST dialects (CONTRACT section 2)."""

from typing import Any

import msgspec

from plughub.door.dispatch import Rendered
from plughub.door.request import JSON, Request
from plughub.kit.errors import (
    Forbidden,
    HubError,
    Invalid,
    Malformed,
    TokenRefused,
    Unauthorized,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from plughub.oauth.errors import OAuthError

_CHALLENGE = b'Bearer realm="plughub"'
# What is none of the authorization server's own refusals, in the words of RFC 6749 where it has some.
_OAUTH = {429: "slow_down", 500: "server_error", 503: "temporarily_unavailable"}


def render_api(error: HubError, request: Request) -> Rendered:
    """Plugged.in: `{"error":{"code","message","details"},"message","request_id"}`; `details.hint` holds the remedy."""
    details = _details(error)
    body = {"error": {"code": error.code, "message": error.text, "details": details}, "message": error.text, "request_id": request.id}
    return Rendered(error.status, msgspec.json.encode(body), _headers(error))


def render_v1(error: HubError, request: Request) -> Rendered:
    """PlexMCP: `{"success":false,"error":{…}}` with the documents' codes and texts."""
    details = _details(error)
    if isinstance(error, Invalid):
        details |= {item["field"]: item["message"] for item in error.errors}
        if error.v1_text is not None:
            details[error.errors[0]["field"]] = error.v1_text
        for name in ("field", "value", "errors"):
            details.pop(name, None)
    details["request_id"] = request.id
    message = _v1_message(error, details)
    code = error.v1_code or error.code.lower()
    body = {"success": False, "error": {"code": code, "message": message, "details": details}}
    return Rendered(error.v1_status or error.status, msgspec.json.encode(body), _headers(error))


def _v1_message(error: HubError, details: dict[str, Any]) -> str:
    """The documents' text where they have one for this error; what the hub says beyond it becomes `details.reason`."""
    if isinstance(error, UpstreamUnreachable):
        details.setdefault("reason", error.reason)
        return error.message if error.executed == "no" else error.text
    if error.custom and not isinstance(error, Invalid | Unauthorized | Malformed | UpstreamError | UpstreamTimeout):
        return error.text
    if error.custom and not isinstance(error, Invalid | Unauthorized):
        details.setdefault("reason", error.text)
    return error.v1_message or error.message


def render_oauth(error: HubError, request: Request) -> Rendered:
    """RFC 6749 section 5.2: `{"error","error_description"}`, and our own request id."""
    code = error.code.lower() if isinstance(error, OAuthError) else _OAUTH.get(error.status, "invalid_request")
    body = {"error": code, "error_description": _description(error.text), "request_id": request.id}
    headers = (
        _headers(error) if not isinstance(error, OAuthError) else [JSON, *((n.encode(), v.encode()) for n, v in error.headers.items())]
    )
    return Rendered(error.status, msgspec.json.encode(body), headers)


def _description(text: str) -> str:
    """What RFC 6749 lets a description hold: printable ASCII without quotes and backslashes."""
    return "".join(character if " " <= character <= "~" and character not in '"\\' else "'" for character in text)


def _details(error: HubError) -> dict[str, Any]:
    details = dict(error.details)
    if error.hint is not None:
        details.setdefault("hint", error.hint)
    return details


def _headers(error: HubError) -> list[tuple[bytes, bytes]]:
    headers = [JSON, *((name.encode(), value.encode()) for name, value in error.headers.items())]
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", _CHALLENGE + (b', error="invalid_token"' if isinstance(error, TokenRefused) else b"")))
    elif isinstance(error, Forbidden) and "required_scope" in error.details:
        headers.append(
            (b"www-authenticate", _CHALLENGE + b', error="insufficient_scope", scope="%b"' % error.details["required_scope"].encode())
        )
    return headers
