"""Whose address a request comes from: the connection's, or what the operator's own proxies say of it."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Protocol

Network = IPv4Network | IPv6Network
_HEADER = b"x-forwarded-for"
_REMEMBERED = 4096
_MAX_REMEMBERED_BYTES = 256


class Sent(Protocol):
    """What is read of a request: the ASGI scope, and its headers by name."""

    scope: Any
    headers: dict[bytes, bytes]


class ClientAddresses:
    """The one way to a client's address. Each proxy appends who spoke to it, so the list is read from the right for as long as it was
    written by trusted proxies; whatever stands left of the first address that is none of them may be the client's invention.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._read: dict[tuple[str, bytes], str] = {}

    def of(self, request: Sent) -> str:
        """The address in canonical text; "" when there is none (a UNIX socket)."""
        client = request.scope.get("client")
        if client is None:
            return ""
        peer: str = client[0]
        if not self._trusted or _HEADER not in request.headers:
            return peer if ":" not in peer else _plain(peer)
        # `headers` keeps the last of several, and a proxy may add a line of its own.
        said = b",".join(value for name, value in request.scope["headers"] if name == _HEADER)
        found = self._read.get((peer, said))
        if found is None:
            found = self._walk(_plain(peer), said)
            if len(said) <= _MAX_REMEMBERED_BYTES:
                if len(self._read) >= _REMEMBERED:
                    self._read.clear()
                self._read[peer, said] = found
        return found

    def _walk(self, peer: str, said: bytes) -> str:
        address = peer
        for part in reversed(said.decode("latin-1").split(",")):
            if not self._is_trusted(address):
                break
            following = _address_in(part)
            if following is None:  # nobody knows who that is: the proxy that took it stands for it
                break
            address = following
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)


def _address_in(part: str) -> str | None:
    """The address in one entry: `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`."""
    text = part.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    found = _plain(text)
    try:
        ip_address(found)
    except ValueError:
        return None
    return found


def _plain(text: str) -> str:
    """Canonical text without a zone; an IPv4 address that came over IPv6 is an IPv4 address. What is no address stays as it is."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)
