"""What is written and what is read, without any transport."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import version as sdk_versions

from plughub.kit.errors import UpstreamUnreachable
from plughub.protocol import versions
from plughub.upstream import messages
from plughub.upstream.messages import Unreadable
from plughub.upstream.target import Answer, Ask

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.requirement("upstream.envelope-written-anew")
@given(st.text(), st.dictionaries(st.text(), JSON, max_size=5), st.dictionaries(st.text(), JSON, max_size=3), st.booleans(), st.booleans())
def test_a_request_is_what_was_asked(method: str, params: dict[str, Any], meta: dict[str, Any], modern: bool, notify: bool) -> None:
    raw = {name: json.dumps(value).encode() for name, value in params.items()}
    raw_meta = {f"x{name}": json.dumps(value).encode() for name, value in meta.items()}
    ask = Ask(method, raw, 1, meta=raw_meta, progress=notify)
    pairs: list[list[str]] = []
    found = json.loads(
        messages.write_request(7, ask, messages.MODERN_META if modern else b""),
        object_pairs_hook=lambda items: pairs.append([name for name, _ in items]) or dict(items),  # type: ignore[func-returns-value]
    )
    assert all(len(names) == len(set(names)) for names in pairs)
    expected_meta = {f"x{name}": value for name, value in meta.items()}
    if modern:
        expected_meta |= json.loads(b"{" + messages.MODERN_META + b"}")
    if notify:
        expected_meta["progressToken"] = 7
    expected = {name: value for name, value in params.items() if name != "_meta"} | ({"_meta": expected_meta} if expected_meta else {})
    assert found == {"jsonrpc": "2.0", "id": 7, "method": method, "params": expected}


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_message_or_unreadable(data: bytes) -> None:
    try:
        messages.read_messages(data)
    except Unreadable:
        pass


@given(JSON)
def test_a_result_passes_as_it_came(value: Any) -> None:
    raw = json.dumps({"v": value}, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    message = messages.read_message(b'{"jsonrpc": "2.0", "result":' + raw + b', "id": 1 }')
    assert messages.answer_of(message) == Answer(result=raw)


DOUBLED = [
    '{"jsonrpc":"2.0","id":1,"result":{},"id":1}',
    '{"jsonrpc":"2.0","id":1,"result":{},"id":2}',
    '{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{}}',
    '{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":1}}',
    '{"jsonrpc": "2.0", "id": 1, "result": {}, "result": {"a": 1}}',
    '{"jsonrpc":"2.0","id":1,"error":{"code":1},"error":{"code":2}}',
    '{"id":1,"result":{},"id":1}',
    '{"jsonrpc":"2.0","method":"a","method":"a"}',
    '{"jsonrpc":"2.0","id":"s","method":"a","id":null}',
    '{"jsonrpc":"2.0","id":1,"result":{},"\\u0069d":1}',
    '{"x":1,"jsonrpc":"2.0","id":1,"result":{},"id":1}',
    '{\n  "jsonrpc" : "2.0",\n  "id" : 1,\n  "result" : {},\n  "id" : 1\n}',
]


@pytest.mark.parametrize("line", DOUBLED)
def test_a_key_that_comes_twice_makes_a_message_unreadable(line: str) -> None:
    with pytest.raises(messages.Ambiguous, match="appears twice"):
        messages.read_message(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        '{"id":1,"result":{}}',
        '{"result":{"id":1,"result":{},"error":1},"jsonrpc":"2.0","id":1}',
        '  {"jsonrpc": "2.0", "id": 1, "result": {}}\r',
        '{\n  "jsonrpc" : "2.0",\n  "id" : 1,\n  "result" : {},\n  "x" : [1, 2]\n}',
        '{"jsonrpc":"2.0","id":1.0,"result":{},"extra":{"id":1}}',
    ],
)
def test_a_key_that_comes_once_is_fine_in_any_form(line: str) -> None:
    assert messages.answer_of(messages.read_message(line.encode())).result is not None


@given(st.dictionaries(st.sampled_from(["jsonrpc", "id", "result", "error", "x", ""]), JSON, min_size=1), st.data())
def test_whatever_the_spacing_a_doubled_key_is_found(message: dict[str, Any], data: st.DataObject) -> None:
    message.setdefault("result", {})
    message["id"] = 7
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", "  : ")]))
    written = json.dumps(message, separators=separators, ensure_ascii=data.draw(st.booleans()))
    name = data.draw(st.sampled_from(["id", "result"]))
    doubled = written[:-1] + separators[0] + json.dumps({name: message[name]}, separators=separators)[1:]
    messages.read_message(written.encode())
    with pytest.raises(messages.Ambiguous):
        messages.read_message(doubled.encode())


def test_a_result_beside_an_error_is_no_answer_and_a_null_is_nothing() -> None:
    both = messages.read_message(b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}')
    with pytest.raises(UpstreamUnreachable, match="both a result and an error") as failed:
        messages.answer_of(both)
    assert failed.value.executed == "unknown"
    assert messages.answer_of(messages.read_message(b'{"id":1,"result":{},"error":null}')) == Answer(result=b"{}")
    assert messages.answer_of(messages.read_message(b'{"id":1,"error":{"code":1},"result":null}')) == Answer(error=b'{"code":1}')


def test_ids_of_every_kind_are_read_and_answered_alike() -> None:
    for id_ in (1, -5, "s-1", "é", 1.5, None):
        message = messages.read_message(json.dumps({"id": id_, "method": "ping"}).encode())
        assert json.loads(messages.write_reply(message)) == {"jsonrpc": "2.0", "id": id_, "result": {}}


def test_a_long_line_is_blamed_on_the_id_near_its_ends_only() -> None:
    filler = b'{"id": 3,' * 100
    assert messages.guess_ids(b'{"jsonrpc":"2.0","id": 12,"result"', filler + b" " * 300) == {12}
    assert messages.guess_ids(filler[:1], b'"}]},"id":4}') == {4}


@pytest.mark.requirement("house.sdk-constants")
def test_our_constants_are_the_sdk_s() -> None:
    assert set(versions.LEGACY) == set(sdk_versions.HANDSHAKE_PROTOCOL_VERSIONS)
    assert set(versions.MODERN) == set(sdk_versions.MODERN_PROTOCOL_VERSIONS)


def test_the_client_version_is_the_project_s() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert msgspec.json.decode(messages.CLIENT_INFO) == {"name": project["name"], "version": project["version"]}
