"""Identifiers: uuid7 inside, prefixed base62 outside."""

import itertools
import os
import re
import uuid

from uuid_utils.compat import uuid7

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = {c: i for i, c in enumerate(ALPHABET)}
_WIDTH = 22  # 62**22 > 2**128
# What clients send back is nearly always the form we gave out; parsing it costs eight times as much as looking at it.
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_counter = itertools.count(int.from_bytes(os.urandom(3)))
_process = os.urandom(7).hex()


def new_id() -> str:
    """A new uuid7 in canonical text; ids of one process sort by time."""
    return str(uuid7())


def request_id() -> str:
    """`req_` + 22 characters, unique over processes: random per process, counted within (a uuid per call costs 6 us)."""
    return f"req_{_process}{next(_counter) & 0xFFFFFFFF:08x}"


def base62(number: int, width: int) -> str:
    """`number` in base 62, left-padded with zeros to `width`."""
    digits = []
    while number:
        number, rest = divmod(number, 62)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits)).rjust(width, "0")


def public_id(prefix: str, id_: str) -> str:
    """`prefix_` + 22 base62 digits of the uuid, left-padded."""
    return f"{prefix}_{base62(uuid.UUID(id_).int, _WIDTH)}"


def parse_uuid(text: str) -> str | None:
    """The canonical form of a uuid written with hyphens, or None."""
    if _CANONICAL.fullmatch(text) is not None:
        return text
    if len(text) != 36:
        return None
    try:
        found = str(uuid.UUID(text))
    except ValueError:
        return None
    # UUID() also reads braces, odd hyphens, underscores and other digits than ours.
    return found if found == text.lower() else None


def parse_public_id(prefix: str, text: str) -> str | None:
    """The uuid behind `prefix_` + 22 digits (or a plain uuid), or None: a malformed id is a 404, never a 400."""
    head = prefix + "_"
    if not text.startswith(head):
        return parse_uuid(text)
    digits = text[len(head) :]
    if len(digits) != _WIDTH or any(c not in _VALUE for c in digits):
        return None
    number = 0
    for c in digits:
        number = number * 62 + _VALUE[c]
    return str(uuid.UUID(int=number)) if number < 1 << 128 else None
