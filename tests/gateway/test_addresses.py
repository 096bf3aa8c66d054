"""Whose address a request comes from."""

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.gateway.addresses import ClientAddresses


@dataclass
class Sent:
    scope: Any
    headers: dict[bytes, bytes]


def sent(peer: str | None, *said: str) -> Sent:
    pairs = [(b"x-forwarded-for", line.encode("latin-1")) for line in said]
    return Sent({"client": None if peer is None else (peer, 4711), "headers": pairs}, dict(pairs))


TRUSTING = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32")])


@pytest.mark.requirement("keys.client-address")
@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        ("2001:DB8:0:0::1", [], "2001:db8::1"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["203.0.113.7"], ""),
        # Who is no proxy of ours may say what it likes.
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # From the right: what the client wrote itself stands left of where it was seen.
        ("10.0.0.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.9.9.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.66,198.51.100.1", "10.0.0.3 , 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["2001:db8::7, fd00::1"], "2001:db8::7"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        # What is no address is nobody: the proxy that took it stands for it.
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["", ",,"], "10.0.0.1"),
        ("10.0.0.1", ["\xff\xfe"], "10.0.0.1"),
    ],
)
def test_the_list_is_read_from_the_right_over_trusted_proxies_only(peer: str | None, said: list[str], address: str) -> None:
    for _ in range(2):  # read, and remembered
        assert TRUSTING.of(sent(peer, *said)) == address


@pytest.mark.requirement("keys.client-address")
def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert ClientAddresses([]).of(sent("10.0.0.1", "198.51.100.1")) == "10.0.0.1"


@given(st.text(st.characters(max_codepoint=255), max_size=80), st.ip_addresses().map(str))
def test_whatever_a_client_writes_the_address_is_the_one_its_proxy_saw(claimed: str, seen: str) -> None:
    honest = TRUSTING.of(sent("10.0.0.1", seen))
    if honest == "10.0.0.1" or any(honest.startswith(own) for own in ("10.", "fd", "127.")):
        return  # a proxy's own
    assert TRUSTING.of(sent("10.0.0.1", f"{claimed}, {seen}")) == honest


def test_what_is_remembered_is_bounded() -> None:
    addresses = ClientAddresses([ip_network("10.0.0.0/8")])
    for number in range(10_000):
        addresses.of(sent("10.0.0.1", f"198.51.100.1, 10.0.{number // 250}.{number % 250}"))
    addresses.of(sent("10.0.0.1", ",".join(["198.51.100.1"] * 1000)))
    assert len(addresses._read) <= 4096
    assert all(len(said) <= 256 for _, said in addresses._read)
