"""The one dialler: every address that the hub connects to is judged here, at the moment of the connection.

Python's `ipaddress.is_global` calls several ranges public that lead inside, so the ranges are written out (`reference`: the table
of Svix, completed). Three kinds: never (link-local, metadata services, multicast, nonsense), private (only where allowed), public.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

Network = IPv4Network | IPv6Network
# None = every private and loopback address; else only the listed ones.
Allowed = tuple[Network, ...] | None
P = TypeVar("P", bound=asyncio.BaseProtocol)
_Entry = tuple[int, int, int, str, tuple[object, ...]]  # of getaddrinfo


def _table(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part) for part in text.split())


NEVER = _table(
    "0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 "
    "100.100.100.200/32 168.63.129.16/32 192.0.0.192/32 "  # metadata services of Alibaba, Azure, Oracle
    "::/128 fe80::/10 fec0::/10 ff00::/8 fd00:ec2::254/128 fd20:ce::254/128 "  # the last two: AWS, Google
    "100::/64 5f00::/16"
)
PRIVATE = _table(
    "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 "
    "198.51.100.0/24 203.0.113.0/24 ::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2001::/23 2001:db8::/32 2002::/16 3fff::/20 fc00::/7"
)
# IPv6 ranges that carry an IPv4 address, and how many bits stand right of it.
_CARRIERS = ((ip_network("::/96"), 0), (ip_network("::ffff:0:0:0/96"), 0), (ip_network("64:ff9b::/96"), 0), (ip_network("2002::/16"), 80))


# A peer that vanished without a word is noticed within two minutes, on streams too that may be silent for hours.
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)  # not everywhere
]


class DialRefused(OSError):
    """The address is not one that may be connected to; the text says which and why."""


def _in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def refusal(host: str, allowed: Allowed) -> str | None:
    """Why the numeric address `host` may not be dialled, or None."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    carried = next((IPv4Address(int(address) >> shift & 0xFFFFFFFF) for net, shift in _CARRIERS if _in(address, (net,))), None)
    loopback = address == IPv6Address("::1")
    if _in(address, NEVER) or (carried is not None and not loopback and _in(carried, NEVER)):
        return "link-local, metadata and other special addresses are never connected to"
    if _in(address, PRIVATE) and allowed is not None and not _in(address, allowed):
        return "private and loopback addresses are not allowed for this organisation"
    return None


async def dial(
    host: str,
    port: int,
    protocol_factory: Callable[[], P],
    *,
    allowed: Allowed,
    ssl: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    timeout_s: float,
) -> tuple[asyncio.Transport, P]:
    """Connect to the first address of `host` that is allowed and answers, within `timeout_s` in all.

    Raises DialRefused, TimeoutError, or another OSError (names that do not resolve, refused connections, TLS failures).
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except ValueError as error:  # UnicodeError is one: empty and overlong labels, which the resolver never gets to see
            raise socket.gaierror(socket.EAI_NONAME, "not a valid host name") from error
        refusals = [refusal(str(entry[4][0]), allowed) for entry in found]
        usable = [entry for entry, reason in zip(found, refusals, strict=True) if reason is None]
        if not usable:
            raise DialRefused(f"{host}: {next(filter(None, refusals), 'no address')}")
        connected = await _connect_first(loop, usable, timeout_s)
        try:
            return await loop.create_connection(
                protocol_factory, sock=connected, ssl=ssl, server_hostname=(server_hostname or host) if ssl else None
            )
        except BaseException:
            connected.close()
            raise


async def _connect_first(loop: asyncio.AbstractEventLoop, entries: Sequence[_Entry], timeout_s: float) -> socket.socket:
    """A socket connected to the first entry that answers; none of them may use up all the time."""
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in entries:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for level, option, value in _KEEP_ALIVE:
                sock.setsockopt(level, option, value)
            async with asyncio.timeout(timeout_s / len(entries)):
                await loop.sock_connect(sock, address)
            return sock
        except OSError as error:  # TimeoutError is one
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
    raise last


class Tls:
    """The one TLS context of the process, made on first use and off the loop's thread: reading the certificates takes 20 ms."""

    def __init__(self) -> None:
        self._context: asyncio.Future[ssl.SSLContext] | None = None

    async def context(self) -> ssl.SSLContext:
        """The context for outgoing connections: system certificates, names checked."""
        if self._context is None:
            self._context = asyncio.get_running_loop().run_in_executor(None, _client_context)
        return await asyncio.shield(self._context)


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
