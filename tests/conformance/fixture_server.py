"""The server that the conformance suite is run against: everything it asks for, over HTTP or STDIO, in both eras or in one.

    python -m tests.conformance.fixture_server --port 0            # prints its address; 127.0.0.1 only
    python -m tests.conformance.fixture_server --stdio --era legacy

Built on the official Python SDK, so that the hub is measured against somebody else's reading of the protocol.
"""

import argparse
import itertools
import json
import re
import socket
import sys
import warnings
from collections import deque
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.session import ServerSession
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler, PromptsListChanged, ServerEvent, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from tests.conformance import fixture_tools
from tests.conformance.fixture_asking import Client, Context, InputNeeded, form, is_modern
from tests.conformance.fixture_eras import ERAS, one_era_http, one_era_streams
from tests.conformance.fixture_tools import BUS, IMAGE, embedded, image, text

NAME = "conformance-fixture"
RETRY_MS = 100
STATIC = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", None),
    "test://watched-resource": ("text/plain", "Watched resource content"),
}
TEMPLATE = re.compile(r"test://template/([^/]+)/data")
LEGACY_RESOURCE_NOT_FOUND = -32002
EVENTS_KEPT = 2000
SESSIONS_KEPT = 100


class Fixture(Server[Any]):
    """Announces to the older clients too that its lists may change, and tells them."""

    def __init__(self) -> None:
        super().__init__(
            NAME,
            version="1.0.0",
            instructions="Everything that the conformance suite asks for.",
            on_list_tools=list_tools,
            on_call_tool=fixture_tools.call,
            on_list_resources=list_resources,
            on_list_resource_templates=list_templates,
            on_read_resource=read_resource,
            on_subscribe_resource=nothing,
            on_unsubscribe_resource=nothing,
            on_subscriptions_listen=ListenHandler(BUS),
            on_list_prompts=list_prompts,
            on_get_prompt=get_prompt,
            on_completion=complete,
        )
        self.add_request_handler("logging/setLevel", types.SetLevelRequestParams, nothing)
        self.add_notification_handler("notifications/initialized", types.NotificationParams, self._opened)
        self.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
        self._sessions: deque[ServerSession] = deque(maxlen=SESSIONS_KEPT)

    def create_initialization_options(self, *args: Any, **more: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(True, True, True))

    async def _opened(self, ctx: Context, params: types.NotificationParams) -> None:
        self._sessions.append(ctx.session)

    async def forward(self) -> None:
        """Pass what is published on to the sessions of older clients, for as long as the server runs."""
        send, receive = anyio.create_memory_object_stream[ServerEvent](100)
        BUS.subscribe(send.send_nowait)
        async for event in receive:
            for session in list(self._sessions):
                if isinstance(event, ToolsListChanged):
                    await session.send_tool_list_changed()
                elif isinstance(event, PromptsListChanged):
                    await session.send_prompt_list_changed()


class Events(EventStore):
    """The last events of all streams, for clients that come back."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._events: deque[tuple[int, str, types.JSONRPCMessage | None]] = deque(maxlen=EVENTS_KEPT)

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        number = next(self._numbers)
        self._events.append((number, stream_id, message))
        return str(number)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        stream = next((stream for number, stream, _ in self._events if number == last), None)
        for number, of, message in list(self._events):
            if of == stream and number > last and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[entry.tool for entry in fixture_tools.TOOLS.values()])


async def list_resources(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    found = [types.Resource(uri=uri, name=uri.removeprefix("test://"), mime_type=kind) for uri, (kind, _) in STATIC.items()]
    return types.ListResourcesResult(resources=found)


async def list_templates(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
    one = types.ResourceTemplate(uri_template="test://template/{id}/data", name="data of an id", mime_type="application/json")
    return types.ListResourceTemplatesResult(resource_templates=[one])


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    if match := TEMPLATE.fullmatch(uri):
        words = json.dumps({"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"})
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type="application/json", text=words)])
    if uri not in STATIC:
        code = types.INVALID_PARAMS if is_modern(ctx) else LEGACY_RESOURCE_NOT_FOUND
        raise MCPError(code, "Resource not found", {"uri": uri})
    kind, words = STATIC[uri]
    if words is None:
        return types.ReadResourceResult(contents=[types.BlobResourceContents(uri=uri, mime_type=kind, blob=IMAGE)])
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=kind, text=words)])


async def nothing(ctx: Context, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


def argument(name: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=f"The prompt's {name}", required=True)


PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="A prompt without arguments"),
    types.Prompt(name="test_prompt_with_arguments", description="A prompt with two", arguments=[argument("arg1"), argument("arg2")]),
    types.Prompt(name="test_prompt_with_embedded_resource", description="A prompt with a resource", arguments=[argument("resourceUri")]),
    types.Prompt(name="test_prompt_with_image", description="A prompt with an image"),
    types.Prompt(name="test_input_required_result_prompt", description="A prompt that asks a person first"),
]


async def list_prompts(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=PROMPTS)


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    blocks: list[types.ContentBlock]
    match params.name:
        case "test_simple_prompt":
            blocks = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            blocks = [text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
        case "test_prompt_with_embedded_resource":
            uri = given.get("resourceUri", "test://missing")
            words = "Embedded resource content for testing."
            blocks = [embedded(uri, "text/plain", words), text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            blocks = [image(), text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            try:
                answers = await Client(ctx).ask({"user_context": form("What context should the prompt use?", "context")})
            except InputNeeded as needed:
                return needed.result
            blocks = [text(json.dumps(answers))]
        case _:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block) for block in blocks])


async def complete(ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [word for word in ("test-one", "test-two") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def over_http(port: int, era: str) -> None:
    """Serve at http://127.0.0.1:port/mcp; 0 lets the system choose. The address is printed once it is open."""
    server = Fixture()
    app = one_era_http(server.streamable_http_app(event_store=Events(), retry_interval=RETRY_MS), era)
    with socket.create_server(("127.0.0.1", port), backlog=128) as listening:
        sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp\n")
        sys.stdout.flush()
        async with anyio.create_task_group() as group:
            group.start_soon(server.forward)
            await uvicorn.Server(uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1)).serve([listening])
            group.cancel_scope.cancel()


async def over_stdio(era: str) -> None:
    """Serve one client on standard input and output."""
    server = Fixture()
    async with stdio_server() as streams, one_era_streams(*streams, era) as (read, write), anyio.create_task_group() as group:
        group.start_soon(server.forward)
        await server.run(read, write, server.create_initialization_options())
        group.cancel_scope.cancel()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--era", choices=ERAS, default="both")
    given = parser.parse_args()
    # Sampling, roots and logging go out with the next revision; the suite asks for them all the same.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    if given.stdio:
        anyio.run(over_stdio, given.era)
    else:
        anyio.run(over_http, given.port, given.era)


if __name__ == "__main__":
    main()
