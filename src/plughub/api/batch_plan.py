"""What a batch asks for, read and judged as a whole before anything of it runs: pure functions.

A reference `{{id.body.uuid}}` stands for what the answer of the operation `id` holds there (`status`, `headers.<name>`, `body.<member>…`,
items of lists by their number). In a path, a header and inside a longer text it is a text, a number or a boolean; a text of the body
that is one reference and nothing else becomes the value itself. `\\u007b` in a text of the body is never the beginning of one.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, get_args
from urllib.parse import quote

import msgspec

from plughub.api.hot_body import Body
from plughub.kit import strict_json
from plughub.kit.errors import Invalid, Malformed, PayloadTooLarge

MOST: Final = 50
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What an operation may say in its own headers; all others are those of the batch.
HEADERS = ("accept", "content-type", "idempotency-key", "if-none-match")
FIELDS = frozenset({"operations", "mode"})
_OPERATION_FIELDS = frozenset({"id", "method", "path", "headers", "body", "depends_on"})
MAX_PATH = 4000
_MAX_HEADER = 1000
Mode = Literal["sequential", "parallel", "atomic"]
ID = r"[A-Za-z0-9_-]{1,64}"
_ID = re.compile(ID)
_REFERENCE = re.compile(rb"\{\{\s*([A-Za-z0-9_-]{1,64})\.(status|headers|body)((?:\.[^\s.{}\"\\]{1,200}){0,16})\s*\}\}")
# Names an operation as a reference does, and is none: the body's texts may hold braces that mean something to others.
_NEARLY = re.compile(rb"\{\{\s*([A-Za-z0-9_-]{1,64})(?:\.[^{}\"]{0,200})?\}\}")
# A text of a JSON body, and whether it is the name of a member, where nothing is replaced.
_TEXT = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:)?', re.DOTALL)
_URL_CHARACTERS = "/%:@!$&'()*+,;=~"
_list = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Operation:
    """One of them; `needs` are the places of those that it depends on, by name or by reference."""

    index: int
    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    needs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in the order of the request; nothing in them leads back to itself."""

    mode: Mode
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Found:
    """The answer of an operation, for those that refer to it; `body` None: none, or no JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None

    @cached_property
    def value(self) -> Any:
        """The body decoded: once, however often it is referred to. None when nothing of our decoder's can be made of it."""
        try:
            return None if self.body is None else json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def read_plan(body: Body) -> Plan:
    """The plan of a request body. Raises Invalid naming the field, as `operations.3.path`."""
    mode: Mode = _choice(body.get("mode", b'"sequential"'), "mode", get_args(Mode))
    if "operations" not in body:
        raise Invalid("operations", "The 'operations' field is required")
    drafts = [_operation(raw, index) for index, raw in enumerate(_items(body["operations"], "operations"))]
    if not 1 <= len(drafts) <= MOST:
        raise Invalid("operations", f"The 'operations' field must have 1 to {MOST} items")
    places: dict[str, int] = {}
    for operation, _ in drafts:
        if operation.id in places:
            raise Invalid(f"operations.{operation.index}.id", f"Two operations are called '{operation.id}'", operation.id)
        places[operation.id] = operation.index
    operations = tuple(_with_needs(operation, named, places) for operation, named in drafts)
    _refuse_rings(operations)
    if mode != "parallel":
        _refuse_forward(operations)
    return Plan(mode, operations)


def sample_path(operation: Operation) -> str:
    """The path with something in the place of each reference: enough to tell which row it is."""
    return _REFERENCE.sub(b"0", operation.path.encode()).decode()


def target(path: str) -> tuple[bytes, bytes]:
    """Path and query as they would come over the wire; `/api` stands before what is of no other prefix."""
    if not path.startswith(("/api/", "/v1/")):
        path = "/api" + path
    if path.startswith(("/api/v1/", "/api/v2/")):
        path = "/api/" + path[len("/api/v1/") :]
    raw, _, query = path.partition("?")
    return quote(raw, safe=_URL_CHARACTERS).encode(), quote(query, safe=_URL_CHARACTERS + "?").encode()


