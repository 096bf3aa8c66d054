"""Secrets at rest: AES-256-GCM bound to the row it stands in, and keyed digests of secrets we only compare."""

import hashlib
import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_HEADER_BYTES = 2


class SealBroken(Exception):
    """A sealed value does not open: wrong key, wrong row, or changed bytes."""


class Sealer:
    """Seals with the newest key of the ring, opens with the one that the blob names.

    Blob: key number (2 bytes, big endian) + nonce (12) + ciphertext and tag. The associated data names table, row and
    column, so that a blob copied to another row does not open there.
    """

    def __init__(self, ring: Mapping[int, bytes]) -> None:
        self._ciphers = {number: AESGCM(key) for number, key in ring.items()}
        self._current = max(ring)

    def seal(self, data: bytes, aad: str) -> bytes:
        """The sealed form of `data`, openable only with the same `aad`."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._current.to_bytes(_HEADER_BYTES) + nonce + self._ciphers[self._current].encrypt(nonce, data, aad.encode())

    def open(self, blob: bytes, aad: str) -> bytes:
        """What was sealed. Raises SealBroken."""
        number, nonce = int.from_bytes(blob[:_HEADER_BYTES]), blob[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
        cipher = self._ciphers.get(number)
        if cipher is None:
            raise SealBroken(f"sealed with key {number}, which is not in the ring")
        try:
            return cipher.decrypt(nonce, blob[_HEADER_BYTES + _NONCE_BYTES :], aad.encode())
        except (InvalidTag, ValueError) as error:  # ValueError: cut short
            raise SealBroken(f"does not open for {aad}") from error


def keyed_digest(pepper: bytes, text: str) -> bytes:
    """HMAC-SHA256 of a secret: what a leaked database gives is not even a verifier without the pepper."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def token_digest(token: str) -> bytes:
    """SHA-256 of a token that we made of so many random bits (96 at least) that there is nothing to guess: no key is needed."""
    return hashlib.sha256(token.encode()).digest()
