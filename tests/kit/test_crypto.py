"""Secrets at rest."""

import pytest

from plughub.kit.crypto import SealBroken, Sealer, keyed_digest


@pytest.mark.requirement("servers.secrets-at-rest")
def test_a_sealed_value_opens_in_its_own_row_alone() -> None:
    sealer = Sealer({1: b"a" * 32})
    blob = sealer.seal(b"secret", "server|1|config")
    assert b"secret" not in blob and sealer.seal(b"secret", "server|1|config") != blob
    assert sealer.open(blob, "server|1|config") == b"secret"
    with pytest.raises(SealBroken):
        sealer.open(blob, "server|2|config")
    for position in range(len(blob)):
        changed = blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]
        with pytest.raises(SealBroken):
            sealer.open(changed, "server|1|config")


@pytest.mark.parametrize("blob", [b"", b"\0", b"\0\1", b"\0\1" + b"x" * 12, b"\0\1" + b"x" * 27])
def test_what_is_cut_short_is_broken_in_words(blob: bytes) -> None:
    with pytest.raises(SealBroken):
        Sealer({1: b"a" * 32}).open(blob, "a")


def test_the_ring_seals_with_its_newest_key_and_opens_with_each() -> None:
    old = Sealer({1: b"a" * 32}).seal(b"x", "a")
    ring = Sealer({1: b"a" * 32, 2: b"b" * 32})
    assert ring.open(old, "a") == b"x"
    with pytest.raises(SealBroken, match="key 2"):
        Sealer({1: b"a" * 32}).open(ring.seal(b"x", "a"), "a")


def test_a_digest_depends_on_the_pepper() -> None:
    assert len(keyed_digest(b"p", "text")) == 32
    assert keyed_digest(b"p", "text") == keyed_digest(b"p", "text") != keyed_digest(b"q", "text")
