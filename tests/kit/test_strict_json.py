"""The one strict decoder, and the cheap checks of the hot routes, against the standard library as oracle."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plughub.kit import strict_json
from plughub.kit.errors import HubError, Malformed, ParseError, PayloadTooLarge

LIMIT = 1_000_000
SPACE = st.text(" \t\r\n", max_size=2)
NAMES = st.one_of(st.sampled_from(["", "a", "b", "id", 'q"', "\\", "é", "a b", "\U0001f600", "\t"]), st.text(max_size=6))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8), st.just('"},{"')
)


def loads(body: bytes) -> Any:
    return strict_json.loads(body, limit_bytes=LIMIT)


@st.composite
def spelled_string(draw: st.DrawFn, text: str) -> str:
    """One of the ways to write a string in JSON."""
    ways: list[Any] = [
        lambda c: json.dumps(c, ensure_ascii=False)[1:-1],
        lambda c: json.dumps(c)[1:-1],
        lambda c: "".join(f"\\u{unit:04X}" for unit in units(c)),
        lambda c: "\\/" if c == "/" else json.dumps(c)[1:-1],
    ]
    return '"' + "".join(draw(st.sampled_from(ways))(c) for c in text) + '"'


def units(c: str) -> list[int]:
    encoded = c.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(encoded[i : i + 2]) for i in range(0, len(encoded), 2)]


def is_scalar(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


@st.composite
def spelled(draw: st.DrawFn, depth: int = 0) -> str:
    """A JSON value with any whitespace and any escapes; its objects may hold a key twice."""
    kind = draw(st.sampled_from(["leaf"] * 3 + ["list", "object"] if depth < 3 else ["leaf"]))
    if kind == "leaf":
        value = draw(LEAVES)
        return draw(spelled_string(value)) if isinstance(value, str) and is_scalar(value) else json.dumps(value)
    if kind == "list":
        return "[" + ",".join(draw(SPACE) + draw(spelled(depth + 1)) + draw(SPACE) for _ in range(draw(st.integers(0, 3)))) + "]"
    return draw(spelled_object(depth))


@st.composite
def spelled_object(draw: st.DrawFn, depth: int = 0) -> str:
    style = draw(st.sampled_from(["any", "compact", "python"]))
    names = draw(st.lists(NAMES.filter(is_scalar), max_size=5))
    if style == "compact":
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{draw(spelled(3))}" for name in names) + "}"
    if style == "python":
        return "{" + ", ".join(f"{json.dumps(name)}: {draw(spelled(3))}" for name in names) + "}"
    items = [
        f"{draw(SPACE)}{draw(spelled_string(name))}{draw(SPACE)}:{draw(SPACE)}{draw(spelled(depth + 1))}{draw(SPACE)}" for name in names
    ]
    return "{" + (",".join(items) or draw(SPACE)) + "}"


def top_level(text: str) -> list[tuple[str, Any]]:
    """The pairs of the outermost object as they stand: the last object that the decoder finishes."""
    seen: list[list[tuple[str, Any]]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen.append(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=keep)
    return seen[-1]


def has_duplicates(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len(dict(pairs)) != len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found


@pytest.mark.requirement("json.duplicate-envelope-keys-refused")
@given(spelled_object(), SPACE, SPACE)
@settings(max_examples=600, deadline=None)
def test_members_finds_every_member_and_every_duplicate_however_they_are_written(text: str, before: str, after: str) -> None:
    body = (before + text + after).encode()
    pairs = top_level(text)
    if len(dict(pairs)) != len(pairs):
        with pytest.raises(Malformed):
            strict_json.members(body)
    else:
        found = strict_json.members(body)
        assert {name: json.loads(bytes(raw)) for name, raw in found.items()} == dict(pairs)


@pytest.mark.requirement("json.duplicate-envelope-keys-refused")
@pytest.mark.parametrize(
    "body",
    [
        # Each is as long as an object without the duplicate would be with a space after every colon and comma.
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping","params":{}}',
        b'{"":0,"":0,"a":1,"b":1}',
        b'{"a":1,"a":1}',
        b'{"a":12,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":{"a":1},"a":{"a":1}}',
        b'{ "a" : 1 , "\\u0061" : 1 }',
        b'{"a":"}","b":1,"a":"}"}',
    ],
)
def test_a_duplicate_is_found_even_when_the_length_is_that_of_an_object_without_one(body: bytes) -> None:
    with pytest.raises(Malformed):
        strict_json.members(body)


@given(st.binary(max_size=60) | spelled().map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_the_members_or_an_error_of_ours(body: bytes) -> None:
    try:
        found = strict_json.members(body)
    except Malformed:
        return
    assert isinstance(json.loads(body), dict)
    assert all(type(raw) in (bytes, msgspec.Raw) for raw in found.values())


@given(st.binary(max_size=60) | st.text('{}[]":,\\ue0192ftn.-+ E\x00\ud7ff\U0001f600', max_size=40).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_decode_as_the_standard_library_does_or_give_an_error_of_ours(body: bytes) -> None:
    try:
        value = loads(body)
    except HubError as error:
        assert 400 <= error.status < 500
        return
    assert value == json.loads(body)


@pytest.mark.requirement("json.strict-management-bodies")
@given(spelled())
@settings(max_examples=400, deadline=None)
def test_good_json_decodes_as_the_standard_library_does_but_for_duplicates_and_nul(text: str) -> None:
    body = text.encode()
    if has_duplicates(text):
        with pytest.raises(Malformed):
            loads(body)
        return
    value = json.loads(text)
    if "\0" in json.dumps(value, ensure_ascii=False).replace("\\u0000", "\0"):
        with pytest.raises(Malformed):
            loads(body)
    else:
        assert loads(body) == value


HOSTILE = {
    "empty": b"",
    "space": b" \n",
    "not json": b"hello",
    "single quotes": b"{'a':1}",
    "trailing comma": b'{"a":1,}',
    "two values": b"{} {}",
    "comment": b"{} // x",
    "open": b'{"a":',
    "open string": b'{"a":"',
    "control character": b'{"a":"\x01"}',
    "bad escape": b'{"a":"\\x41"}',
    "nan": b'{"a":NaN}',
    "infinity": b"[-Infinity]",
    "huge float": b"1e400",
    "huge negative float": b"[-1e999]",
    "huge integer": b"1" * 5000,
    "depth 65": b"[" * 65 + b"]" * 65,
    "depth 100000": b"[" * 100_000,
    "depth 100000 closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'["\\udc00x"]',
    "lone surrogate in a key": b'{"\\udbff":1}',
    "swapped surrogates": b'"\\udc00\\ud800"',
    "nul": b'{"a":"x\\u0000"}',
    "nul in a key": b'{"\\u0000":1}',
    "deep nul": b'[[{"a":["\\u0000"]}]]',
    "duplicate": b'{"a":1,"a":1}',
    "deep duplicate": b'{"b":[{"a":1,"\\u0061":2}]}',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-16 le": '{"a":1}'.encode("utf-16-le"),
    "utf-32": '{"a":1}'.encode("utf-32"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "bad utf-8": b'{"a":"\xff"}',
    "overlong utf-8": b'{"a":"\xc0\xaf"}',
    "utf-8 surrogate": b'{"a":"\xed\xa0\x80"}',
}


@pytest.mark.requirement("json.strict-management-bodies")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_an_error_of_the_callers(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        loads(HOSTILE[name])
    assert caught.value.status == 400
    assert len(caught.value.text) < 200


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_or_harmless_on_the_hot_routes(name: str) -> None:
    body = HOSTILE[name]
    try:
        strict_json.utf8(body)
        strict_json.check_depth(body)
        found = strict_json.members(body)
    except Malformed:
        return
    # What is inside the values passes unchanged: only there may something odd be left.
    assert name in {"lone surrogate", "nul", "deep duplicate", "nul in a key", "huge float"}
    assert set(found) <= {"a", "b", "\0"}


def test_numbers_stay_exact() -> None:
    assert loads(b"[18446744073709551616, 9007199254740993, 1.5, -0.0]") == [2**64, 2**53 + 1, 1.5, -0.0]
    assert strict_json.members(b'{"a":18446744073709551616}')["a"] == b"18446744073709551616"


def test_sixty_four_levels_are_read() -> None:
    body = b"[" * 64 + b"]" * 64
    value, depth = loads(body), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 63


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    body = json.dumps({"a": "[{" * 200 + '"\\' + "]" * 3}).encode()
    strict_json.check_depth(body)
    assert loads(body)["a"].startswith("[{")


@pytest.mark.requirement("json.body-limit")
def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        strict_json.loads(b"[" * 11, limit_bytes=10)
    assert caught.value.details == {"limit_bytes": 10}


@pytest.mark.parametrize("body", [b"[" * 65 + b'"' + b'\\"' * 400_000, b"[" * 65 + b'"\\\n' * 400_000, b'{"' * 400_000])
def test_the_depth_check_takes_time_in_proportion_to_the_length(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(Malformed):
        strict_json.check_depth(body)
        strict_json.members(body)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_only_an_object_has_members(body: bytes) -> None:
    with pytest.raises(Malformed, match="object"):
        strict_json.members(body)


def test_what_is_not_json_at_all_is_a_parse_error() -> None:
    with pytest.raises(ParseError):
        strict_json.members(b"{nope")
    with pytest.raises(ParseError, match="line 1 column"):
        loads(b"{nope")


@pytest.mark.requirement("json.refused-bodies-are-freed")
def test_too_many_members_are_refused_before_they_are_looked_at() -> None:
    body = b"{" + b",".join(b'"k%d":0' % number for number in range(300_000)) + b"}"
    for read in (strict_json.members, lambda body: strict_json.loads(body, limit_bytes=len(body))):
        began = time.perf_counter()
        with pytest.raises(Malformed, match="more than 10"):
            read(body)
        assert time.perf_counter() - began < 0.5
