"""What a reader of the documents calls the result of a tool."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plughub.api.tool_result import unwrap
from plughub.kit.errors import UpstreamError

pytestmark = pytest.mark.requirement("call.result-unwrapped")


def result(value: Any) -> Any:
    return json.loads(bytes(unwrap(json.dumps(value).encode()).result))


def texts(*values: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": value} for value in values]


@pytest.mark.parametrize("structured", [{"a": 1}, [1], 0, "", False, {}])
def test_structured_content_goes_first(structured: object) -> None:
    found = unwrap(json.dumps({"content": texts("5"), "structuredContent": structured}).encode())
    assert json.loads(bytes(found.result)) == structured
    assert found.structured is not None
    assert json.loads(bytes(found.content)) == texts("5")


@pytest.mark.parametrize(
    "text", ['{"a": [1]}', "[]", "5", "-1.5e3", "true", "false", "null", '"quoted"', ' {"a":1}\n', "18446744073709551616"]
)
def test_a_single_text_that_is_json_is_read(text: str) -> None:
    assert result({"content": texts(text)}) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "true story",
        "nullable",
        "12 apples",
        "{not json}",
        "[1,",
        "-",
        "01",
        "NaN",
        "Infinity",
        "\u00e9",
        '"a" b',
        "{} {}",
        "'a'",
    ],
)
def test_a_single_text_that_is_not_stays_a_text(text: str) -> None:
    assert result({"content": texts(text), "structuredContent": None}) == text


@pytest.mark.parametrize(
    "content",
    [
        [],
        texts("1", "2"),
        [{"type": "image", "data": "x"}],
        [{"type": "text"}],
        [{"text": "x"}],
        [5],
        "x",
        None,
        {"type": "text", "text": "x"},
    ],
)
def test_everything_else_is_the_content_as_it_came(content: object) -> None:
    assert result({"content": content}) == content


def test_a_result_without_content_has_none() -> None:
    found = unwrap(b"{}")
    assert (bytes(found.result), bytes(found.content), found.structured, found.is_error) == (b"[]", b"[]", None, False)
    assert unwrap(b'{"isError":true,"content":[]}').is_error


@pytest.mark.parametrize("raw", [b"null", b"[]", b"5", b'"x"', b"{", b'{"isError":1}', b'{"isError":null}'])
def test_what_is_no_result_is_the_servers_error(raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        unwrap(raw)


def test_deep_json_in_a_text_stays_what_it_is() -> None:
    deep = "[" * 20_000 + "]" * 20_000
    found = unwrap(json.dumps({"content": texts(deep)}).encode())
    assert bytes(found.result).strip(b'"').decode() == deep


@given(st.text(max_size=20).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_as_the_standard_library_reads_json_or_stays(text: str) -> None:
    try:
        wanted = json.loads(text, parse_constant=lambda name: text)
        wanted = text if wanted == text else wanted
    except ValueError:
        wanted = text
    assert result({"content": texts(text)}) == wanted
