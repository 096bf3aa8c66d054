"""What a message is, from its headers and its bytes."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plughub.kit.errors import HeaderMismatch, HubError, InvalidParams, Malformed, ParseError, UnsupportedVersion
from plughub.protocol import envelope, versions
from plughub.protocol.envelope import (
    Notification,
    Request,
    Response,
    check_modern,
    classify,
    decode_header,
    encode_header,
    error_frame,
    object_of,
    response_frame,
)

MODERN = {b"mcp-protocol-version": b"2026-07-28"}


def message(**parts: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **parts}).encode()


def request(headers: dict[bytes, bytes], **parts: object) -> Request:
    found = classify(headers, message(**parts))
    assert isinstance(found, Request)
    return found


def test_a_request_keeps_its_raw_values() -> None:
    found = classify({}, b'{"jsonrpc":"2.0", "id" : 1.50 ,"method":"a\\u0062","params":{"x":{ "y":1 },"_meta":{"k":[1, 2]}}}')
    assert isinstance(found, Request)
    assert (found.id, found.method, found.version, found.modern) == (b"1.50", "ab", "2025-03-26", False)
    assert bytes(found.params["x"]) == b'{ "y":1 }'
    assert bytes(found.meta["k"]) == b"[1, 2]"


def test_notifications_and_responses_are_told_apart() -> None:
    note = classify({b"mcp-protocol-version": b"2025-06-18"}, message(method="notifications/initialized"))
    assert isinstance(note, Notification)
    assert (note.method, note.params, note.version) == ("notifications/initialized", {}, "2025-06-18")
    for parts in ({"result": {}}, {"error": {"code": 1, "message": "x"}}):
        reply = classify({}, message(id="s-1", **parts))
        assert isinstance(reply, Response) and reply.id == b'"s-1"'


@pytest.mark.parametrize("version", versions.LEGACY)
def test_a_legacy_header_is_spoken_the_older_way(version: str) -> None:
    found = request({b"mcp-protocol-version": version.encode()}, id=1, method="tools/list")
    assert (found.version, found.modern) == (version, False)


def test_what_names_a_modern_revision_is_modern() -> None:
    assert request(MODERN, id=1, method="tools/list").modern
    assert request({}, id=1, method="tools/list", params={"_meta": {versions.META_VERSION: "2026-07-28"}}).modern
    assert request({b"mcp-protocol-version": b"2099-01-01"}, id=1, method="tools/list").modern
    assert request({b"mcp-protocol-version": b" 2026-07-28\t"}, id=1, method="tools/list").version == "2026-07-28"
    assert request({b"mcp-protocol-version": b"v999.0.0"}, id=1, method="tools/list").modern
    assert request(MODERN, id=1, method="initialize").modern, "a revision that has no handshake refuses it"
    assert not request({b"mcp-protocol-version": b"2099-01-01"}, id=1, method="initialize").modern, "any other header begins a handshake"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", ParseError),
        (b"\xff", ParseError),
        (b"{", ParseError),
        (b"\xef\xbb\xbf{}", ParseError),
        (b"[]", Malformed),
        (b"[{}]", Malformed),
        (b"1", Malformed),
        (b'{"jsonrpc":"2.0"}', Malformed),
        (b'{"jsonrpc":2.0,"id":1,"method":"x"}', Malformed),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', Malformed),
        (b'{"jsonrpc":"2.0","id":[1],"method":"x"}', Malformed),
        (b'{"jsonrpc":"2.0","id":1,"method":["x"]}', InvalidParams),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[]}', Malformed),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}', Malformed),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":1}}', Malformed),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"a":1}}}', Malformed),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * 70 + b"1" + b"}" * 71, Malformed),
    ],
)
def test_what_is_no_message_is_refused(body: bytes, kind: type[HubError]) -> None:
    with pytest.raises(kind):
        classify({}, body)


@given(st.binary(max_size=80) | st.text('{}[]":,jsonrpc2.0idmethodparams_ \n\\', max_size=80).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_message_or_an_error_of_the_callers(body: bytes) -> None:
    try:
        classify({}, body)
    except HubError as error:
        assert error.status == 400 and error.jsonrpc in (-32700, -32600, -32602)


def modern(name: object = "é", **headers: bytes) -> tuple[dict[bytes, bytes], Request]:
    meta = {versions.META_VERSION: "2026-07-28", versions.META_CAPABILITIES: {}}
    given = {**MODERN, b"mcp-method": b"tools/call", b"mcp-name": b"=?base64?w6k=?=", **{k.encode(): v for k, v in headers.items()}}
    return given, request(given, id=1, method="tools/call", params={"name": name, "_meta": meta})


def test_a_good_modern_request_passes() -> None:
    check_modern(*modern())
    headers, asked = modern("plain")
    check_modern({**headers, b"mcp-name": b"plain"}, asked)
    check_modern({name: b"\t " + value + b" \t" for name, value in headers.items()} | {b"mcp-name": b"  plain  "}, asked)


def test_each_modern_duty_is_checked() -> None:
    headers, asked = modern()
    for name in headers:
        with pytest.raises(HeaderMismatch):
            check_modern({key: value for key, value in headers.items() if key != name}, asked)
    for name, value in ((b"mcp-method", b"tools/list"), (b"mcp-name", b"e"), (b"mcp-name", b"=?base64?w6k?=")):
        with pytest.raises(HeaderMismatch):
            check_modern({**headers, name: value}, asked)
    for other in (b"2025-11-25", b"v999.0.0"):
        with pytest.raises(HeaderMismatch):
            check_modern({**headers, b"mcp-protocol-version": other}, asked)
    asked.meta[versions.META_VERSION] = b'"v999.0.0"'
    with pytest.raises(HeaderMismatch):
        check_modern(headers, asked)
    for meta in ({}, {versions.META_VERSION: b'"v999.0.0"', versions.META_CAPABILITIES: b"{}"}):
        asked.meta = meta
        with pytest.raises(UnsupportedVersion) as caught:
            check_modern({**headers, b"mcp-protocol-version": b"v999.0.0"}, asked)
        assert caught.value.details == {"supported": ["2026-07-28"], "requested": "v999.0.0"}
    for member in (versions.META_VERSION, versions.META_CAPABILITIES):
        headers, asked = modern()
        del asked.meta[member]
        with pytest.raises(InvalidParams):
            check_modern(headers, asked)
    with pytest.raises(InvalidParams):
        check_modern(*modern(5))
    headers, asked = modern()
    del asked.params["name"]
    with pytest.raises(InvalidParams):
        check_modern(headers, asked)


def test_headers_are_decoded_or_not_at_all() -> None:
    assert decode_header(b"plain") == "plain"
    assert decode_header(b"=?base64?8J+YgA==?=") == "\U0001f600"
    assert decode_header(b"=?base64??=") == ""
    assert decode_header(b"=?base64?SGVsbG8=") == "=?base64?SGVsbG8="
    for bad in (b"=?base64?!?=", b"=?base64?/w==?=", b"=?base64?w6k?=", b"=?base64?SGVs!!!bG8=?=", b"=?base64?YR==?="):
        assert decode_header(bad) is None


@given(st.dictionaries(st.text(max_size=8).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)), st.integers(), max_size=5))
def test_an_object_is_written_so_that_it_reads_the_same(parts: dict[str, int]) -> None:
    raw = {name: b"%d" % value for name, value in parts.items()}
    assert json.loads(object_of(raw)) == parts
    assert json.loads(response_frame(b'"x"', object_of(raw))) == {"jsonrpc": "2.0", "id": "x", "result": parts}
    assert json.loads(error_frame(b"1", object_of(raw))) == {"jsonrpc": "2.0", "id": 1, "error": parts}


@given(st.text())
def test_any_name_is_one_header_line(name: str) -> None:
    value = encode_header(name)
    assert all(0x20 <= byte <= 0x7E for byte in value)
    if value.startswith(b"=?base64?"):
        assert base64.b64decode(value[9:-2]).decode("utf-8", "surrogatepass") == name
    else:
        assert value.decode() == name
    if name.isascii():
        assert decode_header(value) == name


PIECES = [
    *(b'"jsonrpc":"2.0"', b'"id":1', b'"id":"a"', b'"id":null', b'"id":[]', b' "id": 2 '),
    *(b'"method":"tools/call"', b'"method":"pi\\u006eg"', b'"method":7', '"method":"\u00e9"'.encode()),
    *(b'"params":{"name":"x","_meta":{}}', b'"params":{"a":1,"a":1}', b'"params":[]', b'"params":null'),
    *(b'"result":{}', b'"error":{}', b'"x":1'),
]


def outcome(body: bytes) -> object:
    try:
        return classify({b"mcp-protocol-version": b"2025-11-25"}, body)
    except HubError as error:
        return type(error), error.text


@given(parts=st.lists(st.sampled_from(PIECES), max_size=6), blank=st.sampled_from([b"", b" ", b"\n"]))
def test_short_way_through_a_plain_message_says_what_the_long_way_says(parts: list[bytes], blank: bytes) -> None:
    body = b"{" + b",".join(parts) + b"}" + blank
    with pytest.MonkeyPatch.context() as patched:
        short = outcome(body)
        patched.setattr(envelope, "_plain", lambda _body: None)
        assert short == outcome(body)
