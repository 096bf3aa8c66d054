"""Which addresses a key may be used from: networks in CIDR notation, of both families."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from plughub.kit.errors import Forbidden, Invalid

Network = IPv4Network | IPv6Network
_FIELD = "allowed_ips"
_MAPPED = IPv6Network("::ffff:0:0/96")
_REMEMBERED = 1024


class AddressList:
    """The networks of one key; what was judged is remembered, bounded."""

    __slots__ = ("_judged", "_networks")

    def __init__(self, texts: Sequence[str]) -> None:
        self._networks = [ip_network(text) for text in texts]
        self._judged: dict[str, bool] = {}

    def allows(self, address: str) -> bool:
        """Whether the address is in one of the networks; what is no address (a UNIX socket's) is in none."""
        judged = self._judged.get(address)
        if judged is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            judged = self._judged[address] = self._judge(address)
        return judged

    def _judge(self, address: str) -> bool:
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def read_networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Networks and single addresses in their canonical form, each once. Raises Invalid naming the first that is none."""
    return tuple(dict.fromkeys(_canonical(text, texts) for text in texts))


def require_within(limit: Sequence[str] | None, wanted: Sequence[str] | None) -> None:
    """Raise Forbidden when `wanted` (None = everywhere) reaches beyond `limit`."""
    if not within(limit, wanted):
        raise Forbidden("A key cannot give addresses that it may not be used from", reason="wider_than_maker")


def within(limit: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    """Whether every network of `wanted` lies in one of `limit`."""
    if limit is None:
        return True
    outer = [ip_network(text) for text in limit]
    return wanted is not None and all(any(_inside(ip_network(text), network) for network in outer) for text in wanted)


def _canonical(text: str, given: Sequence[str]) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise Invalid(
            _FIELD, f"'{text[:50]}' is neither an address nor a network like 203.0.113.0/24 or 2001:db8::/32", list(given)
        ) from None
    single = "/" not in text
    shown = str(network.network_address) if single else str(network)
    if "%" in text or (isinstance(network, IPv6Network) and network.subnet_of(_MAPPED)):
        raise Invalid(_FIELD, f"'{text[:50]}' never meets a client: write an IPv4 address in its own form, and no zone", list(given))
    if not single and ip_address(text.partition("/")[0]) != network.network_address:
        raise Invalid(_FIELD, f"'{text[:50]}' has bits beyond its prefix: the network is {shown}", list(given))
    return shown


def _inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
