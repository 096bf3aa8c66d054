"""The tools that the conformance suite calls by name."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ServerEvent, ToolsListChanged
from mcp.shared.exceptions import MCPError

from tests.conformance.fixture_asking import Client, Context, InputNeeded, Json, completion, form, is_modern

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
AUDIO = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
NO_ARGUMENTS: Json = {"type": "object", "properties": {}}
# The bus tells the listening streams of the modern era, and through the server also the sessions of the older one.
BUS = InMemorySubscriptionBus()

Blocks = list[types.ContentBlock]
Work = Callable[[Context, Json], Awaitable[Blocks]]


@dataclass(frozen=True)
class Entry:
    """A tool as listed, and what it does."""

    tool: types.Tool
    work: Work


TOOLS: dict[str, Entry] = {}


def tool(description: str, schema: Json = NO_ARGUMENTS, name: str = "") -> Callable[[Work], Work]:
    """Add the function under its own name, or another."""

    def add(work: Work) -> Work:
        listed = types.Tool(name=name or work.__name__, description=description, input_schema=schema)
        TOOLS[listed.name] = Entry(listed, work)
        return work

    return add


async def call(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
    """`tools/call`. What goes wrong in a tool is the tool's result, but for protocol errors of the modern era."""
    entry = TOOLS.get(params.name)
    if entry is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        return types.CallToolResult(content=await entry.work(ctx, params.arguments or {}))
    except InputNeeded as needed:
        return needed.result
    except (MCPError, RuntimeError) as error:
        if isinstance(error, MCPError) and is_modern(ctx):
            raise
        return types.CallToolResult(content=[text(str(error))], is_error=True)


def text(words: str) -> types.TextContent:
    """A block of text."""
    return types.TextContent(type="text", text=words)


def image() -> types.ImageContent:
    """One pixel."""
    return types.ImageContent(type="image", data=IMAGE, mime_type="image/png")


def embedded(uri: str, mime_type: str, words: str) -> types.EmbeddedResource:
    """A resource within a result or a prompt."""
    return types.EmbeddedResource(type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def answered(answers: dict[str, Json]) -> Blocks:
    """What the client said, as text."""
    return [text(json.dumps(answers, sort_keys=True))]


# The first one listed is the one that the header checks call, with no arguments at all.
@tool("Answers with a text")
async def test_simple_text(ctx: Context, arguments: Json) -> Blocks:
    return [text("This is a simple text response for testing.")]


@tool("Answers with an image")
async def test_image_content(ctx: Context, arguments: Json) -> Blocks:
    return [image()]


@tool("Answers with a sound")
async def test_audio_content(ctx: Context, arguments: Json) -> Blocks:
    return [types.AudioContent(type="audio", data=AUDIO, mime_type="audio/wav")]


@tool("Answers with an embedded resource")
async def test_embedded_resource(ctx: Context, arguments: Json) -> Blocks:
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@tool("Answers with a text, an image and a resource")
async def test_multiple_content_types(ctx: Context, arguments: Json) -> Blocks:
    return [
        text("Multiple content types test:"),
        image(),
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]


@tool("Always fails")
async def test_error_handling(ctx: Context, arguments: Json) -> Blocks:
    raise RuntimeError("This tool intentionally returns an error for testing")


@tool("Reports its progress in three steps")
async def test_tool_with_progress(ctx: Context, arguments: Json) -> Blocks:
    for step in (0, 50, 100):
        await ctx.session.report_progress(step, 100, f"Completed step {step} of 100")
    return [text("Done in three steps")]


@tool("Logs three messages")
async def test_tool_with_logging(ctx: Context, arguments: Json) -> Blocks:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await log(ctx, words)
    return [text("Logged three messages")]


@tool("Logs a message, to clients that asked for it")
async def test_logging_tool(ctx: Context, arguments: Json) -> Blocks:
    await log(ctx, "One message")
    return [text("Logged to whom it may concern")]


@tool("Closes the stream of the answer before it has one, so that the client must come back for it")
async def test_reconnection(ctx: Context, arguments: Json) -> Blocks:
    await log(ctx, "Before the stream is closed")
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    return [text("Reconnection test completed")]


async def log(ctx: Context, words: str) -> None:
    """A log message on the stream of this call."""
    await ctx.session.send_log_message("info", words, related_request_id=ctx.request_id)


@tool("Needs the client's model", {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]})
async def test_sampling(ctx: Context, arguments: Json) -> Blocks:
    said = (await Client(ctx).ask({"sampling": completion(arguments["prompt"])}))["sampling"]
    return [text(f"LLM response: {said['content']['text']}")]


@tool("Needs a person", {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]})
async def test_elicitation(ctx: Context, arguments: Json) -> Blocks:
    return answered(await Client(ctx).ask({"elicitation": form(arguments["message"], "username", "email")}))


