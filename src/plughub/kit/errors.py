"""The one family of errors.

Domains raise them, only doors render them (`api/render.py`, `mcp/render.py`). Each class carries what all three doors need:
the HTTP status, the `/api` code, the `/v1` status and code where they differ, and the JSON-RPC number.

    HubError
     +- Invalid            400   a field is wrong (`/v1`: 422)
     +- Malformed          400   the body or a header cannot be read
     +- InvalidPermissions 400   (`/v1`)
     +- HeaderMismatch     400   an MCP header contradicts the body
     +- UnsupportedVersion 400   an MCP revision we do not speak
     +- MissingCapability  400   what a server asks for, and its MCP client cannot be asked
     +- Unauthorized       401
     |   +- KeyExpired     401
     |   +- KeyRevoked     410   (`/v1`: 401)
     |   +- LoginRefused   401   wrong password or code, of whatever account
     |   +- SessionEnded   401   a cookie that is none (any more)
     |   +- TokenRefused   401   an access token that is none (any more), or is for another resource
     +- Forbidden          403
     |   +- KeySuspended   403
     |   +- OnlyKey        403   (`/v1`)
     |   +- NotPermitted   403   the key's server grant excludes the server
     +- NotFound           404
     |   +- ServerNotFound 404
     |   +- KeyNotFound    404
     |   +- ListingNotFound 404
     |   +- AppNotFound, GrantNotFound, DeviceNotFound 404
     |   +- OrganizationNotFound, MemberNotFound, InvitationNotFound, SessionNotFound, LinkNotFound 404
     |   +- NotificationNotFound 404
     |   +- DocumentNotFound 404
     |   +- ToolNotFound   404
     |   +- MethodNotFound 404   JSON-RPC method
     +- CodeExpired        410
     +- MethodNotAllowed   405
     +- Conflict           409
     |   +- ServerDisabled 409
     |   +- AskedBefore    409   an Idempotency-Key whose answer cannot be given (yet)
     +- PayloadTooLarge    413
     +- RangeNotSatisfiable 416
     +- UnsupportedMediaType 415
     +- MisdirectedHost    421
     +- IdempotencyMismatch 422  an Idempotency-Key that came with another request before
     +- FailedDependency   424   what an operation of a batch needs did not come about
     +- RateLimited        429
     +- RequestCancelled   499
     +- UpstreamError      502   the server answered with an error
     |   +- InvalidArguments 400   it refused the arguments of a call
     |   +- UpstreamUnreachable 502   it was never asked, or may have been
     |   +- UpstreamTimeout     504
     +- InstallFailed      502   a package could not be installed; nothing of it is left
     |   +- InstallFailed       502   a package could not be installed; nothing of it is left
     +- Unavailable        503

Source: CONTRACT section 2; the texts of `/v1` are the PlexMCP documents'.
"""

from typing import Any, ClassVar, Literal

# So many wrong fields are named; whoever has more has the wrong document.
MAX_FIELDS = 20
Executed = Literal["no", "unknown"]


