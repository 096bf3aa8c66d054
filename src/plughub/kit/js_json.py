"""JSON as JavaScript writes it: `dumps(x)` is `JSON.stringify(JSON.parse(text))` of any JSON text of x.

A receiver that checks a signature over what it parsed and wrote anew gets the bytes that were signed (ECMA-262: `JSON.stringify`,
`Number::toString`, the order of keys). `tests/kit/test_js_json.py` holds it against Node.
"""

import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

# Beyond this a double does not hold every integer, and JavaScript has no others.
_EXACT = 2**53
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_LAST_INDEX = 2**32 - 2
_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> str:
    """The text of what JSON can hold. Raises TypeError for anything else."""
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(int(value)) if -_EXACT <= value <= _EXACT else _number(_double(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_string(key)}:{dumps(value[key])}" for key in _keys(value)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    raise TypeError(f"JSON holds no {type(value).__name__}")


def _string(text: str) -> str:
    encoded = encode_basestring(text)
    # UTF-8 has no place for half a pair; JavaScript writes it as an escape.
    return encoded if encoded.isascii() else _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded)


def _keys(value: Mapping[str, Any]) -> list[str]:
    """In the order of an object's properties: those that look like an index of an array first, by size."""
    keys = list(value)
    indexes = [key for key in keys if key[:1].isdigit() and _is_index(key)]
    return sorted(indexes, key=int) + [key for key in keys if not _is_index(key)] if indexes else keys


def _is_index(key: str) -> bool:
    return _INDEX.fullmatch(key) is not None and int(key) <= _LAST_INDEX


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"  # of -0 too
    sign = "-" if value < 0 else ""
    # Both languages write the fewest digits that lead back to the double; where the point stands is what differs.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """`digits` with the point after so many of them, which may be negative or beyond the last (ECMA-262 6.1.6.1.20)."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    shown = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{shown}e{'+' if point > 0 else '-'}{abs(point - 1)}"
