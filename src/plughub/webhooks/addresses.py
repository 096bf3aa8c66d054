"""The address of a receiver: what may be one, and what is shown of it. Pure; the addresses that a name leads to are judged when it is
dialled (`kit.dial`).
"""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit, urlunsplit

from plughub.kit.dial import Allowed, refusal
from plughub.kit.errors import UpstreamUnreachable
from plughub.upstream.http_address import address_of

MASK = "***"
MAX_URL = 2000


def url_defect(url: str, allowed: Allowed) -> str | None:
    """What is wrong with an address, or None. Looks nothing up: of a name, only what it says itself is judged."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "an address is written in ASCII, without spaces and backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        address_of(url, {})
    except (ValueError, UpstreamUnreachable) as error:
        return error.reason if isinstance(error, UpstreamUnreachable) else "the url cannot be read"
    if "@" in parts.netloc:
        return "an address has no user and password: what it signs is the secret"
    if "#" in url:
        return "an address has no fragment"
    if port == 0 or "%" in host:
        return "the host or the port is none that can be connected to"
    return _literal_defect(host, allowed)


def _literal_defect(host: str, allowed: Allowed) -> str | None:
    try:
        ip_address(host)
    except ValueError:
        # A resolver reads 0177.0.0.1, 0x7f000001 and 2130706433 as addresses too; nobody needs to write them so.
        last = host.rstrip(".").rpartition(".")[2]
        if last.isdigit() or last.lower().startswith("0x"):
            return "a numeric address is written as four decimal numbers, or as IPv6 in brackets"
        if last.lower() == "localhost" and allowed == ():
            return "private and loopback addresses are not allowed"
        return None
    return refusal(host, allowed)


def shown_url(url: str, *, whole_path: bool) -> str:
    """The address without the secrets that it may hold: values of the query, and of chat services the path."""
    parts = urlsplit(url)
    path = parts.path if whole_path or parts.path in ("", "/") else f"/{MASK}"
    query = "&".join(_masked(part) for part in parts.query.split("&")) if parts.query else ""
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, query, ""))


def _masked(part: str) -> str:
    name, equals, _ = part.partition("=")
    return f"{name}={MASK}" if equals else MASK
