"""Arguments that are repeated in headers: which ones, how they are written, and when the two agree."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.errors import HeaderMismatch
from plughub.protocol.param_headers import InvalidMark, Param, check_headers, header_lines, read_marks

Json = dict[str, Any]


def schema(properties: Json, **more: Any) -> bytes:
    return json.dumps({"type": "object", "properties": properties, **more}).encode()


def marked(kind: Any = "string", name: Any = "Region") -> Json:
    return {"type": kind, "x-mcp-header": name}


SOME = schema(
    {"region": marked(), "count": marked("integer", "Count"), "deep": {"properties": {"flag": marked("boolean", "Flag")}}, "z": {}}
)


def arguments(**given: Any) -> bytes:
    return json.dumps(given).encode()


def headers_of(lines: bytes) -> dict[bytes, bytes]:
    """Lines as a server reads them."""
    pairs = [line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1]]
    return {name.lower(): value for name, value in pairs}


def test_marks_are_found_where_properties_lead() -> None:
    found = sorted(read_marks(SOME), key=lambda param: param.name)
    assert found == [
        Param(("count",), b"Mcp-Param-Count", b"mcp-param-count", integer=True),
        Param(("deep", "flag"), b"Mcp-Param-Flag", b"mcp-param-flag", integer=False),
        Param(("region",), b"Mcp-Param-Region", b"mcp-param-region", integer=False),
    ]
    escaped = b'{"properties":{"a":{"type":"string","x\\u002dmcp-header":"A"}}}'
    assert [param.key for param in read_marks(escaped)] == [b"mcp-param-a"]


def test_what_only_looks_like_a_mark_is_none() -> None:
    assert read_marks(schema({"a": {"default": {"x-mcp-header": ""}, "description": "x-mcp-header"}})) == ()
    for other in (b"", b"null", b"true", b"[]", b'"x-mcp-header"', b'{"properties":"x-mcp-header"}', b'{"x-mcp-header"'):
        assert read_marks(other) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": marked(name="")},
        {"a": marked(name="My Region")},
        {"a": marked(name="Region:Primary")},
        {"a": marked(name="R\u00e9gion")},
        {"a": marked(name="Region\t1")},
        {"a": marked(name="Region\n")},
        {"a": marked(name=5)},
        {"a": marked(name=None)},
        {"a": marked("object")},
        {"a": marked("array")},
        {"a": marked("null")},
        {"a": marked("number")},
        {"a": marked(["string", "null"])},
        {"a": {"x-mcp-header": "Region"}},
        {"a": marked(), "b": marked()},
        {"a": marked(name="MyField"), "b": {"properties": {"c": marked(name="myfield")}}},
        {"a": {"items": marked()}},
        {"a": {"anyOf": [{"properties": {"b": marked()}}]}},
    ],
    ids=str,
)
def test_wrong_marks_are_told(wrong: Json) -> None:
    with pytest.raises(InvalidMark, match="x-mcp-header"):
        read_marks(schema(wrong))


def test_a_mark_on_the_root_or_in_a_definition_is_wrong() -> None:
    for wrong in (schema({}, **{"x-mcp-header": "A"}), schema({}, **{"$defs": {"x": {"properties": {"a": marked()}}}})):
        with pytest.raises(InvalidMark):
            read_marks(wrong)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'"us-west1"', b"us-west1"),
        (b'""', b""),
        (b'"a b"', b"a b"),
        (b'" a"', b"=?base64?IGE=?="),
        (b'"a\\tb"', b"=?base64?YQli?="),
        (b'"a\\r\\nB: y"', b"=?base64?YQ0KQjogeQ==?="),
        (b'"\\u00e9"', b"=?base64?w6k=?="),
        (b'"=?base64?YQ==?="', b"=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        (b"42", b"42"),
        (b"42.0", b"42"),
        (b"-0", b"0"),
        (b"1e3", b"1000"),
        (b"1.5", b"1.5"),
        (b"18446744073709551616", b"18446744073709551616"),
        (b"true", b"true"),
        (b"false", b"false"),
        (b"null", None),
        (b"{}", None),
        (b"[1]", None),
    ],
)
def test_a_value_is_written_as_the_specification_has_it(raw: bytes, line: bytes | None) -> None:
    params = read_marks(schema({"region": marked()}))
    expected = b"" if line is None else b"Mcp-Param-Region: %b\r\n" % line
    assert header_lines(params, b'{"x":1,"region":%b}' % raw) == expected
    assert header_lines(params, b"{}") == header_lines(params, b"[]") == header_lines(params, b"{") == b""


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.fixed_dictionaries(
        {}, optional={"region": TEXTS | st.none(), "count": st.integers(), "deep": st.just({"flag": True}) | st.integers()}
    )
)
def test_what_one_side_writes_the_other_accepts(values: Json) -> None:
    params, raw = read_marks(SOME), arguments(**values)
    lines = header_lines(params, raw)
    assert lines.count(b"\r\n") == len(headers_of(lines))
    check_headers(params, raw, headers_of(lines))
    check_headers(params, raw, {name: b" \t" + value + b"\t " for name, value in headers_of(lines).items()})


@pytest.mark.parametrize(
    ("values", "headers"),
    [
        ({"region": "a"}, {}),
        ({"region": "a"}, {"region": "b"}),
        ({"region": "a"}, {"region": "A"}),
        ({"region": ""}, {}),
        ({}, {"region": "a"}),
        ({}, {"region": ""}),
        ({"region": None}, {"region": "null"}),
        ({"region": {}}, {"region": "{}"}),
        ({"region": "Hello"}, {"region": "=?base64?SGVsbG8?="}),
        ({"region": "Hello"}, {"region": "=?base64?SGVs!!!bG8=?="}),
        ({"count": 42}, {"count": "43"}),
        ({"count": 42}, {"count": "4.2e1"}),
        ({"count": 42}, {"count": "42.5"}),
        ({"count": True}, {"count": "1"}),
        ({"deep": {"flag": True}}, {"flag": "True"}),
    ],
    ids=str,
)
def test_headers_that_say_something_else_are_refused(values: Json, headers: dict[str, str]) -> None:
    given = {b"mcp-param-" + name.encode(): value.encode() for name, value in headers.items()}
    with pytest.raises(HeaderMismatch, match="Mcp-Param-"):
        check_headers(read_marks(SOME), arguments(**values), given)


@pytest.mark.parametrize(
    ("values", "headers"),
    [
        ({"region": "Hello"}, {"region": "=?base64?SGVsbG8=?="}),
        ({"region": "SGVsbG8="}, {"region": "SGVsbG8="}),
        ({"region": "=?base64?SGVsbG8="}, {"region": "=?base64?SGVsbG8="}),
        ({"region": None, "z": 1}, {"z": "2"}),
        ({"count": 42}, {"count": "42.0"}),
        ({"count": 42.0}, {"count": "42"}),
    ],
    ids=str,
)
def test_headers_that_say_the_same_are_accepted(values: Json, headers: dict[str, str]) -> None:
    given = {b"mcp-param-" + name.encode(): value.encode() for name, value in headers.items()}
    check_headers(read_marks(SOME), arguments(**values), given)
