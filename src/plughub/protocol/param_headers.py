"""Arguments of a tool that are repeated as `Mcp-Param-*` headers, because its schema marks them with `x-mcp-header`.

MCP 2026-07-28 "Transports", SEP-2243: whoever sends the call over HTTP repeats them, whoever receives it compares. A mark stands on a
string, integer or boolean property that a chain of `properties` leads to; a schema with any other mark makes its tool unusable over
HTTP. Pure functions over raw JSON.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from plughub.kit.errors import HeaderMismatch
from plughub.protocol.envelope import decode_header, encode_header

MARK = b"x-mcp-header"
_KEY = MARK.decode()
_TYPES = frozenset(("string", "integer", "boolean"))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# JSON Schema 2020-12: the keywords that hold schemas, by how they hold them. Data (`default`, `enum`) and references are not among them.
_ONE = frozenset(
    (
        "items",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    )
)
_SEVERAL = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_NAMED = frozenset(("patternProperties", "dependentSchemas", "$defs", "definitions"))
_WHOLE = re.compile(rb"-?\d{1,4000}")
# A header that says an integer, with or without a fraction of zeros.
_DECIMAL = re.compile(r"(-?\d{1,4000})(?:\.0+)?")
_MOST_EXACT = 2.0**53
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(float)


class InvalidMark(ValueError):
    """A schema's `x-mcp-header` that the specification does not allow; the text says which."""


@dataclass(frozen=True, slots=True)
class Param:
    """One marked argument: the path of properties to it, and its header, as it is written and as it is looked up."""

    path: tuple[str, ...]
    name: bytes
    key: bytes
    integer: bool


def may_be_marked(raw: bytes) -> bool:
    """Whether the word can stand in this JSON at all; a mark may be written with escapes."""
    return MARK in raw or b"\\u" in raw


def read_marks(schema: bytes) -> tuple[Param, ...]:
    """The marked arguments of a tool's raw input schema. Raises InvalidMark."""
    if not may_be_marked(schema):
        return ()
    try:
        root = msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError):
        return ()
    found: dict[bytes, Param] = {}
    for path, node in _schemas(root):
        if _KEY in node:
            if not path:
                raise InvalidMark(f"{_KEY} stands where no chain of properties leads")
            param = _param(path, node)
            if param.key in found:
                raise InvalidMark(f"{_at(path)} has the same {_KEY} as {_at(found[param.key].path)}")
            found[param.key] = param
    return tuple(found.values())


def _schemas(root: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Every schema in a schema, with the chain of properties to it; None where another keyword is on the way."""
    stack: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for word, value in node.items():
            if word in _ONE:
                stack.append((None, value))
            elif word in _SEVERAL and isinstance(value, list):
                stack += [(None, each) for each in value]
            elif isinstance(value, dict) and word == "properties":
                stack += [(None if path is None else (*path, name), each) for name, each in value.items()]
            elif isinstance(value, dict) and word in _NAMED:
                stack += [(None, each) for each in value.values()]


def _param(path: tuple[str, ...], node: dict[str, Any]) -> Param:
    token, kind = node[_KEY], node.get("type")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidMark(f"{_at(path)} has a {_KEY} that is no name of a header")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InvalidMark(f"{_at(path)} has a {_KEY} and is not of type string, integer or boolean")
    name = b"Mcp-Param-" + token.encode()
    return Param(path, name, name.lower(), kind == "integer")


def _at(path: tuple[str, ...]) -> str:
    return f"the property '{'.'.join(path)[:100]}'"


def header_pairs(params: tuple[Param, ...], arguments: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a call with these raw arguments. What is absent, null or no scalar has none."""
    texts = [(param.name, _text_at(arguments, param.path)) for param in params]
    return [(name, encode_header(text)) for name, text in texts if text is not None]


def header_lines(params: tuple[Param, ...], arguments: bytes) -> bytes:
    """`header_pairs` as lines."""
    return b"".join([b"%b: %b\r\n" % pair for pair in header_pairs(params, arguments)])


def check_headers(params: tuple[Param, ...], arguments: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Compare the headers of a call with its raw arguments. Raises HeaderMismatch."""
    for param in params:
        header, text = headers.get(param.key), _text_at(arguments, param.path)
        if header is None and text is None:
            continue
        name, argument = param.name.decode(), ".".join(param.path)[:100]
        if header is None:
            raise HeaderMismatch(f"{name} header is missing, and the argument '{argument}' is given")
        said = decode_header(header.strip(b" \t"))
        if said is None:
            raise HeaderMismatch(f"{name} header cannot be decoded")
        if text is None or not (said == text or (param.integer and _same_integer(said, text))):
            raise HeaderMismatch(f"{name} header does not match the argument '{argument}'")


def _same_integer(said: str, text: str) -> bool:
    found = _DECIMAL.fullmatch(said)
    return found is not None and str(int(found[1])) == text


def _text_at(arguments: bytes, path: tuple[str, ...]) -> str | None:
    """The argument at a path as a header says it."""
    raw: bytes = arguments
    try:
        for name in path:
            parts = _members.decode(raw)
            if name not in parts:
                return None
            raw = bytes(parts[name])
        return _text(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _text(raw: bytes) -> str | None:
    if raw[:1] == b'"':
        return _string.decode(raw)
    if raw in (b"true", b"false"):
        return raw.decode()
    if raw[:1] not in b"-0123456789":
        return None
    if _WHOLE.fullmatch(raw):
        return str(int(raw))
    number = _number.decode(raw)
    # 42.0 is the integer 42 to JSON Schema; a fraction passes as it was written.
    return str(int(number)) if number.is_integer() and abs(number) < _MOST_EXACT else raw.decode()
