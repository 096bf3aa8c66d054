"""Which addresses are dialled, for whom, and that nothing else is ever connected to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network

import anyio
import pytest

from plughub.kit.dial import Allowed, DialRefused, Tls, dial, refusal

pytestmark = pytest.mark.anyio

NOBODY: Allowed = ()
OPERATOR: Allowed = None

# Addresses of the published attacks on other gateways; each leads inside.
INSIDE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "203.0.113.5",
    "::1",
    "fc00::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "5f00::1",
    "100::1",
    "::ffff:0.0.0.0",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("host", INSIDE)
def test_inside_is_for_the_operator_alone(host: str) -> None:
    assert refusal(host, NOBODY)
    assert refusal(host, OPERATOR) is None


@pytest.mark.requirement("servers.link-local-refused")
@pytest.mark.parametrize("host", NEVER)
def test_metadata_and_link_local_are_for_nobody(host: str) -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert refusal(host, NOBODY) and refusal(host, OPERATOR) and refusal(host, everything)


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_for_everybody(host: str) -> None:
    assert refusal(host, NOBODY) is None


def test_a_listed_network_is_allowed_and_its_neighbour_is_not() -> None:
    allowed = (ip_network("10.1.0.0/16"),)
    assert refusal("10.1.2.3", allowed) is None
    assert refusal("::ffff:10.1.2.3", allowed) is None
    assert refusal("10.2.0.1", allowed) and refusal("127.0.0.1", allowed)


class Canary:
    """A listener on loopback that counts who comes."""

    def __init__(self) -> None:
        self.visits = 0

    def __call__(self) -> asyncio.Protocol:
        self.visits += 1
        return asyncio.Protocol()


@pytest.fixture
async def canary() -> AsyncIterator[tuple[Canary, int]]:
    counted = Canary()
    server = await asyncio.get_running_loop().create_server(counted, "127.0.0.1", 0)
    yield counted, server.sockets[0].getsockname()[1]
    server.close()


async def test_the_operator_reaches_loopback(canary: tuple[Canary, int]) -> None:
    counted, port = canary
    transport, _ = await dial("127.0.0.1", port, asyncio.Protocol, allowed=OPERATOR, timeout_s=5)
    with anyio.fail_after(5):
        while not counted.visits:
            await anyio.lowlevel.checkpoint()
    assert transport.get_extra_info("peername")[0] == "127.0.0.1"
    transport.abort()


@pytest.mark.requirement("upstream.every-address-checked")
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::ffff:127.0.0.1"]
)
async def test_loopback_in_disguise_is_not_reached(canary: tuple[Canary, int], host: str) -> None:
    counted, port = canary
    with pytest.raises(OSError):
        await dial(host, port, asyncio.Protocol, allowed=NOBODY, timeout_s=5)
    assert counted.visits == 0


async def test_a_refusal_names_the_host_and_the_reason() -> None:
    with pytest.raises(DialRefused, match=r"127\.0\.0\.1: private and loopback addresses are not allowed"):
        await dial("127.0.0.1", 1, asyncio.Protocol, allowed=NOBODY, timeout_s=5)
    with pytest.raises(DialRefused, match="metadata"):
        await dial("169.254.169.254", 80, asyncio.Protocol, allowed=OPERATOR, timeout_s=5)


@pytest.mark.requirement("upstream.every-address-checked")
async def test_of_several_addresses_only_the_allowed_ones_are_tried(canary: tuple[Canary, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means a refused and an allowed address leads to the allowed one: the judged address is the dialled one."""
    _counted, port = canary
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("169.254.169.254", "10.255.255.1", "127.0.0.1")]

    async def resolved(*args: object, **more: object) -> object:
        return entries

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved, raising=True)
    transport, _ = await dial("rebinding.test", port, asyncio.Protocol, allowed=(ip_network("127.0.0.0/8"),), timeout_s=5)
    assert transport.get_extra_info("peername")[0] == "127.0.0.1"
    transport.abort()


@pytest.mark.parametrize("host", ["a..b", ".a", ".", "a" * 70, "a" * 70 + ".test", "\u00e9" * 99, "a\0b"])
async def test_a_name_that_can_be_no_host_does_not_resolve(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await dial(host, 80, asyncio.Protocol, allowed=OPERATOR, timeout_s=5)


async def test_a_closed_port_is_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await dial("127.0.0.1", unused.getsockname()[1], asyncio.Protocol, allowed=OPERATOR, timeout_s=5)


async def test_a_peer_that_does_not_shake_hands_ends_in_a_timeout(canary: tuple[Canary, int]) -> None:
    context = await Tls().context()
    with pytest.raises(TimeoutError):
        await dial("127.0.0.1", canary[1], asyncio.Protocol, allowed=OPERATOR, ssl=context, timeout_s=0.2)


async def test_the_tls_context_is_made_once_and_checks_names() -> None:
    tls = Tls()
    first, second = await asyncio.gather(tls.context(), tls.context())
    assert first is second
    assert first.check_hostname
