"""The demo server's protocol: handshake revisions, 2026-07-28, many calls at once, and input that is none."""

from typing import Any

import mcp_types
import pytest

from tests.demo.conversation import HANDSHAKE_VERSIONS, MODERN, TOOLS, Conversation, Message, modern, text_of


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
def test_every_handshake_revision_is_accepted(fresh: Conversation, version: str) -> None:
    result = fresh.initialize(version)
    assert result["protocolVersion"] == version
    assert set(result["capabilities"]) == {"tools", "resources", "prompts"}
    assert result["serverInfo"]["name"] == "plughub-demo"
    assert fresh.answer("ping")["result"] == {}
    assert [tool["name"] for tool in fresh.answer("tools/list")["result"]["tools"]] == TOOLS
    assert text_of(fresh.call("echo", text=version)) == version


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", ""])
def test_a_revision_without_handshake_gets_the_newest_that_has_one(fresh: Conversation, version: str) -> None:
    assert fresh.initialize(version)["protocolVersion"] == "2025-11-25"


def test_a_legacy_answer_holds_nothing_of_the_modern_era(demo: Conversation) -> None:
    assert set(demo.answer("tools/list")["result"]) == {"tools"}
    assert set(demo.call("echo", text="a")) == {"content", "isError"}


def test_nothing_but_ping_works_before_the_handshake(fresh: Conversation) -> None:
    assert fresh.answer("ping")["result"] == {}
    assert fresh.answer("tools/list")["error"]["code"] == mcp_types.INVALID_PARAMS
    assert "initialize" in fresh.answer("tools/call", {"name": "echo", "arguments": {"text": "a"}})["error"]["message"]


def test_a_batch_of_2025_03_26_is_answered_with_one_array(fresh: Conversation) -> None:
    fresh.initialize("2025-03-26")
    fresh.send(
        [
            {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0.01}}},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}},
            {"jsonrpc": "2.0", "id": "b", "method": "ping"},
            {"jsonrpc": "2.0", "id": "c", "method": "nothing"},
        ]
    )
    answers = {answer["id"]: answer for answer in fresh.receive()}
    assert set(answers) == {"a", "b", "c"}
    assert answers["b"]["result"] == {}
    assert answers["c"]["error"]["code"] == mcp_types.METHOD_NOT_FOUND


def test_a_batch_of_notifications_is_not_answered(fresh: Conversation) -> None:
    fresh.initialize("2025-03-26")
    fresh.send([{"jsonrpc": "2.0", "method": "notifications/initialized"}])
    assert fresh.answer("ping")["result"] == {}


def test_other_revisions_know_no_batches(demo: Conversation) -> None:
    demo.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    assert demo.receive()["error"]["code"] == mcp_types.INVALID_REQUEST


