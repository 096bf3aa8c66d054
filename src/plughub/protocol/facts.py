"""What a handshake tells of a server, and what it may ask of a client."""

from dataclasses import dataclass
from typing import Literal

Era = Literal["legacy", "modern"]
# A JSON value as bytes or msgspec.Raw (typed as bytes): it passes as it came.
RawJson = bytes
# The requests that a server may send to a client, and the capability that allows each.
QUESTIONS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the handshake (`initialize` or `server/discover`) told. The raw JSON values pass on as they came; `raw` is the whole result."""

    era: Era
    version: str
    capabilities: bytes
    server_info: bytes
    instructions: bytes | None = None
    raw: bytes = b"{}"
