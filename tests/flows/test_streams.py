"""Progress streams over REST, and calls given up by their caller."""

import json
import time
from typing import Any

import httpx2
import pytest

from tests.flows.running_hub import RunningHub

PROMPT = "a harbour at night"


def frames(lines: list[str]) -> list[tuple[str, Any]]:
    """(event, data) of every frame."""
    found, event, data = [], "message", ""
    for line in lines:
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            found.append((event, json.loads(data)))
            event, data = "message", ""
    return found


def stream(hub: RunningHub, path: str, body: Any) -> tuple[list[tuple[str, Any]], float]:
    """All frames, and the seconds between the first line and the last."""
    headers = {"Authorization": f"Bearer {hub.key}", "Accept": "text/event-stream"}
    lines, times = [], []
    with httpx2.stream("POST", hub.url + path, json=body, headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            lines.append(line)
            times.append(time.monotonic())
    return frames([*lines, ""]), times[-1] - times[0]


@pytest.mark.requirement("call.execute-stream", "demo.streams-progress")
def test_execute_streams_the_text_while_it_grows(hub: RunningHub) -> None:
    whole = hub.execute(hub.demo(), "generate_text", {"prompt": PROMPT}).json()["result"]
    path = f"/api/servers/{hub.demo()['uuid']}/tools/generate_text/execute"
    seen, seconds = stream(hub, path, {"parameters": {"prompt": PROMPT}})
    assert [event for event, _ in seen] == ["progress"] * (len(seen) - 1) + ["result"]
    assert "".join(data["message"] for event, data in seen if event == "progress") == whole
    assert seen[-1][1]["result"] == whole
    assert seconds > 0.1, "the frames came all at once"


@pytest.mark.requirement("call.invoke-stream")
def test_invoke_streams_the_same_frames(hub: RunningHub) -> None:
    body = {"mcp_id": hub.demo()["uuid"], "tool": "generate_text", "arguments": {"prompt": PROMPT}}
    seen, seconds = stream(hub, "/v1/mcp/invoke", body)
    assert [event for event, _ in seen] == ["progress"] * (len(seen) - 1) + ["result"]
    assert len(seen) > 5
    assert seconds > 0.1, "the frames came all at once"


@pytest.mark.requirement("call.execute-stream")
def test_a_stream_ends_with_an_error_frame_when_no_answer_comes(hub: RunningHub) -> None:
    path = f"/api/servers/{hub.demo()['uuid']}/tools/slow/execute"
    seen, _ = stream(hub, path, {"parameters": {"seconds": 300}, "timeout_ms": 300})
    assert seen[-1][0] == "error"
    assert seen[-1][1]["error"]["code"] == "UPSTREAM_TIMEOUT"


@pytest.mark.requirement("call.tool-error-is-200")
def test_a_tools_own_error_is_told_in_each_dialect(hub: RunningHub) -> None:
    demo = hub.demo()
    answer = hub.execute(demo, "fail", {"message": "as you wish"})
    assert (answer.status_code, answer.json()["isError"], answer.json()["result"]) == (200, True, "as you wish")
    answer = hub.api("POST", "/v1/mcp/invoke", {"mcp_id": demo["uuid"], "tool": "fail", "arguments": {"message": "as you wish"}})
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "mcp_error"
    assert "as you wish" in answer.text


@pytest.mark.requirement("call.upstream-error-is-502")
def test_wrong_arguments_are_a_400_in_each_dialect(hub: RunningHub) -> None:
    demo = hub.demo()
    answer = hub.execute(demo, "get_weather", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_PARAMETER")
    assert "Missing argument 'location'" in answer.text
    answer = hub.api("POST", "/v1/mcp/invoke", {"mcp_id": demo["uuid"], "tool": "get_weather", "arguments": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_arguments")


@pytest.mark.requirement("errors.tool-not-found-suggests")
def test_a_misspelt_tool_is_met_with_the_right_name(hub: RunningHub) -> None:
    answer = hub.execute(hub.demo(), "get_whether", {"location": "Paris"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TOOL_NOT_FOUND")
    assert answer.json()["message"] == "Tool 'get_whether' not found. Did you mean 'get_weather'?"


@pytest.mark.requirement("call.caller-timeout", "upstream.timeout")
def test_a_call_over_its_time_is_a_504_and_ends_upstream(hub: RunningHub) -> None:
    demo = hub.demo()
    answer = hub.execute(demo, "slow", {"seconds": 300}, timeout_ms=200)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "UPSTREAM_TIMEOUT")
    assert answer.json()["error"]["details"]["executed"] == "unknown"
    answer = hub.api("POST", "/v1/mcp/invoke", {"mcp_id": demo["uuid"], "tool": "slow", "arguments": {"seconds": 300}, "timeout": 200})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "mcp_timeout")


@pytest.mark.requirement("upstream.cancel")
def test_calls_whose_callers_left_make_room_again(hub: RunningHub) -> None:
    # The demo server refuses more than 64 waiting calls, so a call that went on without its caller would show.
    demo = hub.demo()
    for _ in range(70):
        with pytest.raises(httpx2.ReadTimeout):
            headers = {"Authorization": f"Bearer {hub.key}"}
            path = f"{hub.url}/api/servers/{demo['uuid']}/tools/slow/execute"
            httpx2.post(path, json={"parameters": {"seconds": 300}}, headers=headers, timeout=httpx2.Timeout(5, read=0.03))
    answer = hub.execute(demo, "slow", {"seconds": 0})
    assert answer.json()["isError"] is False, answer.text
