"""One strict JSON decoder for management bodies, and the cheap checks that hot bodies get.

What a lax parser lets through ends as a 500 in a database or as two readers seeing two messages (`reference: RFC 8259, RFC 7493`):
NaN and infinities, duplicate keys, lone surrogates, NUL, UTF-16, a byte order mark, great depth.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from plughub.kit.errors import Malformed, ParseError, PayloadTooLarge

MAX_DEPTH = 64
# Of one object of a management body; each unknown one would be named in the answer.
MAX_MEMBERS = 10_000
# Of a whole management body: 100,000 small members are a fifth of a second and 15 MB of Python.
MAX_COLONS = 100_000
# Possessive, and a string without its end matches too: linear in time whatever comes.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_KEY = re.compile(rb'\s*"(?:[^"\\]|\\.)*"\s*:\s*')
_BETWEEN = re.compile(rb"\s*[,}]")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def loads(body: bytes, *, limit_bytes: int) -> Any:
    """Decode a management body. Raises PayloadTooLarge, ParseError or Malformed, each saying what is wrong."""
    if len(body) > limit_bytes:
        raise PayloadTooLarge(limit_bytes=limit_bytes)
    text = utf8(body)
    if body.count(b":") > MAX_COLONS:
        raise Malformed(f"The body has more than {MAX_COLONS} members")
    check_depth(body)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ParseError(f"The body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise ParseError("The body holds a number that is too long") from error
    if "\\u" in text:
        _check_strings(value)
    return value


def utf8(body: bytes | bytearray | memoryview) -> str:
    """The text of the body. Raises ParseError when it is not UTF-8 or begins with a byte order mark."""
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise ParseError("The body is not valid UTF-8") from error
    if text.startswith("\ufeff"):
        raise ParseError("The body begins with a byte order mark")
    return text


def check_depth(body: bytes) -> None:
    """Raise Malformed when arrays and objects nest deeper than 64."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(body):
        mark = body[token.start()]
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed(f"The body nests deeper than {MAX_DEPTH} levels")
        elif mark in b"]}":
            depth -= 1


def members(body: bytes) -> dict[str, bytes]:
    """The members of a JSON object as raw JSON values, its keys proven unique. Raises ParseError or Malformed.

    The values are checked for syntax by the decoder; UTF-8 and depth are the caller's to check once for the whole body.
    """
    try:
        decoded = _members.decode(body)
    except msgspec.ValidationError as error:
        raise Malformed("A JSON object is expected") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError(f"The body is not valid JSON: {error}") from error
    count = len(decoded)
    if count > MAX_MEMBERS:  # what follows takes microseconds a member
        raise Malformed(f"An object of the body has more than {MAX_MEMBERS} members")
    # bytes, not Raw: a Raw equals nothing but itself.
    found = {name: bytes(value) for name, value in decoded.items()}
    size = len(body)
    # Keys and values as they stand, two quotes and a colon a key, commas between, two braces: shorter is impossible.
    least = len("".join(found)) + sum(map(len, found.values())) + 4 * count + 1
    if size != least and count and (size != least + 2 * count - 1 or bytes(body) != _spaced(found)):
        _check_unique(bytes(body), found)
    return found


def _spaced(found: Mapping[str, bytes]) -> bytes:
    """The object as Python's `json.dumps` writes it, with a space after each colon and comma."""
    return b"{" + b", ".join([b'"%b": %b' % (name.encode(), value) for name, value in found.items()]) + b"}"


def _check_unique(body: bytes, found: Mapping[str, bytes]) -> None:
    """Walk the top level of a valid object, stepping over each value by the length that the decoder found."""
    position, seen = body.index(b"{") + 1, set()
    for _ in range(len(found)):
        key = _KEY.match(body, position)
        name = _string.decode(key.group().strip()[:-1].rstrip()) if key else None
        value = found.get(name or "")
        if key is None or value is None or name in seen or not body.startswith(value, key.end()):
            raise Malformed(f"The key {name!r} appears twice" if name is not None else "The body cannot be read")
        seen.add(name)
        between = _BETWEEN.match(body, key.end() + len(value))
        if between is None:
            raise Malformed(f"The key {name!r} appears twice")
        position = between.end()
    if body[position - 1 : position] != b"}":
        raise Malformed("A key appears twice")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise Malformed(f"An object of the body has more than {MAX_MEMBERS} members")
    found = dict(pairs)
    if len(found) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise Malformed(f"The key {names.most_common(1)[0][0][:100]!r} appears twice")
    return found


def _no_constant(name: str) -> float:
    raise ParseError(f"The body holds {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("The body holds a number that is out of range")
    return value


def _check_strings(value: Any) -> None:
    """Refuse NUL and lone surrogates, which databases and UTF-8 cannot hold."""
    if isinstance(value, str):
        if "\0" in value:
            raise Malformed("The body holds a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Malformed("The body holds a lone surrogate") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
