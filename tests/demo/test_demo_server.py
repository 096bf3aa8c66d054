"""The demo server as its clients meet it: a process, its tools, resources and prompts. Nothing of it is imported here."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import mcp_types
import pytest
from mcp import Client, MCPError, StdioServerParameters

from tests.demo.conversation import COMMAND, PATIENCE_S, SERVER, TOOLS, Conversation, Message, modern, text_of


@pytest.mark.requirement("demo.stdlib-only")
def test_it_imports_only_the_standard_library() -> None:
    tree = ast.parse(SERVER.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_it_answers_soon_after_its_start_and_stays_small() -> None:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        with Conversation() as conversation:
            conversation.answer("ping")
            seconds.append(time.perf_counter() - begun)
            status = Path(f"/proc/{conversation.process.pid}/status")
            memory = int(status.read_text().split("VmRSS:")[1].split()[0]) if status.exists() else 0
    assert min(seconds) < 0.120, "the goal is 60 ms; twice that is a defect even on a busy machine"
    assert memory < 15 * 1024


def test_it_ends_when_its_input_ends_even_while_a_call_runs(demo: Conversation) -> None:
    demo.ask("tools/call", {"name": "slow", "arguments": {"seconds": 300}})
    demo.answer("ping")
    assert demo.close() == 0


def test_it_ends_quietly_when_nobody_reads_its_output() -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    os.close(read_end)
    _, stderr = process.communicate(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n' * 3, timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.requirement("demo.structured-weather")
def test_the_documents_example_is_answered_as_documented(demo: Conversation) -> None:
    result = demo.call("get_weather", location="San Francisco, CA")
    documented = {"location": "San Francisco, CA", "temperature": 65, "unit": "fahrenheit", "conditions": "Partly cloudy", "humidity": 72}
    assert result["structuredContent"] == documented
    assert json.loads(text_of(result)) == documented
    assert result["isError"] is False


@pytest.mark.parametrize("location", ["New York", "London", "Paris", "Tokyo", "東京", "a" * 200, "Nowhere at all"])
def test_the_weather_of_a_place_is_always_the_same(demo: Conversation, location: str) -> None:
    weather = demo.call("get_weather", location=location)["structuredContent"]
    assert weather["location"] == location
    assert 0 <= weather["humidity"] <= 100
    with Conversation() as other:
        other.initialize()
        assert other.call("get_weather", location=location)["structuredContent"] == weather


def test_celsius_is_the_same_weather(demo: Conversation) -> None:
    weather = demo.call("get_weather", location="San Francisco, CA", units="celsius")["structuredContent"]
    assert (weather["temperature"], weather["unit"], weather["humidity"]) == (18, "celsius", 72)


def test_the_forecast_has_as_many_days_as_asked(demo: Conversation) -> None:
    forecast = demo.call("get_forecast", location="Paris", days=5)["structuredContent"]
    assert [day["day"] for day in forecast["days"]] == [1, 2, 3, 4, 5]
    assert all(day["low"] < day["high"] for day in forecast["days"])
    assert demo.call("get_forecast", location="Paris", days=2)["structuredContent"]["days"] == forecast["days"][:2]


def test_structured_results_fit_their_output_schema(demo: Conversation) -> None:
    schemas = {tool["name"]: tool.get("outputSchema") for tool in demo.answer("tools/list")["result"]["tools"]}
    assert {name for name, schema in schemas.items() if schema} == {"get_weather", "get_forecast"}
    weather = demo.call("get_weather", location="Oslo")["structuredContent"]
    assert set(schemas["get_weather"]["required"]) == set(weather)
    forecast = demo.call("get_forecast", location="Oslo", days=1)["structuredContent"]
    assert set(schemas["get_forecast"]["properties"]["days"]["items"]["required"]) == set(forecast["days"][0])


def test_a_report_is_about_the_places_it_was_asked_for(demo: Conversation) -> None:
    report = text_of(demo.call("generate_report", query="London and Paris this week"))
    assert report.startswith("# Weather report: London and Paris this week")
    assert "London" in report and "Paris" in report and "Tokyo" not in report


@pytest.mark.requirement("demo.streams-progress")
def test_the_messages_of_a_streamed_text_are_the_text(demo: Conversation) -> None:
    plain = text_of(demo.call("generate_text", prompt="the sea"))
    number = demo.ask("tools/call", {"name": "generate_text", "arguments": {"prompt": "the sea"}, "_meta": {"progressToken": "t"}})
    pieces = []
    while "method" in (message := demo.receive()):
        assert message["method"] == "notifications/progress"
        assert message["params"]["progressToken"] == "t"
        pieces.append(message["params"])
    assert message["id"] == number
    assert "".join(piece["message"] for piece in pieces) == plain == text_of(message["result"])
    assert len(pieces) > 5
    assert [piece["progress"] for piece in pieces] == sorted({piece["progress"] for piece in pieces})
    assert pieces[-1]["progress"] == pieces[-1]["total"]


@pytest.mark.parametrize("text", ["", "a\nb", "\u2028", "🌦", "\x00", '{"a": 1}', "x" * 1_000_000])
def test_echo_gives_the_text_back(demo: Conversation, text: str) -> None:
    assert text_of(demo.call("echo", text=text)) == text


@pytest.mark.parametrize(
    ("a", "b", "total"), [(1, 2, "3"), (0.5, 0.25, "0.75"), (10**30, 1, str(10**30 + 1)), (-1, 1, "0"), (1e308, 1, "1e+308")]
)
def test_add_adds(demo: Conversation, a: float, b: float, total: str) -> None:
    assert text_of(demo.call("add", a=a, b=b)) == total


@pytest.mark.parametrize(("a", "b"), [(1e308, 1e308), (10**400, 0.5), (10**4300 - 1, 1)])
def test_a_sum_that_cannot_be_written_is_an_error_of_the_tool(demo: Conversation, a: float, b: float) -> None:
    assert demo.call("add", a=a, b=b)["isError"] is True
    assert demo.answer("ping")["result"] == {}


def test_fail_answers_with_an_error_of_its_own(demo: Conversation) -> None:
    result = demo.call("fail", message="as you wish")
    assert result["isError"] is True
    assert text_of(result) == "as you wish"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("get_weather", {}, "Missing argument 'location'"),
        ("get_weather", {"location": 7}, "'location' must be a string"),
        ("get_weather", {"location": None}, "'location' must be a string"),
        ("get_weather", {"location": "Paris", "when": "now"}, "Unknown argument 'when'; known: location, units"),
        ("get_forecast", {"location": "Paris", "days": "3"}, "'days' must be an integer"),
        ("get_forecast", {"location": "Paris", "days": 1.5}, "'days' must be an integer"),
        ("add", {"a": True, "b": 1}, "'a' must be a number"),
    ],
)
def test_arguments_of_a_wrong_shape_are_invalid_params(demo: Conversation, tool: str, arguments: Message, words: str) -> None:
    error = demo.answer("tools/call", {"name": tool, "arguments": arguments})["error"]
    assert error["code"] == mcp_types.INVALID_PARAMS
    assert words in error["message"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("get_weather", {"location": " "}, "'location' must have 1 to 200 characters"),
        ("get_weather", {"location": "a" * 201}, "'location' must have 1 to 200 characters"),
        ("get_weather", {"location": "Paris", "units": "kelvin"}, "'units' must be one of: fahrenheit, celsius"),
        ("get_forecast", {"location": "Paris", "days": 0}, "'days' must be between 1 and 14"),
        ("get_forecast", {"location": "Paris", "days": 15}, "'days' must be between 1 and 14"),
        ("slow", {"seconds": -1}, "'seconds' must be between 0 and 300"),
        ("slow", {"seconds": 1e9}, "'seconds' must be between 0 and 300"),
    ],
)
def test_values_out_of_range_are_an_error_that_a_model_can_read(demo: Conversation, tool: str, arguments: Message, words: str) -> None:
    result = demo.call(tool, **arguments)
    assert result["isError"] is True
    assert words in text_of(result)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"name": "get_whether", "arguments": {}}, "Unknown tool: get_whether"),
        ({"arguments": {}}, "'name' must be a string"),
        ({"name": "echo", "arguments": []}, "'arguments' must be an object"),
        ({"name": "echo", "arguments": {}, "_meta": 1}, "_meta must be an object"),
    ],
)
def test_a_call_that_cannot_be_read_is_invalid_params(demo: Conversation, params: Message, words: str) -> None:
    error = demo.answer("tools/call", params)["error"]
    assert error["code"] == mcp_types.INVALID_PARAMS
    assert words in error["message"]


@pytest.mark.requirement("demo.tools")
def test_resources_and_templates_are_listed_and_read(demo: Conversation) -> None:
    [listed] = demo.answer("resources/list")["result"]["resources"]
    assert listed["uri"] == "weather://locations"
    [content] = demo.answer("resources/read", {"uri": listed["uri"]})["result"]["contents"]
    assert (content["uri"], content["mimeType"]) == ("weather://locations", "application/json")
    assert "San Francisco, CA" in json.loads(content["text"])["locations"]
    [template] = demo.answer("resources/templates/list")["result"]["resourceTemplates"]
    uri = template["uriTemplate"].replace("{location}", "San%20Francisco%2C%20CA")
    [content] = demo.answer("resources/read", {"uri": uri})["result"]["contents"]
    assert json.loads(content["text"])["temperature"] == 65


@pytest.mark.parametrize("uri", ["weather://nowhere", "weather://current/", "file:///etc/passwd", ""])
def test_an_unknown_resource_has_the_code_of_its_revision(demo: Conversation, uri: str) -> None:
    assert demo.answer("resources/read", {"uri": uri})["error"]["code"] == -32002
    assert demo.answer("resources/read", modern(uri=uri))["error"]["code"] == mcp_types.INVALID_PARAMS


@pytest.mark.parametrize("end", ["%", "%2", "%zz", "%ff%fe"])
def test_a_badly_encoded_resource_is_still_a_place(demo: Conversation, end: str) -> None:
    assert demo.answer("resources/read", {"uri": f"weather://current/a{end}"})["result"]["contents"]


def test_the_prompt_is_listed_and_filled_in(demo: Conversation) -> None:
    [prompt] = demo.answer("prompts/list")["result"]["prompts"]
    result = demo.answer("prompts/get", {"name": prompt["name"], "arguments": {"location": "Paris", "activity": "a swim"}})["result"]
    assert "Paris" in result["messages"][0]["content"]["text"]
    assert "a swim" in result["messages"][0]["content"]["text"]


@pytest.mark.parametrize(
    "params",
    [
        {"name": "nope"},
        {"name": "plan_a_day"},
        {"name": "plan_a_day", "arguments": {"location": 1}},
        {"name": "plan_a_day", "arguments": 1},
        {},
    ],
)
def test_a_wrong_prompt_is_invalid_params(demo: Conversation, params: Message) -> None:
    assert demo.answer("prompts/get", params)["error"]["code"] == mcp_types.INVALID_PARAMS


@pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"])
def test_a_cursor_that_was_never_given_out_is_invalid_params(demo: Conversation, method: str) -> None:
    assert demo.answer(method, {"cursor": "x"})["error"]["code"] == mcp_types.INVALID_PARAMS


def parameters() -> StdioServerParameters:
    return StdioServerParameters(command=COMMAND[0], args=COMMAND[1:])


@pytest.mark.anyio
@pytest.mark.requirement("demo.tools", "demo.streams-progress")
@pytest.mark.parametrize(
    ("mode", "version"),
    [("legacy", "2025-11-25"), ("2026-07-28", "2026-07-28"), ("auto", "2026-07-28")],
)
async def test_the_official_python_client_uses_everything(mode: str, version: str) -> None:
    pieces: list[str | None] = []

    async def keep(progress: float, total: float | None, message: str | None) -> None:
        pieces.append(message)

    with anyio.fail_after(20):
        async with Client(parameters(), mode=mode) as client:
            assert client.protocol_version == version
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            weather = await client.call_tool("get_weather", {"location": "San Francisco, CA"})
            assert weather.structured_content and weather.structured_content["temperature"] == 65
            text = await client.call_tool("generate_text", {"prompt": "rain"}, progress_callback=keep)
            assert isinstance(block := text.content[0], mcp_types.TextContent)
            assert "".join(piece or "" for piece in pieces) == block.text
            assert (await client.call_tool("fail", {"message": "no"})).is_error
            assert [str(resource.uri) for resource in (await client.list_resources()).resources] == ["weather://locations"]
            assert (await client.read_resource("weather://locations")).contents
            assert (await client.list_resource_templates()).resource_templates
            assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["plan_a_day"]
            assert (await client.get_prompt("plan_a_day", {"location": "Paris"})).messages
            with pytest.raises(MCPError):
                await client.call_tool("get_weather", {})


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_call_given_up_by_the_official_client_is_over(mode: str) -> None:
    with anyio.fail_after(20):
        async with Client(parameters(), mode=mode) as client:
            with anyio.move_on_after(0.1):
                await client.call_tool("slow", {"seconds": 300})
            assert not (await client.call_tool("echo", {"text": "next"})).is_error
