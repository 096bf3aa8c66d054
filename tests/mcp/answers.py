"""What the tests of the MCP doors look at in an answer."""

import httpx2

from tests.serving import Json


def error(answer: httpx2.Response) -> Json:
    found: Json = answer.json()["error"]
    return found


def one(made: Json) -> str:
    """The door of one server."""
    return f"/servers/{made['uuid']}/mcp"
