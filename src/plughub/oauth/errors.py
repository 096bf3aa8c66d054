"""What the authorization server refuses, in the words of RFC 6749 sections 4.1.2.1 and 5.2 and of its extensions.

The code on the wire is the class's `code` in small letters. Domains raise these as any other HubError; the doors of `/oauth` render them.
"""

from typing import ClassVar

from plughub.kit.errors import HubError


class OAuthError(HubError):
    """A refusal that has a code of its own in one of the RFCs."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "INVALID_REQUEST"
    message: ClassVar[str] = "The request is not valid"
    hint: ClassVar[str | None] = "See RFC 6749 and /.well-known/oauth-authorization-server"


class InvalidRequest(OAuthError):
    """A parameter is missing, doubled or malformed."""


class InvalidClient(OAuthError):
    """Nobody of that id, or another secret: the two look alike. As every 401 it says how to do better (RFC 9110 section 15.5.2)."""

    status = 401
    code = "INVALID_CLIENT"
    message = "Client authentication failed"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text, headers={"www-authenticate": 'Basic realm="plughub"'})


class InvalidGrant(OAuthError):
    """The code or refresh token is not good (any more), or was given to somebody else."""

    code = "INVALID_GRANT"
    message = "The code or token is not valid, has run out, was used or revoked, or belongs to another client"


class UnauthorizedClient(OAuthError):
    """The client is known, and may not ask like this."""

    code = "UNAUTHORIZED_CLIENT"
    message = "The client may not use this grant"


class UnsupportedGrantType(OAuthError):
    """Not authorization_code, refresh_token or the device's."""

    code = "UNSUPPORTED_GRANT_TYPE"
    message = "The grant type is not supported"


class UnsupportedResponseType(OAuthError):
    """Not `code`."""

    code = "UNSUPPORTED_RESPONSE_TYPE"
    message = "The only response type is code"


class InvalidScope(OAuthError):
    """Unknown, or more than was allowed."""

    code = "INVALID_SCOPE"
    message = "The scope is unknown, or wider than what was granted"


class InvalidTarget(OAuthError):
    """The resource is none of this hub's, or not the one that was granted (RFC 8707)."""

    code = "INVALID_TARGET"
    message = "The resource is none of this hub's, or not the one that was granted"


class AccessDenied(OAuthError):
    """Somebody said no."""

    code = "ACCESS_DENIED"
    message = "The request was denied"


class AuthorizationPending(OAuthError):
    """Nobody has decided yet (RFC 8628)."""

    code = "AUTHORIZATION_PENDING"
    message = "Nobody has decided yet"


class SlowDown(OAuthError):
    """Asked again too soon: the interval grows by 5 s (RFC 8628)."""

    code = "SLOW_DOWN"
    message = "Wait longer between requests"


class ExpiredToken(OAuthError):
    """The device code has run out (RFC 8628)."""

    code = "EXPIRED_TOKEN"
    message = "The device code has run out"


class InvalidRedirectUri(OAuthError):
    """A redirect URI that may not be registered (RFC 7591)."""

    code = "INVALID_REDIRECT_URI"
    message = "A redirect URI is not valid"


class InvalidClientMetadata(OAuthError):
    """Something else of a registration is wrong (RFC 7591)."""

    code = "INVALID_CLIENT_METADATA"
    message = "The client metadata are not valid"
