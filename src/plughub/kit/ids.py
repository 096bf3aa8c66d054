"""Identifiers: uuid7 inside, prefixed base62 outside."""

import itertools
import os
import re
import uuid

from uuid_utils.compat import uuid7

from plughub.kit.clock import Clock

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = {c: i for i, c in enumerate(ALPHABET)}
_WIDTH = 22  # 62**22 > 2**128
# What clients send back is nearly always the form we gave out; parsing it costs eight times as much as looking at it.
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_REQUEST = re.compile(r"req_([0-9a-f]{9})[0-9a-f]{13}")
# So long several requests share the part of their ids that tells the time: making it anew costs as much as all the rest.
REQUEST_STEP_S = 0.05
_STEPS = 20  # a second


def new_id() -> str:
    """A new uuid7 in canonical text; ids of one process sort by time."""
    return str(uuid7())


class RequestIds:
    """`req_` + 22 characters: when, in steps of REQUEST_STEP_S, random per process, counted within (a uuid per call costs 6 us).

    Whoever looks a request up by its id learns from the id where in the log to look, so the log needs no index of ids.
    """

    __slots__ = ("_counter", "_from", "_prefix", "_process", "_time", "_until")

    def __init__(self, clock: Clock) -> None:
        self._time = clock.time
        self._counter = itertools.count(int.from_bytes(os.urandom(3)))
        self._process = os.urandom(4).hex()[:7]
        self._prefix = ""
        self._from = self._until = 0.0

    def new(self) -> str:
        """The next one."""
        now = self._time()
        if not self._from <= now < self._until:  # a clock may go back
            step = int(now * _STEPS)
            self._from, self._until = step / _STEPS, (step + 1) / _STEPS
            self._prefix = f"req_{step & 0xFFFFFFFFF:09x}{self._process}"
        return f"{self._prefix}{next(self._counter) & 0xFFFFFF:06x}"


def request_time(id_: str) -> float | None:
    """When the request of that id came: epoch seconds, at most REQUEST_STEP_S too early. None when it is no request id."""
    found = _REQUEST.fullmatch(id_)
    return int(found[1], 16) / _STEPS if found is not None else None


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
