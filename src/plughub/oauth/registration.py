"""Clients that register themselves (RFC 7591): nobody vouches for them, and the consent page says so."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from plughub.kit.caller import SCOPES
from plughub.oauth.clients import AUTH_METHODS, CODE_GRANT, DEVICE_GRANT, GRANT_TYPES, REFRESH_GRANT, AuthMethod, Registration
from plughub.oauth.errors import InvalidClientMetadata, InvalidRedirectUri
from plughub.oauth.redirects import MAX_REDIRECTS, defect_of

MAX_NAME = 100
_MAX_URI = 500
_UNNAMED = "Unnamed client"


def read_registration(metadata: Mapping[str, Any]) -> Registration:
    """What a client wants to be. What we do not know of is left out of the answer, as the RFC asks.

    Raises InvalidRedirectUri, InvalidClientMetadata.
    """
    grant_types = _grant_types(metadata)
    redirect_uris = read_redirects(metadata, needed=CODE_GRANT in grant_types)
    if metadata.get("response_types", ["code"]) not in (["code"], []):
        raise InvalidClientMetadata("The only response type is code")
    return Registration(
        kind="dynamic",
        name=read_name(metadata) or _UNNAMED,
        redirect_uris=redirect_uris,
        auth_method=_auth_method(metadata),
        grant_types=grant_types,
        scopes=_scopes(metadata),
        client_uri=_client_uri(metadata),
    )


def read_name(metadata: Mapping[str, Any]) -> str:
    """The name that a client gives itself, fit to be shown: one line, without what turns or hides text."""
    name = metadata.get("client_name", "")
    if not isinstance(name, str):
        raise InvalidClientMetadata("client_name must be a text")
    return " ".join("".join(character if character.isprintable() else " " for character in name).split())[:MAX_NAME]


def read_redirects(metadata: Mapping[str, Any], *, needed: bool = True) -> list[str]:
    """The redirect URIs of metadata. Raises InvalidRedirectUri."""
    uris = metadata.get("redirect_uris", [])
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris) or len(uris) > MAX_REDIRECTS:
        raise InvalidRedirectUri(f"redirect_uris must be a list of at most {MAX_REDIRECTS} texts")
    if needed and not uris:
        raise InvalidRedirectUri("A redirect URI is required")
    for uri in uris:
        if (defect := defect_of(uri)) is not None:
            raise InvalidRedirectUri(f"A redirect URI is not allowed: {defect}")
    return uris


def _grant_types(metadata: Mapping[str, Any]) -> list[str]:
    given = metadata.get("grant_types", [CODE_GRANT])
    if not isinstance(given, list) or not set(map(str, given)) <= set(GRANT_TYPES):
        raise InvalidClientMetadata(f"grant_types may be {', '.join(GRANT_TYPES)}")
    if not {CODE_GRANT, DEVICE_GRANT} & set(given):
        raise InvalidClientMetadata(f"grant_types must hold {CODE_GRANT} or the device's")
    # A refresh token is always given, so whoever did not think of it may use it.
    return [kind for kind in GRANT_TYPES if kind in given or kind == REFRESH_GRANT]


def _auth_method(metadata: Mapping[str, Any]) -> AuthMethod:
    given = metadata.get("token_endpoint_auth_method", "client_secret_basic")
    for method in AUTH_METHODS:
        if method == given:
            return method
    raise InvalidClientMetadata(f"token_endpoint_auth_method may be {', '.join(AUTH_METHODS)}")


def _scopes(metadata: Mapping[str, Any]) -> frozenset[str] | None:
    given = metadata.get("scope")
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise InvalidClientMetadata("scope must be a text")
    # What we do not have it will not get; it need not fail for that.
    return frozenset(given.split()) & SCOPES or None


def _client_uri(metadata: Mapping[str, Any]) -> str | None:
    given = metadata.get("client_uri")
    if given is None:
        return None
    if not isinstance(given, str) or len(given) > _MAX_URI or urlsplit(given).scheme not in ("http", "https"):
        raise InvalidClientMetadata("client_uri must be a web address")
    return given
