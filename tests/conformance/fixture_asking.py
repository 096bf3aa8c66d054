"""How the fixture's tools and prompts ask their client something, in the words of either era."""

import json
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Json = dict[str, Any]
Context = ServerRequestContext[Any, Any]
Question = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest

NEEDED = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
ANSWERS = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


class InputNeeded(Exception):
    """The request ends here, and is made again with the answers."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        super().__init__()
        self.result = result


class Client:
    """The one who asks, asked back. A client of the older revisions gets the questions as requests; a modern one is told to come again.

    With `stateful`, what was answered in earlier rounds travels in `requestState`, which the server seals.
    """

    def __init__(self, ctx: Context, *, stateful: bool = False) -> None:
        self._ctx = ctx
        self._stateful = stateful

    def has(self, capability: str) -> bool:
        """Whether the client declared it, in this request or in the handshake."""
        return getattr(self._ctx.session.client_capabilities, capability, None) is not None

    async def ask(self, questions: dict[str, Question]) -> dict[str, Json]:
        """The answers under the questions' names. Raises MCPError, when the client cannot answer, and InputNeeded."""
        if not is_modern(self._ctx):
            # Older servers seldom look at what was declared before they ask.
            return await self._sent(questions)
        missing = sorted({NEEDED[question.method] for question in questions.values() if not self.has(NEEDED[question.method])})
        if missing:
            data = {"requiredCapabilities": {name: {} for name in missing}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"The client did not declare {', '.join(missing)}", data)
        return self._told(questions)

    def _told(self, questions: dict[str, Question]) -> dict[str, Json]:
        params = self._ctx.params or {}
        earlier = json.loads(params["requestState"]) if params.get("requestState") else {}
        known = {**earlier, **(params.get("inputResponses") or {})}
        still_open = {name: question for name, question in questions.items() if name not in known}
        if still_open:
            state = json.dumps(known) if self._stateful else None
            raise InputNeeded(types.InputRequiredResult(input_requests=still_open, request_state=state))
        return {name: known[name] for name in questions}

    async def _sent(self, questions: dict[str, Question]) -> dict[str, Json]:
        answers: dict[str, Json] = {}
        refused: list[MCPError] = []
        related = ServerMessageMetadata(related_request_id=self._ctx.request_id)

        async def send(name: str, question: Question) -> None:
            try:
                answer = await self._ctx.session.send_request(question, ANSWERS[question.method], metadata=related)
            except MCPError as error:
                refused.append(error)
            else:
                answers[name] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)

        # All at once, as a server does that does not care for the order.
        async with anyio.create_task_group() as group:
            for name, question in questions.items():
                group.start_soon(send, name, question)
        if refused:
            raise refused[0]
        return answers


def is_modern(ctx: Context) -> bool:
    """Whether this request came without a handshake."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def form(message: str, *required: str, **properties: Json) -> types.ElicitRequest:
    """A question for a person: `required` are texts, `properties` anything else."""
    schema = {"type": "object", "properties": {**{name: {"type": "string"} for name in required}, **properties}, "required": list(required)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def completion(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    """A question for the client's model."""
    said = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[said], max_tokens=max_tokens))
