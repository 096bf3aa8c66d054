"""Secrets of the authorization server: their forms, and the digests that are all we keep of them."""

import re
import secrets
from collections.abc import Sequence

from plughub.keys.service import Peppers
from plughub.kit.crypto import keyed_digest
from plughub.kit.ids import ALPHABET

ACCESS, REFRESH, CODE, DEVICE, SECRET = "at_", "rt_", "ac_", "dc_", "cs_"
ACCESS_HEADER = b"bearer " + ACCESS.encode()
_RANDOM = 43  # 256 bits
_FORM = re.compile(r"(?:at|rt|ac|dc|cs)_[0-9A-Za-z]{43}")
# The documents' form of the device code of a command line.
CLI_DEVICE_LENGTH = 48
_CLI_DEVICE = re.compile(r"[0-9A-Za-z]{48}")
# Without what is mistaken for something else: 31 characters, 8 of them are 39 bits, good for minutes, at a few attempts an address.
_USER_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_USER_HALF = 4


def generate(prefix: str) -> str:
    """A new secret, 256 random bits."""
    return prefix + _random(_RANDOM)


def has_form(text: str, prefix: str) -> bool:
    """Whether it may be one of those: a text of another form never reaches the database."""
    return text.startswith(prefix) and _FORM.fullmatch(text) is not None


def generate_cli_device() -> str:
    """A device code as the documents show it, 285 random bits."""
    return _random(CLI_DEVICE_LENGTH)


def is_cli_device(text: str) -> bool:
    """Whether it may be one."""
    return _CLI_DEVICE.fullmatch(text) is not None


def generate_user_code() -> str:
    """`ABCD-1234`: what a person types."""
    halves = ["".join(secrets.choice(_USER_ALPHABET) for _ in range(_USER_HALF)) for _ in range(2)]
    return "-".join(halves)


def normal_user_code(text: str) -> str | None:
    """The code as it was given out, however it was typed; None when it cannot be one."""
    bare = re.sub(r"[\s-]", "", text).upper()
    if len(bare) != 2 * _USER_HALF or any(character not in _USER_ALPHABET for character in bare):
        return None
    return f"{bare[:_USER_HALF]}-{bare[_USER_HALF:]}"


class Digests:
    """Keyed digests under the hub's peppers: new ones under the newest, old ones are still found."""

    def __init__(self, peppers: Peppers) -> None:
        self._peppers = [pepper for _, pepper in sorted(peppers.ring.items(), reverse=True)]

    def new(self, text: str) -> bytes:
        """What to keep of a new secret."""
        return keyed_digest(self._peppers[0], text)

    def all(self, text: str) -> Sequence[bytes]:
        """What may be kept of it, the newest pepper first."""
        return [keyed_digest(pepper, text) for pepper in self._peppers]


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