class HubError(Exception):
    """An error with a status; `details` go to the caller as they are, so they never hold a secret."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "SERVER_ERROR"
    message: ClassVar[str] = "An unexpected error occurred"
    v1_status: ClassVar[int | None] = None
    v1_code: ClassVar[str | None] = None
    v1_message: ClassVar[str | None] = None
    jsonrpc: ClassVar[int | None] = None
    hint: ClassVar[str | None] = None

    def __init__(self, text: str | None = None, *, headers: dict[str, str] | None = None, **details: Any) -> None:
        super().__init__(text or self.message)
        self.text = text or self.message
        self.custom = text is not None
        self.headers = headers or {}
        self.details = details


class Internal(HubError):
    """A fault of ours; the text never says more than the request id does."""

    v1_code = "internal_error"
    hint = "Try again; if it goes on, report the request id to your operator"


class Invalid(HubError):
    """One or more fields are wrong: `field`, `value`, and with several of them `errors: [{field, message}]`.

    `v1_text` is what the PlexMCP documents say of the field, where they say it in words of their own.
    """

    status = 400
    code = "INVALID_PARAMETER"
    message = "A parameter is invalid"
    v1_status = 422
    v1_code = "validation_error"
    v1_message = "Validation failed"
    jsonrpc = -32602
    hint = "Check the named field against the API reference"

    def __init__(
        self, field: str, text: str, value: Any = None, *, errors: list[dict[str, Any]] | None = None, v1_text: str | None = None
    ) -> None:
        super().__init__(text, field=field, value=value)
        self.v1_text = v1_text
        self.errors = (errors or [{"field": field, "message": text}])[:MAX_FIELDS]
        if len(self.errors) > 1:
            self.details["errors"] = self.errors


class Malformed(HubError):
    """The body or a header cannot be read at all."""

    status = 400
    code = "INVALID_PARAMETER"
    message = "Invalid request format"
    v1_code = "invalid_request"
    jsonrpc = -32600
    hint = "Send well-formed UTF-8 JSON with Content-Type: application/json"


class InvalidPermissions(Malformed):
    """The `permissions` of a key on `/v1` are neither "*" nor a list of ids."""

    message = "Invalid permissions format"
    hint = 'Send {"mcps": "*"}, or {"mcps": ["mcp_…", …]}'


class ParseError(Malformed):
    """Not JSON."""

    jsonrpc = -32700


class HeaderMismatch(Malformed):
    """An `Mcp-*` header is missing or contradicts the body (MCP 2026-07-28)."""

    jsonrpc = -32020


class UnsupportedVersion(Malformed):
    """`supported` and `requested` are in the details (MCP 2026-07-28)."""

    message = "Unsupported protocol version"
    jsonrpc = -32022


class InvalidParams(Malformed):
    """JSON-RPC parameters of a readable message are wrong."""

    message = "Invalid params"
    jsonrpc = -32602


class MissingCapability(Malformed):
    """A server asks its client of 2026-07-28 for what that did not declare; `requiredCapabilities` is in the details."""

    message = "The server needs a capability that the client did not declare"
    jsonrpc = -32021
    hint = "Declare it in params._meta, or do without this tool"


class Unauthorized(HubError):
    """No key, or none that we know."""

    status = 401
    code = "UNAUTHORIZED"
    message = "Invalid API key provided"
    v1_message = "Invalid or missing API key"
    hint = "Send the header: Authorization: Bearer <API key>"


class KeyExpired(Unauthorized):
    """The key's `expires_at` has passed."""

    v1_code = "expired_key"
    v1_message = "API key has expired"
    hint = "The key has expired: generate a new API key"


class KeyRevoked(Unauthorized):
    """The key was revoked; its row stays."""

    status = 410
    code = "GONE"
    message = "API key has been revoked"
    v1_status = 401
    v1_code = "revoked_key"
    v1_message = "API key has been revoked"
    hint = "Generate a new API key"


class LoginRefused(Unauthorized):
    """No such account, or another password: the two look alike."""

    message = "Wrong e-mail address or password"
    v1_message = "Wrong e-mail address or password"
    hint = "Check both; a forgotten password is set anew with POST /api/auth/password/forgot"


class SessionEnded(Unauthorized):
    """The session is over, or never was one."""

    message = "Not logged in"
    v1_message = "Not logged in"
    hint = "Log in again: POST /api/auth/login"


class TokenRefused(Unauthorized):
    """An access token that is unknown, has run out, was revoked, or was made for another resource (RFC 6750 invalid_token)."""

    message = "The access token is not valid (any more)"
    v1_message = "The access token is not valid (any more)"
    hint = "Refresh it at /oauth/token, or ask for a new one"


class Forbidden(HubError):
    """The caller is known and may not do this."""

    status = 403
    code = "FORBIDDEN"
    message = "You don't have permission to perform this action"
    hint = "Generate a key with the required permissions"


class KeySuspended(Forbidden):
    """The key is switched off for now; `reason` is key_suspended."""

    message = "API key is suspended"
    hint = "The key is suspended: whoever manages it can set its status to active"


class OnlyKey(Forbidden):
    """A key that would end itself on `/v1`, and nobody could get in by a key any more; `reason` is only_key."""

    message = "Cannot revoke your only active key"
    hint = "Make another key first; DELETE /api/auth/keys/{id} revokes it all the same"


class NotPermitted(Forbidden):
    """The server exists for the caller's organisation, but the key's grant excludes it."""

    message = "API key does not have access to this MCP"
    v1_code = "mcp_not_permitted"
    hint = "Update the key's permissions to include the MCP"