def test_discover_needs_no_handshake(fresh: Conversation) -> None:
    result = fresh.answer("server/discover", modern())["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert result["resultType"] == "complete"
    assert (result["ttlMs"] > 0, result["cacheScope"]) == (True, "public")
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "plughub-demo"


@pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"])
def test_modern_lists_say_how_long_they_hold(fresh: Conversation, method: str) -> None:
    result = fresh.answer(method, modern())["result"]
    assert result["resultType"] == "complete"
    assert result["ttlMs"] > 0
    assert result["cacheScope"] == "public"


def test_a_modern_call_is_complete_and_not_cacheable(fresh: Conversation) -> None:
    result = fresh.answer("tools/call", modern(name="add", arguments={"a": 1, "b": 2}))["result"]
    assert result["resultType"] == "complete"
    assert "ttlMs" not in result
    assert text_of(result) == "3"


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel"])
def test_methods_that_2026_07_28_removed_are_unknown_to_it(fresh: Conversation, method: str) -> None:
    assert fresh.answer(method, modern())["error"]["code"] == mcp_types.METHOD_NOT_FOUND


def test_discover_is_unknown_to_a_handshake_session(demo: Conversation) -> None:
    assert demo.answer("server/discover")["error"]["code"] == mcp_types.METHOD_NOT_FOUND


def test_both_eras_may_be_spoken_to_one_process(demo: Conversation) -> None:
    assert "resultType" in demo.answer("tools/list", modern())["result"]
    assert "resultType" not in demo.answer("tools/list")["result"]


def test_an_unknown_revision_is_told_the_supported_ones(fresh: Conversation) -> None:
    meta = {**MODERN, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    error = fresh.answer("tools/list", {"_meta": meta})["error"]
    assert error["code"] == mcp_types.UNSUPPORTED_PROTOCOL_VERSION
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


@pytest.mark.parametrize("absent", ["io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"])
def test_a_modern_request_without_its_required_fields_is_refused(fresh: Conversation, absent: str) -> None:
    meta = {key: value for key, value in MODERN.items() if key != absent}
    error = fresh.answer("server/discover", {"_meta": meta})["error"]
    assert error["code"] == mcp_types.INVALID_PARAMS
    assert absent in error["message"]


def test_a_slow_call_holds_up_nobody(demo: Conversation) -> None:
    slow = demo.ask("tools/call", {"name": "slow", "arguments": {"seconds": 0.3}})
    assert text_of(demo.call("echo", text="meanwhile")) == "meanwhile"
    message = demo.receive()
    assert message["id"] == slow
    assert text_of(message["result"]) == "Waited 0.3 seconds"


def test_a_cancelled_call_is_never_answered(demo: Conversation) -> None:
    slow = demo.ask("tools/call", {"name": "slow", "arguments": {"seconds": 300}})
    demo.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": slow, "reason": "test"}})
    again = {"jsonrpc": "2.0", "id": slow, "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0}}}
    with_same_id: Message = {"error": {}}
    while "error" in with_same_id:  # The id is free again as soon as the cancelled call has ended.
        demo.send(again)
        with_same_id = demo.receive()
    assert text_of(with_same_id["result"]) == "Waited 0 seconds"


@pytest.mark.parametrize("params", [{}, {"requestId": 99}, {"requestId": None}, {"requestId": []}, []])
def test_cancelling_what_does_not_run_is_ignored(demo: Conversation, params: Any) -> None:
    demo.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
    assert demo.answer("ping")["result"] == {}


def test_an_id_in_use_is_refused(demo: Conversation) -> None:
    message = {"jsonrpc": "2.0", "id": "twice", "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0.2}}}
    demo.send(message)
    demo.send(message)
    assert demo.receive()["error"]["code"] == mcp_types.INVALID_REQUEST
    assert text_of(demo.receive()["result"]) == "Waited 0.2 seconds"


def test_more_calls_than_there_is_room_for_are_refused_in_words(demo: Conversation) -> None:
    for _ in range(64):
        demo.ask("tools/call", {"name": "slow", "arguments": {"seconds": 300}})
    result = demo.call("slow", seconds=0)
    assert result["isError"] is True
    assert "64 calls are running" in text_of(result)
    assert text_of(demo.call("echo", text="still there")) == "still there"


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"\xff\xfe\n",
        b'{"a": NaN}\n',
        b"[" * 100_000 + b"\n",
        b'"\n',
        b"9" * 5000 + b"\n",
        b"{" + b" " * 17 * 1024 * 1024 + b"}\n",
    ],
    ids=["words", "not UTF-8", "NaN", "deep", "open string", "endless number", "17 MB"],
)
def test_a_line_that_is_no_json_is_a_parse_error_and_nothing_more(demo: Conversation, line: bytes) -> None:
    demo.send_bytes(line)
    message = demo.receive()
    assert (message["id"], message["error"]["code"]) == (None, mcp_types.PARSE_ERROR)
    assert demo.answer("ping")["result"] == {}


NOT_REQUESTS: list[Any] = [1, None, "a", [], {}, {"id": 1, "method": "ping"}, {"jsonrpc": "1.0", "id": 1, "method": "ping"}]
BAD_IDS: list[Any] = [None, True, 1.5, [], {}]
NO_METHODS: list[Any] = [{"jsonrpc": "2.0", "id": 1}, {"jsonrpc": "2.0", "id": 1, "method": 5}]


@pytest.mark.parametrize("message", NOT_REQUESTS + [{"jsonrpc": "2.0", "id": bad, "method": "ping"} for bad in BAD_IDS] + NO_METHODS)
def test_json_that_is_no_request_is_an_invalid_request(demo: Conversation, message: Any) -> None:
    demo.send(message)
    assert demo.receive()["error"]["code"] == mcp_types.INVALID_REQUEST
    assert demo.answer("ping")["result"] == {}


@pytest.mark.parametrize("params", [[], "a", 1, None])
def test_params_that_are_no_object_are_invalid(demo: Conversation, params: Any) -> None:
    demo.send({"jsonrpc": "2.0", "id": "x", "method": "tools/list", "params": params})
    message = demo.receive()
    assert (message["id"], message["error"]["code"]) == ("x", mcp_types.INVALID_PARAMS)


def test_blank_lines_answers_and_unknown_notifications_are_ignored(demo: Conversation) -> None:
    demo.send_bytes(b"\n  \r\n")
    demo.send({"jsonrpc": "2.0", "id": 5, "result": {}})
    demo.send({"jsonrpc": "2.0", "method": "notifications/nothing"})
    assert demo.answer("ping")["result"] == {}


def test_logging_is_not_offered(demo: Conversation) -> None:
    assert demo.answer("logging/setLevel", {"level": "debug"})["error"]["code"] == mcp_types.METHOD_NOT_FOUND