def filled(operation: Operation, answers: Mapping[str, Found], limit_bytes: int) -> tuple[str, dict[str, str], bytes | None]:
    """Path, headers and body with every reference replaced.

    Raises Invalid for one that names nothing, or nothing that can stand there, PayloadTooLarge for a body that becomes too large.
    """
    place = f"operations.{operation.index}"

    def segment(found: re.Match[bytes]) -> bytes:
        text = _plain(_value(found, answers, place), found, place)
        if not text:
            raise Invalid(place, f"{_shown(found)} is empty, and cannot stand in a path")
        return quote(text, safe="").encode()

    def text(found: re.Match[bytes]) -> bytes:
        return _plain(_value(found, answers, place), found, place).encode()

    path = _REFERENCE.sub(segment, operation.path.encode()).decode()
    headers = {name: _header(_REFERENCE.sub(text, value.encode()), f"{place}.headers.{name}") for name, value in operation.headers.items()}
    body = operation.body
    if body is not None and b"{{" in body:
        body = _filled_body(body, lambda found: _value(found, answers, place), place, limit_bytes)
    return path, headers, body


def _operation(raw: bytes, index: int) -> tuple[Operation, list[str]]:
    """An operation, and the ids that it says to depend on."""
    place = f"operations.{index}"
    if raw[:1] != b"{":
        raise Invalid(place, f"The '{place}' field must be an object")
    body = strict_json.members(raw)
    for name in body:
        if name not in _OPERATION_FIELDS:
            raise Invalid(f"{place}.{name[:100]}", f"The '{place}.{name[:100]}' field is not known")
    for name in ("method", "path"):
        if name not in body:
            raise Invalid(f"{place}.{name}", f"The '{place}.{name}' field is required")
    method = _choice(body["method"], f"{place}.method", METHODS)
    path = _text(body["path"], f"{place}.path")
    if not path.startswith("/") or len(path) > MAX_PATH:
        raise Invalid(f"{place}.path", f"The '{place}.path' field must begin with / and have at most {MAX_PATH} characters", path[:200])
    id_ = _text(body["id"], f"{place}.id") if "id" in body else str(index)
    if _ID.fullmatch(id_) is None:
        raise Invalid(f"{place}.id", f"The '{place}.id' field must be 1 to 64 letters, digits, - or _", id_[:200])
    sent = body.get("body")
    named = [_text(item, f"{place}.depends_on") for item in _items(body.get("depends_on", b"[]"), f"{place}.depends_on")]
    headers = _headers(body.get("headers", b"{}"), f"{place}.headers")
    return Operation(index, id_, method, path, headers, None if sent == b"null" else sent, ()), named


def _headers(raw: bytes, place: str) -> dict[str, str]:
    if raw[:1] != b"{":
        raise Invalid(place, f"The '{place}' field must be an object")
    headers: dict[str, str] = {}
    for name, value in strict_json.members(raw).items():
        field = f"{place}.{name[:100]}"
        if name.lower() not in HEADERS:
            text = f"The '{field}' field is not a header of an operation: {', '.join(HEADERS)}; all others are those of the batch"
            raise Invalid(field, text)
        if name.lower() in headers:
            raise Invalid(field, f"The '{field}' field is there twice")
        headers[name.lower()] = _header(_text(value, field).encode(), field)
    return headers


def _header(value: bytes, field: str) -> str:
    text = value.decode()
    if len(text) > _MAX_HEADER or not text.isascii() or not text.isprintable():
        raise Invalid(field, f"The '{field}' field must be at most {_MAX_HEADER} printable ASCII characters")
    return text


def _with_needs(operation: Operation, named: list[str], places: Mapping[str, int]) -> Operation:
    place = f"operations.{operation.index}"
    for id_ in named:
        if id_ not in places:
            raise Invalid(f"{place}.depends_on", f"The '{place}.depends_on' field names no operation: '{id_[:64]}'", id_[:64])
    needs = {places[id_] for id_ in named}
    for field, text in (("path", operation.path.encode()), *((f"headers.{n}", v.encode()) for n, v in operation.headers.items())):
        if b"{{" in _REFERENCE.sub(b"", text):
            raise Invalid(f"{place}.{field}", f"The '{place}.{field}' field holds a reference that is none: {{{{id.body.member}}}} is one")
        needs |= _referred(text, places, f"{place}.{field}")
    for value in _texts(operation.body):
        needs |= _referred(value, places, f"{place}.body")
        for near in _NEARLY.finditer(_REFERENCE.sub(b"", value)):
            if near[1].decode() in places and not near[1].isdigit():
                raise Invalid(f"{place}.body", f"{_shown(near)} is no reference: body, headers or status follows the id")
    return replace(operation, needs=tuple(sorted(needs)))


