"""A server's URL and headers as what goes on the wire."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from plughub.kit.errors import UpstreamUnreachable
from plughub.upstream.redact import Redactor

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_PORTS = {"http": 80, "https": 443}
MOST_SHOWN = 300
# What the client itself decides; a configured header of that name is left out.
OURS = frozenset(
    (
        "host",
        "connection",
        "keep-alive",
        "content-length",
        "content-type",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept",
        "accept-encoding",
        "mcp-protocol-version",
        "mcp-session-id",
        "mcp-method",
        "mcp-name",
        "last-event-id",
    )
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and the fixed lines that follow the request line."""

    host: str
    port: int
    tls: bool
    path: bytes
    head: bytes


def address_of(url: str, headers: Mapping[str, str]) -> Address:
    """Raises UpstreamUnreachable (nothing was sent) naming what is wrong; never the url itself, which may hold a secret."""
    try:
        parts = urlsplit(url if url.isprintable() else "")  # urlsplit would drop line ends in silence
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UpstreamUnreachable("the url cannot be read", executed="no") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UpstreamUnreachable("the url must begin with http:// or https:// and name a host", executed="no")
    try:
        # Of ASCII names too: the codec refuses labels that are empty or too long.
        ascii_host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError as error:
        raise UpstreamUnreachable("the url's host name is not a valid one", executed="no") from error
    if any(c <= " " or c in "/\\\x7f" for c in ascii_host):
        raise UpstreamUnreachable("the url's host name is not a valid one", executed="no")
    tls = parts.scheme == "https"
    name = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    default = _PORTS[parts.scheme]
    authority = name if port in (None, default) else f"{name}:{port}"
    lines = [f"Host: {authority}", "User-Agent: plughub", "Accept-Encoding: identity"]
    given = {key.lower() for key in headers}
    if parts.username is not None and "authorization" not in given:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Authorization: Basic {base64.b64encode(credentials).decode()}")
    lines += _header_lines(headers)
    return Address(ascii_host, port or default, tls, _path(parts), "\r\n".join(lines).encode("latin-1") + b"\r\n")


def _path(parts: SplitResult) -> bytes:
    path = quote(parts.path or "/", safe=_PATH_SAFE) + (f"?{quote(parts.query, safe=_PATH_SAFE + '/?')}" if parts.query else "")
    return path.encode("ascii")


def endpoint_path(url: str, reference: bytes, redact: Redactor) -> bytes:
    """The path and query that an `endpoint` event of the server at `url` names: an absolute or relative reference to the same origin.

    Raises UpstreamUnreachable (nothing was sent). The reference may hold a session id, so of it only another origin is shown.
    """
    try:
        text = reference.decode("ascii")
        own, parts = urlsplit(url), urlsplit(urljoin(url, text if text.isprintable() else ""))
        origins = [(each.scheme, each.hostname, each.port or _PORTS.get(each.scheme)) for each in (own, parts)]
    except ValueError as error:
        raise UpstreamUnreachable("the server's endpoint event holds no address that can be read", executed="no") from error
    if not text.strip() or not text.isprintable():
        raise UpstreamUnreachable("the server's endpoint event holds no address that can be read", executed="no")
    if origins[0] != origins[1]:
        shown = urlsplit(urljoin(url, redact(text)))  # redacted first: a split url has its host in lower case
        where = f"{shown.scheme}://{shown.netloc.rpartition('@')[2]}"[:MOST_SHOWN]
        raise UpstreamUnreachable(f"the server's endpoint is on another origin ({where}), which is not followed", executed="no")
    return _path(parts)


def _header_lines(headers: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in headers.items():
        if name.lower() in OURS or name.lower().startswith("mcp-param-"):
            continue
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UpstreamUnreachable(f"the configured header {name[:40]!r} holds characters that a header must not have", executed="no")
        lines.append(f"{name}: {value.strip()}")
    return lines


def pointing(location: bytes, redact: Redactor) -> str:
    """Where a redirect leads, without userinfo and query. Redacted first: a split url has its host in lower case."""
    try:
        parts = urlsplit(redact(location.decode("latin-1")))
    except ValueError:
        return ""
    return f"; it points to {parts.scheme}://{parts.hostname}{parts.path}"[:MOST_SHOWN]


def refusal(status: int, location: bytes, redact: Redactor) -> UpstreamUnreachable:
    """What an HTTP status that is no success means to the caller. A 4xx did not run."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "?"
    text = f"the server answered HTTP {status} {phrase}"
    if 300 <= status < 400:
        text += f" (redirects are not followed{pointing(location, redact)})"
    return UpstreamUnreachable(text, executed="no" if 300 <= status < 500 else "unknown")
