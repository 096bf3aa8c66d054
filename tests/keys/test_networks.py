"""Networks of a key: what they may look like, whom they let in, which of them lie within others."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.keys.networks import AddressList, read_networks, require_within, within
from plughub.kit.errors import Forbidden, Invalid

ADDRESSES = st.ip_addresses().filter(lambda address: address.version == 4 or address.ipv4_mapped is None)


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = draw(ADDRESSES)
    low = 0 if address.version == 4 else 97
    return str(ip_network((address, draw(st.integers(low, address.max_prefixlen))), strict=False))


@pytest.mark.requirement("keys.allowed-addresses")
def test_networks_and_addresses_of_both_families_are_read_in_canonical_form() -> None:
    given_ = ["203.0.113.0/24", "198.51.100.7", "2001:DB8:0::/32", "2001:db8::0:7", "198.51.100.7", "0.0.0.0/0", "10.1.2.3/32"]
    assert read_networks(given_) == ("203.0.113.0/24", "198.51.100.7", "2001:db8::/32", "2001:db8::7", "0.0.0.0/0", "10.1.2.3/32")


@pytest.mark.requirement("keys.allowed-addresses")
@pytest.mark.parametrize(
    "wrong", ["office", "10.0.0.5/8", "2001:db8::1/32", "10.0.0.0/33", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:0:0/96", "10.1", "1"]
)
def test_what_is_none_is_named(wrong: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_networks(["203.0.113.0/24", wrong])
    assert raised.value.details["field"] == "allowed_ips"
    assert wrong in str(raised.value)


@pytest.mark.requirement("keys.allowed-addresses")
@given(st.lists(networks(), min_size=1, max_size=5), ADDRESSES)
def test_an_address_is_let_in_when_one_network_holds_it(texts: list[str], address: object) -> None:
    judge = AddressList(read_networks(texts))
    wanted = any(ip_address(str(address)) in ip_network(text) for text in texts)
    for _ in range(2):
        assert judge.allows(str(address)) is wanted
    assert not judge.allows("") and not judge.allows("localhost")


@given(networks(), networks())
def test_within_is_the_order_of_sets(one: str, other: str) -> None:
    inner, outer = ip_network(one), ip_network(other)
    same = inner.version == outer.version
    holds = same and inner.network_address in outer and inner.broadcast_address in outer
    assert within([other], [one]) is holds
    assert within(None, [one]) and within(None, None)
    assert not within([other], None)


@pytest.mark.requirement("keys.never-wider-than-its-maker")
def test_beyond_the_makers_networks_is_forbidden() -> None:
    require_within(("10.0.0.0/8", "2001:db8::/32"), ("10.1.0.0/16", "2001:db8::7"))
    for wider in (None, ("10.0.0.0/7",), ("10.1.0.0/16", "192.0.2.1"), ("::/0",)):
        with pytest.raises(Forbidden):
            require_within(("10.0.0.0/8", "2001:db8::/32"), wider)


def test_what_was_judged_is_bounded() -> None:
    judge = AddressList(["10.0.0.0/8"])
    for number in range(3000):
        judge.allows(f"10.0.{number // 250}.{number % 250}")
    assert len(judge._judged) <= 1024