def _referred(text: bytes, places: Mapping[str, int], field: str) -> set[int]:
    found = set()
    for reference in _REFERENCE.finditer(text):
        place = places.get(reference[1].decode())
        if place is None:
            raise Invalid(field, f"The '{field}' field refers to no operation: {_shown(reference)}", _shown(reference))
        found.add(place)
    return found


def _refuse_rings(operations: Sequence[Operation]) -> None:
    """Raise Invalid naming the operations that wait for each other."""
    left = {operation.index: set(operation.needs) for operation in operations}
    while free := [index for index, needs in left.items() if not needs & left.keys()]:
        for index in free:
            del left[index]
    if left:
        ring, at = [], min(left)
        while at not in ring:
            ring.append(at)
            at = min(left[at] & left.keys())
        ring = [*ring[ring.index(at) :], at]
        names = " -> ".join(operations[index].id for index in ring)
        raise Invalid(f"operations.{ring[0]}", f"Operations depend on each other: {names}")


def _refuse_forward(operations: Sequence[Operation]) -> None:
    for operation in operations:
        for need in operation.needs:
            if need >= operation.index:
                place = f"operations.{operation.index}"
                text = f"'{operation.id}' depends on '{operations[need].id}', which comes after it: put it later, or use mode parallel"
                raise Invalid(place, text)


def _filled_body(body: bytes, value: Callable[[re.Match[bytes]], Any], place: str, limit_bytes: int) -> bytes:
    """All but the references passes as the bytes it came in."""
    size = len(body)

    def grown(found: re.Match[bytes], new: bytes) -> bytes:
        nonlocal size
        size += len(new) - len(found[0])
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        return new

    def inside(found: re.Match[bytes]) -> bytes:
        return grown(found, json.dumps(_plain(value(found), found, place)).encode()[1:-1])

    def one(text: re.Match[bytes]) -> bytes:
        if text[2] is not None or b"{{" not in text[1]:
            return text[0]
        whole = _REFERENCE.fullmatch(text[1])
        if whole is not None:
            return grown(whole, json.dumps(value(whole)).encode())
        return b'"' + _REFERENCE.sub(inside, text[1]) + b'"'

    return _TEXT.sub(one, body)


def _texts(body: bytes | None) -> list[bytes]:
    """The texts of a body that may hold references."""
    if body is None or b"{{" not in body:
        return []
    return [found[1] for found in _TEXT.finditer(body) if found[2] is None and b"{{" in found[1]]


def _value(reference: re.Match[bytes], answers: Mapping[str, Found], place: str) -> Any:
    """What a reference stands for. Raises Invalid when the answer does not have it."""
    answer, kind = answers[reference[1].decode()], reference[2]
    names = reference[3].decode().split(".")[1:]
    try:
        if kind == b"status":
            value: Any = answer.status
        elif kind == b"headers":
            value = {name.lower(): text for name, text in answer.headers.items()}
            names = [name.lower() for name in names[:1]] + names[1:]
        else:
            value = answer.value
        for name in names:
            value = value[int(name)] if isinstance(value, list) and name.isdecimal() else value[name]
    except (LookupError, TypeError, ValueError) as error:
        raise Invalid(place, f"The answer does not have {_shown(reference)}", _shown(reference)) from error
    return value


def _plain(value: Any, reference: re.Match[bytes], place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Invalid(place, f"{_shown(reference)} is no text, and cannot stand inside one", _shown(reference))


def _shown(reference: re.Match[bytes]) -> str:
    return reference[0].decode(errors="replace")[:200]


def _items(raw: bytes, field: str) -> list[bytes]:
    if raw[:1] != b"[":
        raise Invalid(field, f"The '{field}' field must be a list")
    return [bytes(item) for item in _decoded(_list, raw, field)]


def _text(raw: bytes, field: str) -> str:
    if raw[:1] != b'"':
        raise Invalid(field, f"The '{field}' field must be a string")
    text: str = strict_json.loads(raw, limit_bytes=len(raw))
    return text


def _choice(raw: bytes, field: str, options: Sequence[str]) -> Any:
    text = _text(raw, field)
    if text not in options:
        raise Invalid(field, f"The '{field}' field must be one of: {', '.join(options)}", text[:200])
    return text


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes, field: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise Malformed(f"The '{field}' field cannot be read: {error}") from error