class NotFound(HubError):
    """Missing, or somebody else's: the two look alike."""

    status = 404
    code = "NOT_FOUND"
    message = "Resource not found"
    jsonrpc = -32602
    hint = "Check the id; things of another organisation or environment are not visible to this key"


class ServerNotFound(NotFound):
    """No server of that id for this caller."""

    message = "Server not found"
    v1_message = "MCP not found"


class ProjectNotFound(NotFound):
    """No project of that id for this caller."""

    message = "Project not found"


class ProfileNotFound(NotFound):
    """No profile of that id or slug for this caller."""

    message = "Profile not found"


class CollectionNotFound(NotFound):
    """No collection of that id for this caller, or none behind a link."""

    message = "Collection not found"


class UserNotFound(NotFound):
    """Nobody who shows themselves under that name."""

    message = "User not found"


class KeyNotFound(NotFound):
    """No API key of that id for this caller."""

    message = "API key not found"


class AlertNotFound(NotFound):
    """No alert of that id for this caller."""

    message = "Alert not found"


class NotificationNotFound(NotFound):
    """No notification of that id for this caller."""

    message = "Notification not found"


class DocumentNotFound(NotFound):
    """No document, or version of it, of that id for this caller."""

    message = "Document not found"


class OrganizationNotFound(NotFound):
    """No organisation of that id for this caller."""

    message = "Organization not found"


class MemberNotFound(NotFound):
    """Nobody of that id in the organisation."""

    message = "Member not found"


class InvitationNotFound(NotFound):
    """No open invitation of that id."""

    message = "Invitation not found"


class SessionNotFound(NotFound):
    """No session of that id that is this person's."""

    message = "Session not found"


class LinkNotFound(NotFound):
    """A link that was used, has run out, or never was one."""

    message = "This link is not valid (any more)"
    hint = "Ask for a new one"


class DeviceNotFound(NotFound):
    """No device of that code, or none that waits for a decision."""

    message = "No device waits with this code"
    hint = "Check the code; one is good for five minutes, and once"


class CodeExpired(HubError):
    """A code that was good, and has run out."""

    status = 410
    code = "GONE"
    message = "The code has run out"
    hint = "Begin again"


class ListingNotFound(NotFound):
    """No server of that name in the registry, or none that the caller's organisation sees."""

    message = "No such server in the registry"
    hint = "Look for it with GET /api/registry/search?q="


class AppNotFound(NotFound):
    """No app of that id in the organisation."""

    message = "App not found"


class GrantNotFound(NotFound):
    """Nothing of that id that this person allows."""

    message = "Grant not found"


class RouteNotFound(NotFound):
    """No such path."""

    message = "No such route"
    hint = "See /api/openapi.json for every route"


class ToolNotFound(NotFound):
    """`Tool '<x>' not found`, with the nearest name where one is near."""

    code = "TOOL_NOT_FOUND"
    hint = "List the server's tools and check the name"


class MethodNotFound(HubError):
    """No such JSON-RPC method; on 2026-07-28 the HTTP status is 404, before it 200."""

    status = 404
    code = "NOT_FOUND"
    message = "Method not found"
    jsonrpc = -32601
    hint = "See the capabilities that initialize or server/discover announces"


class MethodNotAllowed(HubError):
    """The path exists, the method does not; `Allow` names those that do."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    message = "Method not allowed"
    hint = "The Allow header names the methods of this path"


class Conflict(HubError):
    """The state does not allow it."""

    status = 409
    code = "CONFLICT"
    message = "Resource already exists"
    v1_code = "already_exists"
    jsonrpc = -32602
    hint = "Read the resource again and retry"


class ServerDisabled(Conflict):
    """The server is switched off."""

    code = "SERVER_DISABLED"
    message = "Server is disabled"
    v1_code = "server_disabled"
    hint = "Enable the server first"


class AskedBefore(Conflict):
    """The key of this request was sent before, and there is no answer to give: `reason` is in_progress, may_have_run or answer_not_kept."""

    message = "A request with this Idempotency-Key was sent before"
    v1_code = "conflict"
    hint = (
        "in_progress: wait for Retry-After and send it again. may_have_run, answer_not_kept: look whether it was done, then take a new key"
    )


class PayloadTooLarge(HubError):
    """The body is over the limit."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    message = "Request body is too large"
    jsonrpc = -32600
    hint = "Send less; details.limit_bytes is the most that is read"