@tool("Needs a person, and proposes answers of every primitive type")
async def test_elicitation_sep1034_defaults(ctx: Context, arguments: Json) -> Blocks:
    question = form(
        "Please review these answers",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return answered(await Client(ctx).ask({"elicitation": question}))


def titled(**titles: str) -> list[Json]:
    """Choices with names for people."""
    return [{"const": value, "title": title} for value, title in titles.items()]


@tool("Needs a person to choose, in every form of a choice")
async def test_elicitation_sep1330_enums(ctx: Context, arguments: Json) -> Blocks:
    plain = ["option1", "option2", "option3"]
    question = form(
        "Please choose",
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": titled(value1="First Option", value2="Second Option")},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled(value1="First Choice", value2="Second Choice")}},
    )
    return answered(await Client(ctx).ask({"elicitation": question}))


@tool("Needs the client's model; a client without one is refused")
async def test_missing_capability(ctx: Context, arguments: Json) -> Blocks:
    return answered(await Client(ctx).ask({"sampling": completion("Anything")}))


@tool("Needs a person")
async def test_streaming_elicitation(ctx: Context, arguments: Json) -> Blocks:
    return answered(await Client(ctx).ask({"answer": form("What now?", "answer")}))


@tool("Tells whoever listens that the tools have changed")
async def test_trigger_tool_change(ctx: Context, arguments: Json) -> Blocks:
    return await published(ToolsListChanged())


@tool("Tells whoever listens that the prompts have changed")
async def test_trigger_prompt_change(ctx: Context, arguments: Json) -> Blocks:
    return await published(PromptsListChanged())


async def published(event: ServerEvent) -> Blocks:
    """Publish, and say so."""
    await BUS.publish(event)
    return [text(f"Published {type(event).__name__}")]


YES: dict[str, Any] = {"ok": {"type": "boolean"}}


@tool("Asks a person for a name")
async def test_input_required_result_elicitation(ctx: Context, arguments: Json) -> Blocks:
    said = (await Client(ctx).ask({"user_name": form("What is your name?", "name")}))["user_name"]
    return [text(f"Hello, {said.get('content', {}).get('name', 'stranger')}!")]


@tool("Asks the client's model")
async def test_input_required_result_sampling(ctx: Context, arguments: Json) -> Blocks:
    return answered(await Client(ctx).ask({"capital_question": completion("What is the capital of France?")}))


@tool("Asks for the client's roots")
async def test_input_required_result_list_roots(ctx: Context, arguments: Json) -> Blocks:
    return answered(await Client(ctx).ask({"client_roots": types.ListRootsRequest()}))


@tool("Asks for a confirmation, and keeps a state meanwhile")
async def test_input_required_result_request_state(ctx: Context, arguments: Json) -> Blocks:
    await Client(ctx, stateful=True).ask({"confirm": form("Please confirm", **YES)})
    return [text("state-ok")]


@tool("Asks for a confirmation, and refuses a state that is not its own")
async def test_input_required_result_tampered_state(ctx: Context, arguments: Json) -> Blocks:
    await Client(ctx, stateful=True).ask({"confirm": form("Please confirm", **YES)})
    return [text("state-ok")]


@tool("Asks a person, the client's model and for its roots at once")
async def test_input_required_result_multiple_inputs(ctx: Context, arguments: Json) -> Blocks:
    questions = {
        "user_name": form("What is your name?", "name"),
        "greeting": completion("Generate a greeting", 50),
        "client_roots": types.ListRootsRequest(),
    }
    return answered(await Client(ctx, stateful=True).ask(questions))


@tool("Asks a person twice, one after the other")
async def test_input_required_result_multi_round(ctx: Context, arguments: Json) -> Blocks:
    client = Client(ctx, stateful=True)
    first = await client.ask({"step1": form("Step 1: What is your name?", "name")})
    second = await client.ask({"step2": form("Step 2: What is your favorite color?", "color")})
    return answered({**first, **second})


@tool("Asks only what the client declared")
async def test_input_required_result_capabilities(ctx: Context, arguments: Json) -> Blocks:
    client = Client(ctx)
    possible = {"elicitation": form("What is your name?", "name"), "sampling": completion("Say something")}
    questions = {name: question for name, question in possible.items() if client.has(name)}
    return answered(await client.ask(questions))


@tool(
    "Has a parameter that is also a header",
    {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}}},
)
async def test_header_parameter(ctx: Context, arguments: Json) -> Blocks:
    return [text(f"Region: {arguments.get('region')}")]


@tool(
    "Has a schema with the vocabulary of JSON Schema 2020-12",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema_2020_12_tool(ctx: Context, arguments: Json) -> Blocks:
    return [text(json.dumps(arguments))]
