"""The two signatures of a delivery. Pure: Standard Webhooks 1.0.0, and the documents' hex HMAC of the raw body."""

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass

SECRET_PREFIX = "whsec_"
MIN_SECRET, MAX_SECRET = 8, 200
_SECRET_BYTES = 24


def generate_secret() -> str:
    """`whsec_` + base64 of 24 random bytes, as the official libraries take it."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def secret_defect(secret: str) -> str | None:
    """What is wrong with a secret, or None. One that begins with `whsec_` is the base64 of a key; any other is the key itself."""
    if not MIN_SECRET <= len(secret) <= MAX_SECRET:
        return f"a secret has {MIN_SECRET} to {MAX_SECRET} characters"
    if not secret.startswith(SECRET_PREFIX):
        return None
    try:
        key = base64.b64decode(secret[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return f"after {SECRET_PREFIX} comes base64, with its padding"
    return None if len(key) >= MIN_SECRET else f"the base64 after {SECRET_PREFIX} holds at least {MIN_SECRET} bytes"


def _key(secret: str) -> bytes:
    return base64.b64decode(secret[len(SECRET_PREFIX) :]) if secret.startswith(SECRET_PREFIX) else secret.encode()


@dataclass(frozen=True, slots=True)
class Signer:
    """The keys of one endpoint. While a rotation overlaps there are two: receivers of Standard Webhooks get both signatures, the
    documents' header can hold one and stays on the old secret until the overlap ends.
    """

    keys: tuple[bytes, ...]
    typed: bytes

    @classmethod
    def of(cls, secret: str, previous: str | None = None) -> "Signer":
        """For the newest secret and the one before it, while that is valid."""
        keys = (_key(secret),) if previous is None else (_key(secret), _key(previous))
        return cls(keys, (secret if previous is None else previous).encode())

    def headers(self, message_id: str, timestamp: int, body: bytes) -> bytes:
        """The signed headers as lines. `timestamp` in epoch seconds, `message_id` without a dot."""
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        signatures = b" ".join([b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in self.keys])
        return b"webhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: %b\r\nX-Pluggedin-Signature: %b\r\n" % (
            message_id.encode(),
            timestamp,
            signatures,
            hmac.digest(self.typed, body, hashlib.sha256).hex().encode(),
        )