class RangeNotSatisfiable(HubError):
    """A range that begins after the end of the file."""

    status = 416
    code = "RANGE_NOT_SATISFIABLE"
    message = "The file is shorter than the range"
    hint = "The Content-Range header tells how long the file is"


class UnsupportedMediaType(HubError):
    """A body that is not JSON."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "Unsupported content type"
    v1_status = 400
    v1_code = "invalid_request"
    jsonrpc = -32600
    hint = "Send Content-Type: application/json"


class MisdirectedHost(HubError):
    """The Host header names somebody else (DNS rebinding)."""

    status = 403
    code = "FORBIDDEN"
    message = "Host or origin not allowed"
    jsonrpc = -32600
    hint = "Set PLUGHUB_PUBLIC_URL or PLUGHUB_ALLOWED_ORIGINS to the address that clients use"


class IdempotencyMismatch(HubError):
    """The key of this request came with another body, or at another path (draft-ietf-httpapi-idempotency-key-header section 2.7)."""

    status = 422
    code = "IDEMPOTENCY_MISMATCH"
    message = "This Idempotency-Key was used for another request"
    hint = "Take a new key for each new request; a key is sent again only with the very same request"


class FailedDependency(HubError):
    """An operation of a batch that was not run, or was undone, because of another: `operation` is in the details."""

    status = 424
    code = "FAILED_DEPENDENCY"
    message = "Another operation of the batch failed"
    hint = "See the answer of the operation that details.operation names"


class RateLimited(HubError):
    """`policy`, `limit`, `retry_after` (whole seconds) are in the details."""

    status = 429
    code = "RATE_LIMITED"
    message = "Too many requests"
    hint = "Wait for Retry-After seconds, then use exponential backoff"


class UpstreamError(HubError):
    """The server answered our request with a JSON-RPC error: `mcp_error`, `rpc_error`."""

    status = 502
    code = "UPSTREAM_ERROR"
    message = "MCP returned an error"
    v1_code = "mcp_error"
    hint = "The MCP server refused the request; see details.rpc_error"


class InvalidArguments(UpstreamError):
    """The server refused the arguments of a call (its -32602); the tool did not run."""

    status = 400
    code = "INVALID_PARAMETER"
    message = "The tool does not take these arguments"
    v1_code = "invalid_arguments"
    jsonrpc = -32602
    hint = "Check the schema that the server gives; details.rpc_error is what it said"


class RequestCancelled(HubError):
    """The client cancelled its request (MCP "Cancellation"); the tool may have run."""

    status = 499
    code = "CANCELLED"
    message = "Request cancelled"
    jsonrpc = -32800
    hint = "Send it again if its answer is wanted after all; the tool may have run"


class UpstreamUnreachable(UpstreamError):
    """No answer can come: `executed` is "no" when the request was never sent, else "unknown"."""

    message = "Could not connect to MCP server"
    v1_code = "mcp_unreachable"
    hint = "See the server's last_error and logs"

    def __init__(self, reason: str, *, executed: Executed) -> None:
        what = "Could not connect to MCP server" if executed == "no" else "MCP server gave no usable answer"
        super().__init__(f"{what}: {reason}", executed=executed)
        self.reason = reason
        self.executed: Executed = executed


class UpstreamTimeout(HubError):
    """No answer in time; the tool may have run."""

    status = 504
    code = "UPSTREAM_TIMEOUT"
    message = "MCP server did not respond in time"
    v1_code = "mcp_timeout"
    hint = "Raise the timeout, or call a faster tool; the call may have run"

    def __init__(self, reason: str | None = None, *, executed: Executed = "unknown") -> None:
        super().__init__(reason, executed=executed)
        self.executed: Executed = executed


class InstallFailed(HubError):
    """A package could not be installed; nothing of it is left."""

    status = 502
    code = "UPSTREAM_ERROR"
    message = "The package could not be installed"
    v1_code = "mcp_error"
    hint = "See whether the package and its registry can be reached from the hub's machine, then try again"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The package could not be installed: {reason}")


class Unavailable(HubError):
    """The hub or the server has no room just now, or is going down."""

    status = 503
    code = "UNAVAILABLE"
    message = "Temporarily unavailable"
    hint = "Try again in a moment"
