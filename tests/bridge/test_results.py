"""Results between the eras."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.bridge.results import result_for
from plughub.kit.errors import UpstreamError
from plughub.protocol.versions import META_SERVER_INFO
from plughub.upstream.target import Facts

INFO = {"name": "s", "version": "1"}
LEGACY = Facts("legacy", "2025-11-25", b"{}", json.dumps(INFO).encode())
MODERN = Facts("modern", "2026-07-28", b"{}", json.dumps(INFO).encode())
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab\u00e9\n"\\', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab_", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def bridged(value: Any, method: str, facts: Facts, *, modern_client: bool) -> Any:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return json.loads(bytes(result_for(raw, method, facts, modern_client=modern_client)))


@pytest.mark.requirement("mcp.payload-unchanged")
@given(st.binary())
def test_within_one_era_the_bytes_pass_whatever_they_are(raw: bytes) -> None:
    assert result_for(raw, "tools/call", LEGACY, modern_client=False) is raw
    assert result_for(raw, "tools/call", MODERN, modern_client=True) is raw


@given(st.dictionaries(st.text("abc", max_size=4), ANY_JSON, max_size=4))
def test_to_the_modern_era_only_what_it_demands_is_added(result: dict[str, Any]) -> None:
    found = bridged(result, "tools/call", LEGACY, modern_client=True)
    assert found == {**result, "resultType": "complete", "_meta": {META_SERVER_INFO: INFO}}


@given(st.dictionaries(st.text("abc", max_size=4), ANY_JSON, max_size=4))
def test_to_the_older_era_only_what_it_does_not_know_is_taken_away(result: dict[str, Any]) -> None:
    sent = {**result, "resultType": "complete", "ttlMs": 5, "cacheScope": "public"}
    assert bridged(sent, "tools/call", MODERN, modern_client=False) == result


@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"])
def test_lists_for_modern_clients_say_that_nobody_may_keep_them(method: str) -> None:
    found = bridged({"tools": []}, method, LEGACY, modern_client=True)
    assert (found["ttlMs"], found["cacheScope"]) == (0, "private")
    kept = bridged({"ttlMs": 7, "cacheScope": "public", "_meta": {"a": 1, META_SERVER_INFO: "own"}}, method, LEGACY, modern_client=True)
    assert (kept["ttlMs"], kept["cacheScope"], kept["_meta"]) == (7, "public", {"a": 1, META_SERVER_INFO: "own"})


@pytest.mark.parametrize("value", [[1], 5, "x", None, True])
def test_structured_content_that_is_no_object_is_taken_away(value: object) -> None:
    found = bridged({"content": [], "structuredContent": value}, "tools/call", MODERN, modern_client=False)
    assert found == {"content": []}
    assert bridged({"structuredContent": {"a": value}}, "tools/call", MODERN, modern_client=False) == {"structuredContent": {"a": value}}


def test_output_schemas_that_are_no_objects_are_taken_away() -> None:
    plain = {"name": "a", "outputSchema": {"x": 1, "type": "object"}, "own": [1]}
    odd = [{"name": "b", "outputSchema": schema, "own": 1} for schema in ({"type": "array"}, {}, {"type": ["object"]})]
    found = bridged({"tools": [plain, *odd], "nextCursor": "c"}, "tools/list", MODERN, modern_client=False)
    assert found == {"tools": [plain] + [{"name": "b", "own": 1}] * 3, "nextCursor": "c"}


def test_a_request_for_input_is_an_error_for_older_clients() -> None:
    with pytest.raises(UpstreamError, match="input"):
        bridged({"resultType": "input_required"}, "tools/call", MODERN, modern_client=False)


@pytest.mark.parametrize(
    "raw",
    [b"null", b"[]", b"5", b"{", b'{"_meta":5}', b'{"_meta":null}', b'{"tools":5}', b'{"tools":[5]}', b'{"tools":[{"outputSchema":5}]}'],
)
def test_what_cannot_be_read_is_the_servers_error(raw: bytes) -> None:
    for facts, modern_client in ((LEGACY, True), (MODERN, False)):
        try:
            result_for(raw, "tools/list", facts, modern_client=modern_client)
        except UpstreamError as error:
            assert error.details["executed"] == "unknown"


def test_numbers_and_spelling_pass_unchanged() -> None:
    raw = b'{"content":[{"n":18446744073709551616,"f":1.0E+400,"t":"\\u00e9"}]}'
    assert b'"content":[{"n":18446744073709551616,"f":1.0E+400,"t":"\\u00e9"}]' in bytes(
        result_for(raw, "tools/call", LEGACY, modern_client=True)
    )
