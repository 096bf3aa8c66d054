"""Where an answer may be sent: what may be registered, and what of a request fits it. Sources: RFC 8252, OAuth 2.1 section 2.3."""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

MAX_REDIRECTS = 10
_MAX = 2000
_PLAIN = re.compile(r"[!-~]+")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Schemes that a browser runs, reads or hands to something that was never meant to get a code.
_NEVER = frozenset(
    {"about", "blob", "chrome", "chrome-extension", "data", "file", "filesystem", "ftp", "intent", "javascript", "jar", "mailto"}
    | {"ms-appx", "resource", "sms", "tel", "vbscript", "view-source", "ws", "wss"}
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{2,60}")
_NAME = re.compile(r"[0-9a-z._-]+")


def defect_of(uri: str) -> str | None:
    """Why a redirect URI may not be registered, in words; None when it may."""
    if not uri or len(uri) > _MAX or _PLAIN.fullmatch(uri) is None or any(c in uri for c in "\"'<>\\^`{|}*"):
        return "it is empty, too long, or holds characters that no URI has"
    parts = _split(uri)
    if parts is None:
        return "it is not a URI"
    if "#" in uri:
        return "it has a fragment"
    if parts.username is not None or parts.password is not None:
        return "it names a user"
    if parts.scheme == "https":
        return None if parts.hostname else "it has no host"
    if parts.scheme == "http":
        return None if parts.hostname in _LOOPBACK else "http is for loopback addresses alone: use https"
    if parts.scheme in _NEVER or _SCHEME.fullmatch(parts.scheme) is None:
        return "its scheme is not allowed"
    return None


def find_match(registered: Sequence[str], asked: str | None) -> str | None:
    """Where to answer: the URI asked for when it is registered, to the letter; without one, the only one there is.

    A program on the person's own machine listens on whatever port is free, so of a loopback address the port does not count
    (RFC 8252 section 7.3).
    """
    if asked is None:
        return registered[0] if len(registered) == 1 else None
    if asked in registered:
        return asked
    bare = _without_port(asked)
    return asked if bare is not None and any(_without_port(uri) == bare for uri in registered) else None


def is_loopback(uri: str) -> bool:
    """Whether whatever runs on the person's own machine may be the one that listens there."""
    parts = _split(uri)
    return parts is not None and parts.scheme == "http"


def shown_host(uri: str) -> str:
    """Where the answer goes, as the consent page names it."""
    parts = _split(uri)
    if parts is None:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") else f"{parts.scheme}:"


def form_target(uri: str) -> str:
    """The source expression that lets a form's answer lead there (CSP form-action)."""
    parts = _split(uri)
    if parts is None or parts.scheme not in ("http", "https") or _NAME.fullmatch(parts.hostname or "") is None:
        return f"{parts.scheme if parts else 'https'}:"
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme else None


def _without_port(uri: str) -> tuple[str, str, str] | None:
    parts = _split(uri)
    if parts is None or parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.username is not None or defect_of(uri):
        return None
    return parts.hostname, parts.path, parts.query
