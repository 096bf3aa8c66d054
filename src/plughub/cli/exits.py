"""How a command ends badly: its exit code and its words. docs/cli.md lists the codes."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a script may ask for."""

    TOOL_ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    UPSTREAM = 6
    LATER = 7
    HUB = 8
    BROKEN_PIPE = 141


_OF_CODES = {
    "UNAUTHORIZED": ExitCode.NOT_ALLOWED,
    "FORBIDDEN": ExitCode.NOT_ALLOWED,
    "GONE": ExitCode.NOT_ALLOWED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "TOOL_NOT_FOUND": ExitCode.NOT_FOUND,
    "UPSTREAM_ERROR": ExitCode.UPSTREAM,
    "UPSTREAM_TIMEOUT": ExitCode.UPSTREAM,
    "FAILED_DEPENDENCY": ExitCode.UPSTREAM,
    "RATE_LIMITED": ExitCode.LATER,
    "UNAVAILABLE": ExitCode.LATER,
    "SERVER_ERROR": ExitCode.HUB,
}


class Failure(Exception):
    """Ends the command with a code; `lines` follow the sentence on the screen."""

    def __init__(self, code: ExitCode, text: str, *lines: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.lines = lines


def failure_of(body: Any) -> Failure:
    """The hub's error of the `/api` form, in words. What has another form was not the hub's."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return Failure(ExitCode.HUB, "The answer is not that of a Plughub; is it the right address?")
    details = error.get("details") or {}
    lines = [f"  {problem['field']}: {problem['message']}" for problem in details.get("errors", ())[1:]]
    if isinstance(rpc_error := details.get("rpc_error"), Mapping):
        lines.append(f"  server: {rpc_error.get('message')}")
    if hint := details.get("hint"):
        lines.append(f"  hint: {hint}")
    if request_id := body.get("request_id"):
        lines.append(f"  request: {request_id}")
    return Failure(_OF_CODES.get(str(error.get("code")), ExitCode.USAGE), str(error.get("message")), *lines)
